"""What a row of kind `webhook` says, checked before its handler is called."""

from __future__ import annotations

from typing import Annotated

import msgspec

from jobs.values import Duration, duration
from jobs.webhook.endpoints import lane_of
from jobs.webhook.headers import check
from jobs.webhook.signing import MAX_SECRETS
from jobs.webhook.target import MAX_URL, BadUrl, parse

_SecretText = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Secrets = Annotated[list[_SecretText], msgspec.Meta(min_length=1, max_length=MAX_SECRETS)]


class WebhookArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To `url`, or to `endpoint`, by its id: then all else of how to send stands there, and `event_id` may stand for
    what.  `payload` is posted byte for byte as the row has it.  `secret` is one `whsec_…` text, or several while one is
    replaced by the next; it and a header's value may be `secret://NAME`.  `timeout` can only shorten the setting.
    `event` is for the delivery log."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL)] | None = None
    endpoint: _Id | None = None
    event_id: _Id | None = None
    payload: msgspec.Raw = msgspec.Raw()
    headers: dict[str, str] = {}
    secret: _SecretText | _Secrets | None = None
    timeout: str | float | None = None
    event: Annotated[str, msgspec.Meta(max_length=256)] | None = None

    def __post_init__(self) -> None:
        if (self.url is None) == (self.endpoint is None):
            raise ValueError("url: give either url or endpoint")
        if self.event_id is not None and (self.endpoint is None or bytes(self.payload)):
            raise ValueError("event_id: goes with endpoint and in place of payload")
        if self.event_id is None and not bytes(self.payload):
            raise ValueError("payload: is missing")
        if self.endpoint is not None and self.secret is not None:
            raise ValueError("secret: an endpoint has its own")
        check(self.headers)
        if self.timeout is not None and not 0 < duration(self.timeout) < float("inf"):
            raise ValueError("timeout: must be longer than zero")

    @property
    def secrets(self) -> list[str]:
        """Every secret text, newest first, as the row has them."""
        if self.secret is None:
            return []
        return [self.secret] if isinstance(self.secret, str) else self.secret

    def timeout_s(self, longest: Duration) -> float:
        return longest if self.timeout is None else min(longest, duration(self.timeout))


def lane(args: WebhookArgs) -> str | None:
    """The endpoint or the host a row goes to: its limits, its breaker.  None for a URL that has none; the handler says
    why."""
    if args.url is None:
        return None if args.endpoint is None else lane_of(args.endpoint)
    try:
        return parse(args.url).host
    except BadUrl:
        return None
