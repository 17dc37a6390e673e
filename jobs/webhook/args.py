"""What a row of kind `webhook` says, checked before its handler is called."""

from __future__ import annotations

from typing import Annotated

import msgspec

from jobs.values import Duration, duration
from jobs.webhook.headers import check
from jobs.webhook.signing import MAX_SECRETS
from jobs.webhook.target import MAX_URL, BadUrl, parse

_SecretText = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Secrets = Annotated[list[_SecretText], msgspec.Meta(min_length=1, max_length=MAX_SECRETS)]


class WebhookArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`payload` is posted byte for byte as the row has it.  `secret` is one `whsec_…` text, or several while one is
    replaced by the next; it and a header's value may be `secret://NAME`.  `timeout` can only shorten the setting.
    `event` is for the delivery log."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL)]
    payload: msgspec.Raw
    headers: dict[str, str] = {}
    secret: _SecretText | _Secrets | None = None
    timeout: str | float | None = None
    event: Annotated[str, msgspec.Meta(max_length=256)] | None = None

    def __post_init__(self) -> None:
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
    """The host a row goes to: its limits, its breaker.  None for a URL that has none; the handler says why."""
    try:
        return parse(args.url).host
    except BadUrl:
        return None
