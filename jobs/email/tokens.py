"""Names that come back to us from strangers, signed: addresses of bounces, and links to unsubscribe."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

import msgspec

from jobs.signed import Signer

_BOUNCE = re.compile(r"bounce\+([1-9][0-9]{0,18})-([0-9a-f]{20})", re.IGNORECASE)


class Subscription(msgspec.Struct, frozen=True, array_like=True):
    """Whom a link takes off which list; `org_id` None: of no organisation."""

    org_id: str | None
    list_: str
    recipient: str


class Tokens:
    """Made and read with email.token_secrets."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """ValueError if one is too short to keep anything."""
        self._signer = Signer(secrets, "email.token_secrets")

    def bounce_name(self, job_id: int) -> str:
        """What stands before the @ of the address that bounces of this job's mail go to.  Small letters and digits,
        since there are servers that change the others."""
        return f"bounce+{job_id}-{self._bounce_macs(job_id)[0]}"

    def job_of(self, name: str) -> int | None:
        """The job whose mail came back; None for a name that we have not made."""
        match = _BOUNCE.fullmatch(name)
        if match is None:
            return None
        job_id, mac = int(match[1]), match[2].lower()
        return job_id if any(hmac.compare_digest(good, mac) for good in self._bounce_macs(job_id)) else None

    def unsubscribe(self, subscription: Subscription) -> str:
        """For a URL: letters, digits, `-` and `_`."""
        return self._signer.token(b"unsubscribe", msgspec.json.encode(subscription))

    def subscription(self, token: str) -> Subscription | None:
        """None for a token that we have not made."""
        said = self._signer.said(b"unsubscribe", token)
        return None if said is None else msgspec.json.decode(said, type=Subscription)

    def _bounce_macs(self, job_id: int) -> list[str]:
        return [mac.hex()[:20] for mac in self._signer.macs(b"bounce", b"%d" % job_id)]
