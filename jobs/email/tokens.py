"""Names that come back to us from strangers, signed: addresses of bounces, and links to unsubscribe."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

import msgspec

SHORTEST_SECRET = 16
LONGEST_TOKEN = 2048

_BOUNCE = re.compile(r"bounce\+([1-9][0-9]{0,18})-([0-9a-f]{20})", re.IGNORECASE)
_MAC_BYTES = 16


class Subscription(msgspec.Struct, frozen=True, array_like=True):
    """Whom a link takes off which list; `org_id` None: of no organisation."""

    org_id: str | None
    list_: str
    recipient: str


class Tokens:
    """The first secret signs, each of them is believed, so that one can be replaced while mail is on its way.

    What is signed says what it is for: an address of a bounce is no link.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        """ValueError if one is too short to keep anything."""
        for secret in secrets:
            if len(secret.encode()) < SHORTEST_SECRET:
                raise ValueError(f"a secret of email.token_secrets is shorter than {SHORTEST_SECRET} bytes")
        self._keys = [secret.encode() for secret in secrets]

    def bounce_name(self, job_id: int) -> str:
        """What stands before the @ of the address that bounces of this job's mail go to.  Small letters and digits,
        since there are servers that change the others."""
        return f"bounce+{job_id}-{_bounce_mac(self._keys[0], job_id)}"

    def job_of(self, name: str) -> int | None:
        """The job whose mail came back; None for a name that we have not made."""
        match = _BOUNCE.fullmatch(name)
        if match is None:
            return None
        job_id, mac = int(match[1]), match[2].lower()
        return job_id if any(hmac.compare_digest(_bounce_mac(key, job_id), mac) for key in self._keys) else None

    def unsubscribe(self, subscription: Subscription) -> str:
        """For a URL: letters, digits, `-` and `_`."""
        said = msgspec.json.encode(subscription)
        return base64.urlsafe_b64encode(_mac(self._keys[0], b"unsubscribe", said) + said).rstrip(b"=").decode()

    def subscription(self, token: str) -> Subscription | None:
        """None for a token that we have not made."""
        if len(token) > LONGEST_TOKEN:
            return None
        try:
            raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return None
        mac, said = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not any(hmac.compare_digest(_mac(key, b"unsubscribe", said), mac) for key in self._keys):
            return None
        return msgspec.json.decode(said, type=Subscription)


def _bounce_mac(key: bytes, job_id: int) -> str:
    return _mac(key, b"bounce", b"%d" % job_id).hex()[:20]


def _mac(key: bytes, purpose: bytes, said: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + said, "sha256")[:_MAC_BYTES]
