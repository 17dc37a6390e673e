"""Values that come back to us from strangers, signed, so that nobody else can make one."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

SHORTEST_SECRET = 16
LONGEST_TOKEN = 2048

_MAC_BYTES = 16


class Signer:
    """The first secret signs, each of them is believed, so that one can be replaced while what it signed is about.

    What is signed says what it is for: a token made for one purpose is none for another.
    """

    def __init__(self, secrets: Sequence[str], named: str) -> None:
        """`named`: the key of the config that they come from.  ValueError if one is too short to keep anything."""
        for secret in secrets:
            if len(secret.encode()) < SHORTEST_SECRET:
                raise ValueError(f"a secret of {named} is shorter than {SHORTEST_SECRET} bytes")
        self._keys = [secret.encode() for secret in secrets]

    def macs(self, purpose: bytes, said: bytes) -> list[bytes]:
        """By each secret, the one that signs first."""
        return [_mac(key, purpose, said) for key in self._keys]

    def token(self, purpose: bytes, said: bytes) -> str:
        """For a URL: letters, digits, `-` and `_`."""
        mac = _mac(self._keys[0], purpose, said)
        return base64.urlsafe_b64encode(mac + said).rstrip(b"=").decode()

    def said(self, purpose: bytes, token: str) -> bytes | None:
        """What `token` was made of; None for one that we have not made."""
        if len(token) > LONGEST_TOKEN:
            return None
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return None
        mac, said = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        return said if any(hmac.compare_digest(good, mac) for good in self.macs(purpose, said)) else None


def _mac(key: bytes, purpose: bytes, said: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + said, "sha256")[:_MAC_BYTES]
