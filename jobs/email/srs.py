"""Senders of forwarded mail, rewritten to an address of ours and back (SRS), so that SPF holds and bounces find home.

`jane@x.example` becomes `SRS0=HASH=TS=x.example=jane@ours.example`; an address that somebody else rewrote becomes
`SRS1=HASH=theirs.example==…@ours.example`, which leads back to them.  HASH is the
first eight letters, in Base32, of an HMAC-SHA256 over what follows it in lower case; TS the day modulo 1,024,
in two letters of Base32.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from hashlib import sha256

from jobs.email.address import Mailbox, wire_domain

DAYS = 21
"""So long may an address come back: longer than any relay tries."""

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_HASH = 8
_CYCLE = 1024
_DAY_S = 86_400.0
_ATOMS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+)*"
)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SRS0 = re.compile(r"SRS0([=+-])(.+)", re.IGNORECASE | re.DOTALL)
_SRS1 = re.compile(r"SRS1[=+-](.+)", re.IGNORECASE | re.DOTALL)


class Refused(ValueError):
    """An address that we have not made, or too long ago."""


class Srs:
    """`secrets`: the first one signs, each is good for addresses that come back."""

    def __init__(self, domain: str, secrets: Sequence[str]) -> None:
        if not secrets:
            raise ValueError("there is no secret to sign with")
        self.domain = wire_domain(domain).lower()
        self._secrets = tuple(secrets)

    def forward(self, sender: str, now_s: float) -> Mailbox | None:
        """The envelope's sender on its way on; None, the null path, for the null path.  Addresses of our own domain
        stay as they are.  ValueError for what is no address."""
        if not sender:
            return None
        local, domain = _parts(sender)
        if domain == self.domain:
            return Mailbox("", _written(local), domain)
        if found := _SRS1.fullmatch(local):
            _hash, first, rest = _split(found[1], 3)
            return self._made("SRS1", f"{first}={rest}")
        if found := _SRS0.fullmatch(local):
            return self._made("SRS1", f"{domain}={found[1]}{found[2]}")
        return self._made("SRS0", f"{_stamp(now_s)}={domain}={local}")

    def reverse(self, address: str, now_s: float) -> str:
        """Whom mail to `address` is for; Refused, with the reason, unless we have made it in the last 21 days."""
        try:
            local, domain = _parts(address)
        except ValueError as error:
            raise Refused(str(error)) from None
        if domain != self.domain:
            raise Refused(f"{address!r} is not of {self.domain}")
        if found := _SRS1.fullmatch(local):
            first, rest = _split(self._verified(found[1]), 2)
            if rest[:1] not in ("=", "+", "-"):
                raise Refused("it is no SRS address: there is no separator behind the first forwarder")
            return f"{_written(f'SRS0{rest}')}@{first}"
        if found := _SRS0.fullmatch(local):
            stamp, origin, original = _split(self._verified(found[2]), 3)
            age = (_day(now_s) - _days(stamp)) % _CYCLE
            if age > DAYS:
                raise Refused(f"it is {age} days old; at most {DAYS}")
            return f"{_written(original)}@{origin}"
        raise Refused(f"{address!r} is no SRS address")

    def tokens(self, text: str) -> list[str]:
        """What only we can have said about `text`, by each secret; the first is the one to say."""
        return [_mac(secret, f"loop {text.lower()}", 16) for secret in self._secrets]

    def _made(self, tag: str, rest: str) -> Mailbox:
        return Mailbox("", _written(f"{tag}={_mac(self._secrets[0], rest)}={rest}"), self.domain)

    def _verified(self, text: str) -> str:
        """What follows the hash, if it is of ours."""
        said, rest = _split(text, 2)
        known = [_mac(secret, rest) for secret in self._secrets]
        if not any(hmac.compare_digest(said.upper().encode(), one.encode()) for one in known):
            raise Refused("its hash is not ours: it is forged, or its secret was taken away")
        return rest


def _parts(address: str) -> tuple[str, str]:
    """The local part without its quotes, and the domain in the form it has on the wire."""
    local, at, domain = address.rpartition("@")
    if not at or not local or not address.isprintable() or any(c in address for c in "<>"):
        raise ValueError(f"{address!r} is no address")
    if quoted := _QUOTED.fullmatch(local):
        local = re.sub(r"\\(.)", r"\1", quoted[1])
    return local, wire_domain(domain).lower()


def _written(local: str) -> str:
    """As a local part has it: in quotes where it must."""
    return local if _ATOMS.fullmatch(local) else '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'


def _split(text: str, parts: int) -> list[str]:
    found = text.split("=", parts - 1)
    if len(found) != parts or not all(found):
        raise Refused("it is no SRS address: a part of it is missing")
    return found


def _mac(secret: str, text: str, letters: int = _HASH) -> str:
    return base64.b32encode(hmac.digest(secret.encode(), text.lower().encode(), sha256))[:letters].decode()


def _day(now_s: float) -> int:
    return int(now_s // _DAY_S) % _CYCLE


def _stamp(now_s: float) -> str:
    high, low = divmod(_day(now_s), 32)
    return _ALPHABET[high] + _ALPHABET[low]


def _days(stamp: str) -> int:
    if len(stamp) != 2 or any(c not in _ALPHABET for c in stamp.upper()):
        raise Refused("it is no SRS address: its time is none")
    return _ALPHABET.index(stamp[0].upper()) * 32 + _ALPHABET.index(stamp[1].upper())
