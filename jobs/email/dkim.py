"""DKIM signatures (RFC 6376, RFC 8463), relaxed/relaxed, over a message that was composed here."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from jobs.email.canonical import name_of, relaxed_body, relaxed_field, split
from jobs.email.dkim_keys import SigningKey, private_key
from jobs.email.dkim_settings import DkimSettings
from jobs.secrets import Secrets

OVERSIGNED = (
    "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "mime-version", "content-type",
    "content-transfer-encoding", "list-unsubscribe", "list-unsubscribe-post",
)  # fmt: skip
"""Named once more than they are there: one that is added on the way breaks the signature."""

SIGNED = (
    *OVERSIGNED,
    "auto-submitted",
    "in-reply-to",
    "references",
    "list-id",
    "list-help",
    "list-post",
    "list-archive",
)
"""RFC 6376, 5.4.1.  Not what a relay takes for itself and removes, X-… of all kinds."""

_WIDTH = 72


class NoKey(LookupError):
    """A key that should sign cannot be had; the mail is not sent without its signature."""


@dataclass(frozen=True, slots=True)
class _Known:
    text: str
    key: SigningKey


class Signer:
    """The keys of `[email.dkim.*]`, by the domain of From.  What a secret holds is looked up at each use: a file that
    was replaced counts at once."""

    def __init__(self, settings: Sequence[DkimSettings], secrets: Secrets, *, unsigned: Collection[str] = ()) -> None:
        """`unsigned`: names of headers that no signature may cover, since the relay rewrites them."""
        self._secrets = secrets
        self._unsigned = frozenset(name.lower() for name in unsigned)
        self._by_domain: dict[str, list[DkimSettings]] = {}
        self._known: dict[tuple[str, str], _Known] = {}
        for one in settings:
            for domain in one.signed_domains if one.signs else ():
                self._by_domain.setdefault(domain, []).append(one)

    def keys(self, domain: str) -> list[SigningKey]:
        """Those that sign mail From addresses of `domain`, in the form it has on the wire."""
        return [self.key(one) for one in self._by_domain.get(domain.lower(), ())]

    def key(self, settings: DkimSettings) -> SigningKey:
        """NoKey with the reason, if there is none to be had now."""
        where = f"key of {settings.selector}._domainkey.{settings.domain}"
        try:
            text = self._secrets.resolve(settings.private_key)
        except (LookupError, OSError, ValueError) as error:  # ValueError: a file that is not UTF-8
            raise NoKey(f"{where}: {error.args[0] if isinstance(error, LookupError) else error}") from error
        known = self._known.get((settings.domain, settings.selector))
        if known is None or known.text != text:
            try:
                found = SigningKey(settings.signed_domains[0], settings.selector, private_key(text))
            except ValueError as error:
                raise NoKey(f"{where}: {error}") from error
            known = self._known[settings.domain, settings.selector] = _Known(text, found)
        return known.key

    def signed(self, wire: bytes, domain: str, now: datetime) -> bytes:
        """`wire` with a signature of each key of `domain` before it, and as it is where there is none.  NoKey."""
        keys = self.keys(domain)
        if not keys:
            return wire
        fields, body = split(wire)
        body_hash = base64.b64encode(sha256(relaxed_body(body)).digest()).decode()
        return b"".join(_signature(key, fields, body_hash, now, self._unsigned) for key in keys) + wire


def unusable_keys(settings: Iterable[DkimSettings], secrets: Secrets) -> list[str]:
    """Why keys that should sign cannot."""
    signer, found = Signer([], secrets), []
    for one in settings:
        try:
            signer.key(one)
        except NoKey as error:
            found.append(str(error.args[0]))
    return found


def _signature(
    key: SigningKey, fields: Sequence[bytes], body_hash: str, now: datetime, unsigned: Collection[str]
) -> bytes:
    """The field, with its line end."""
    named = [(name_of(field), field) for field in fields]
    there = Counter(name for name, _ in named)
    names = tuple(name for name in SIGNED if name not in unsigned for _ in range(there[name] + (name in OVERSIGNED)))
    covered = [field for name in dict.fromkeys(names) for found, field in reversed(named) if found == name]
    bare = (
        f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain};\r\n\ts={key.selector}; "
        f"t={int(now.timestamp())};\r\n\th={_folded(names)};\r\n\tbh={body_hash};\r\n\tb="
    )
    said = b"\r\n".join([*map(relaxed_field, covered), relaxed_field(bare.encode())])
    b = base64.b64encode(key.sign(said)).decode()
    return (bare + "\r\n\t ".join(b[at : at + _WIDTH] for at in range(0, len(b), _WIDTH)) + "\r\n").encode()


@lru_cache(maxsize=256)
def _folded(names: tuple[str, ...]) -> str:
    """The tag h=: of those of one name a verifier takes the last first, and of one that is not there nothing."""
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > _WIDTH:
            lines.append("")
        lines[-1] += f"{name}:"
    return "\r\n\t ".join(lines).rstrip(":")
