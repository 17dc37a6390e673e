"""What the operator says about the keys that sign mail."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.email.address import wire_domain
from jobs.email.dkim_keys import is_selector, private_key
from jobs.secrets import PREFIX
from jobs.values import Secret, key


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimSettings:
    """One `[email.dkim.NAME]` section: a key.  Of a domain that has several, each signs."""

    domain: str = key(doc="Domain that signs: mail From addresses of it is signed, and its DNS has the record.")
    selector: str = key(doc="Name of the key in DNS, SELECTOR._domainkey.DOMAIN; another key takes another one.")
    private_key: Secret = key(doc="RSA (2,048 to 4,096 bits) or Ed25519 in PEM, or secret://NAME.")
    subdomains: tuple[str, ...] = key((), "Subdomains whose mail it signs too; no other is signed.")
    signs: bool = key(True, "False: nothing is signed yet, while its DNS record is on its way.")

    def __post_init__(self) -> None:
        _check_domain("domain", self.domain)
        if not is_selector(self.selector):
            raise ValueError(f"selector: {self.selector!r} is no name of labels like s2026 or 2026.mail")
        for name in self.subdomains:
            _check_domain("subdomains", name)
            if not name.lower().endswith(f".{self.domain.lower()}"):
                raise ValueError(
                    f"subdomains: {name!r} is no subdomain of {self.domain!r}; a domain has keys of its own"
                )
        if not self.private_key.startswith(PREFIX):
            try:
                private_key(self.private_key)
            except ValueError as error:
                raise ValueError(f"private_key: {error}") from None

    @property
    def signed_domains(self) -> tuple[str, ...]:
        """As From addresses have them on the wire, in lower case."""
        return tuple(wire_domain(name).lower() for name in (self.domain, *self.subdomains))


def _check_domain(name: str, domain: str) -> None:
    try:
        if "." not in wire_domain(domain):
            raise ValueError(f"{domain!r} is no domain that can stand in DNS")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
