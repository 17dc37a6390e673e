"""What a row of kind `webhook` says, checked before its handler is called."""

from __future__ import annotations

from typing import Annotated

import msgspec

from jobs.secrets import PREFIX as SECRET_REFERENCE
from jobs.templates import TEXT_MAX
from jobs.values import Duration, duration
from jobs.webhook.endpoints import lane_of
from jobs.webhook.headers import check
from jobs.webhook.signing import MAX_SECRETS, Style
from jobs.webhook.target import MAX_URL, BadUrl, parse

_SecretText = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Secrets = Annotated[list[_SecretText], msgspec.Meta(min_length=1, max_length=MAX_SECRETS)]
_NONE = msgspec.Raw()

JSON = "application/json"


class WebhookArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To `url`, or to `endpoint`, by its id: then all else of how to send stands there, and `event_id` may stand for
    what; `replay` is the job that asked for that once more.  `payload` is posted byte for byte as the row has it;
    `body` (base64) is bytes of any other kind.  `template` is rendered with `payload` and `event` as its variables, and
    the result is posted.  `secret` is one text, or several while one is replaced by the next; it and a header's value
    may be `secret://NAME`.  `signing` says how the secrets sign.  `client_certificate` is the `secret://NAME` of a PEM
    with its private key.  `timeout` can only shorten the setting.  `event` is for the delivery log."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL)] | None = None
    endpoint: _Id | None = None
    event_id: _Id | None = None
    replay: _Id | None = None
    payload: msgspec.Raw = _NONE
    body: bytes | None = None
    content_type: str = JSON
    template: Annotated[str, msgspec.Meta(max_length=TEXT_MAX)] | None = None
    headers: dict[str, str] = {}
    secret: _SecretText | _Secrets | None = None
    signing: Annotated[tuple[Style, ...], msgspec.Meta(min_length=1)] = ("standard",)
    client_certificate: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    timeout: str | float | None = None
    event: Annotated[str, msgspec.Meta(max_length=256)] | None = None

    def __post_init__(self) -> None:
        if (self.url is None) == (self.endpoint is None):
            raise ValueError("url: give either url or endpoint")
        if self.endpoint is not None:
            self._check_addressed()
        elif self.event_id is not None:
            raise ValueError("event_id: goes with endpoint")
        if self.replay is not None and self.event_id is None:
            raise ValueError("replay: is of an event_id")
        if self.body is None:
            if self.payload == _NONE and self.event_id is None:
                raise ValueError("payload: is missing, and there is no body in its place")
        elif self.payload != _NONE or self.template is not None:
            raise ValueError("body: is sent as it is; leave out payload and template")
        if self.headers:
            check(self.headers)
        if self.content_type != JSON:
            check({"content-type": self.content_type})
        if len(self.signing) > 1 and len(set(self.signing)) < len(self.signing):
            raise ValueError("signing: names one twice")
        if self.client_certificate is not None and not self.client_certificate.startswith(SECRET_REFERENCE):
            raise ValueError(
                f"client_certificate: write {SECRET_REFERENCE}NAME; a private key does not belong in a row"
            )
        if self.timeout is not None and not 0 < duration(self.timeout) < float("inf"):
            raise ValueError("timeout: must be longer than zero")

    def _check_addressed(self) -> None:
        if self.event_id is not None and (self.payload != _NONE or self.body is not None):
            raise ValueError("event_id: goes in place of payload and body")
        for name in ("secret", "template", "client_certificate"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: an endpoint has its own")
        if self.signing != ("standard",):
            raise ValueError("signing: an endpoint has its own")

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
