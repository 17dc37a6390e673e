"""What should be published: as a row of args says it, and as it is asked and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import msgspec

from jobs.dns import names, values

Type = Literal["TXT", "CNAME", "MX", "A", "AAAA", "TOKEN", "SPF", "DKIM", "DMARC", "CAA", "NS"]

TYPES: tuple[Type, ...] = get_args(Type)
TEXTS = frozenset({"TXT", "TOKEN", "SPF", "DKIM", "DMARC"})
ADVICE = frozenset({"CAA", "NS"})
CHALLENGE = "_jobsd-challenge"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=254)]
Value = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One record that should be there: `name` is where it stands, in full, and `value` is in its normal form."""

    type: Type
    domain: str
    name: str
    value: str

    @property
    def rdtype(self) -> str:
        """The type of record that is asked for: SPF, DKIM, DMARC and tokens are TXT records."""
        return "TXT" if self.type in TEXTS else self.type

    @property
    def question(self) -> tuple[str, str]:
        """What is asked first of every server; judging may ask on."""
        return self.name, self.rdtype

    @property
    def advice(self) -> bool:
        """CAA and NS are told to people; they never change what a domain is."""
        return self.type in ADVICE


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A record that should be there.  `value` is what `values.normal` takes for the type.

    `name` is read as `names.under` does; without it, it is the domain's own.  The underscored part in front is put
    there where it is missing: `_jobsd-challenge` (TOKEN; any other name that begins with `_` stays as it is), `_dmarc`
    (DMARC), and `_domainkey` behind the selector, which a DKIM must name.
    """

    type: Type
    value: Value
    name: Name | None = None

    def __post_init__(self) -> None:
        try:
            values.normal(self.type, self.value)
            if self.type == "DKIM" and self.name in (None, "@"):
                raise ValueError('name is missing; a key stands under its selector, so write "name": "SELECTOR"')
        except ValueError as error:
            raise ValueError(f"{self.type}: {error}") from None

    def at(self, domain: str) -> Wanted:
        """What this means for `domain` (already normal); ValueError for a name that is not at or below it."""
        return Wanted(
            type=self.type,
            domain=domain,
            name=_place(self.type, domain, self.name),
            value=values.normal(self.type, self.value),
        )


def _place(rdtype: Type, domain: str, name: str | None) -> str:
    full = names.under(domain, name)
    match rdtype:
        case "TOKEN":
            return full if full != domain and full.startswith("_") else names.normal(f"{CHALLENGE}.{full}")
        case "DMARC":
            return full if full.startswith("_dmarc.") else names.normal(f"_dmarc.{full}")
        case "DKIM":
            return _key_place(domain, full)
        case _:
            return full


def _key_place(domain: str, full: str) -> str:
    """A selector may have dots ("s1.mail"), so only the word `_domainkey` tells where it ends."""
    if "._domainkey." in full:
        return full
    if full.endswith("._domainkey") or full.startswith("_domainkey."):
        raise ValueError(f"{full!r} has no selector before or no domain behind _domainkey")
    selector = full.removesuffix(f".{domain}")
    return names.normal(f"{selector}._domainkey.{domain}")
