"""What a row of kind `push` says, checked before its handler is called."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from jobs.push.cipher import AUTH, POINT, unarmoured
from jobs.push.settings import LONGEST_S
from jobs.templates import TEXT_MAX
from jobs.values import duration
from jobs.webhook.target import MAX_URL, BadUrl, parse

_KeyText = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_NONE = msgspec.Raw()


class Keys(msgspec.Struct, frozen=True):
    """A browser's, in URL-safe base64."""

    p256dh: _KeyText
    auth: _KeyText

    def __post_init__(self) -> None:
        for name, length in (("p256dh", POINT), ("auth", AUTH)):
            try:
                found = unarmoured(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if len(found) != length:
                raise ValueError(f"{name}: has {len(found)} bytes and not {length}")


class Subscription(msgspec.Struct, frozen=True):
    """As `PushSubscription.toJSON()` gives it; what browsers add to it is no concern of ours."""

    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL)]
    keys: Keys


class PushArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`payload` is sent as JSON, `text` as it is; a `template` is rendered with `payload` as its variable, and the
    result is sent.  `ttl` is how long the service keeps it for a browser that is away, `topic` names what a later
    message takes the place of meanwhile.  `timeout` can only shorten the setting."""

    subscription: Subscription
    payload: msgspec.Raw = _NONE
    text: str | None = None
    template: Annotated[str, msgspec.Meta(max_length=TEXT_MAX)] | None = None
    ttl: str | float | None = None
    urgency: Literal["very-low", "low", "normal", "high"] = "normal"
    topic: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,32}\Z")] | None = None
    timeout: str | float | None = None

    def __post_init__(self) -> None:
        if (self.payload == _NONE) == (self.text is None):
            raise ValueError("payload: give either payload or text")
        if self.template is not None and self.text is not None:
            raise ValueError("text: is sent as it is; a template takes payload")
        if self.ttl is not None and not 0 <= duration(self.ttl) <= LONGEST_S:
            raise ValueError("ttl: must be between 0 and 28 days")
        if self.timeout is not None and not 0 < duration(self.timeout) < float("inf"):
            raise ValueError("timeout: must be longer than zero")


def lane(args: PushArgs) -> str | None:
    """The push service.  None for a URL that has no host; the handler says why."""
    try:
        return parse(args.subscription.endpoint).host
    except BadUrl:
        return None
