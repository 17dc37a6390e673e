"""What the operator decides about text messages: the providers, and how each of them is spoken to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.values import Duration, Rate, Secret, duration, key

MAIN = "main"
"""The provider of messages that name none."""

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PLACES = frozenset(["to", "digits", "text", "from", "id", "type"])
"""What a provider can be told: the number with and without its plus, the text, the sender, an id of the row that stays
for all attempts, and `text` or `unicode`."""

MOST_AT_ONCE = 1_000_000
_PATH = re.compile(r"[^.]+(\.[^.]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """One `[sms.providers.NAME]` section.  Values of form and headers may be secret://NAME."""

    url: str = key(doc="Where messages are sent to.")
    method: str = key("POST", "GET: `form` goes into the query.", choices=("POST", "PUT", "GET"))
    form: dict[str, str] = key(
        factory=dict, doc="Fields of the form; {to} {digits} {text} {from} {id} {type} stand for the message's."
    )
    json: str | None = key(None, "The body as JSON, in whose texts the same may stand; instead of `form`.")
    headers: dict[str, str] = key(factory=dict, doc='Headers, as "Idempotency-Key" = "{id}".')
    username: str | None = key(None, "Account, for HTTP Basic; none: the password is a bearer token.")
    password: Secret | None = key(None, "Its password, or the token; or secret://NAME.")
    from_: str | None = key(None, "Sender of messages that name none: a number or a name.", name="from")
    id_path: str | None = key(None, "Where the answer has the message's id: data.id, messages.0.message-id.")
    code_path: str | None = key(None, "Where the answer has a code of its own.")
    ok: tuple[str, ...] = key((), "Codes of success, where the status says 200 to everything.")
    hard: tuple[str, ...] = key((), 'Codes after which there is no use in trying again; "http_404" is one too.')
    soft: tuple[str, ...] = key((), "Codes after which the message is tried again.")
    deferred: tuple[str, ...] = key(
        (), "Codes that are about our account (balance, rate, login): no message is charged, all wait."
    )
    deferred_for: Duration = key(duration("1m"), "So long, where Retry-After does not say.", minimum=1, maximum=86400)
    idempotent: bool = key(False, "The provider takes a message once, however often it comes with the same {id}.")
    resend_unknown: bool = key(False, "Send again when no answer came, though somebody may get the message twice.")
    parts: int = key(6, "Most parts that a text may need.", minimum=1, maximum=255)
    rate: Rate | None = key(None, "Messages this provider takes, over all daemons.")
    burst: int | None = key(None, "How many of `rate` may go at once; by default a second's worth.", minimum=1)
    timeout: Duration = key(
        duration("30s"), "Longest time for one attempt, answer included.", minimum=0.05, maximum=240
    )

    def __post_init__(self) -> None:
        if bool(self.form) == (self.json is not None):
            raise ValueError("form: say what is sent, by form or by json")
        if self.method == "GET" and self.json is not None:
            raise ValueError("json: a GET has no body; give form")
        sent = [*texts(self.json_body), *self.form.values()]
        unknown = {name for text in [*sent, *self.headers.values()] for name in PLACEHOLDER.findall(text)} - PLACES
        if unknown:
            raise ValueError(f"{self._body}: there is no {{{min(unknown)}}}; there are {', '.join(sorted(PLACES))}")
        used = {name for text in sent for name in PLACEHOLDER.findall(text)}
        if "text" not in used or not used & {"to", "digits"}:
            raise ValueError(f"{self._body}: {{text}}, and {{to}} or {{digits}}, stand nowhere in it")
        if self.idempotent and not any("{id}" in text for text in [*sent, *self.headers.values()]):
            raise ValueError("idempotent: {id} stands nowhere, so the provider cannot know a message again")
        if self.username is not None and self.password is None:
            raise ValueError("username: HTTP Basic takes a password too")
        for name in ("id_path", "code_path"):
            path = getattr(self, name)
            if path is not None and not _PATH.fullmatch(path):
                raise ValueError(f"{name}: {path!r} is no path; write one like messages.0.message-id")
        if self.code_path is None and self.ok:
            raise ValueError("ok: means nothing without code_path")
        if self.rate is not None and self.rate.count > MOST_AT_ONCE:
            raise ValueError(f"rate: {self.rate} is too many to count; write it for a shorter period")
        if self.burst is not None and self.rate is None:
            raise ValueError("burst: it says how `rate` may be spent, and there is no rate")

    @property
    def json_body(self) -> Any:
        """`json`, parsed; None where there is none."""
        if self.json is None:
            return None
        try:
            return json.loads(self.json)
        except ValueError as error:
            raise ValueError(f"json: {error}") from None

    @property
    def may_repeat(self) -> bool:
        """Whether a message of which nobody knows if it was sent is sent again."""
        return self.idempotent or self.resend_unknown

    @property
    def _body(self) -> str:
        return "form" if self.json is None else "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsSettings:
    """The `[sms]` section."""

    numbers: tuple[str, ...] = key((), 'Beginnings of the numbers that are sent to, as "+44"; empty: all.')
    providers: dict[str, ProviderSettings] = key(
        factory=dict, doc="The providers by name; `main` is for messages that name none."
    )

    def __post_init__(self) -> None:
        for start in self.numbers:
            if not re.fullmatch(r"\+[1-9][0-9]{0,14}", start):
                raise ValueError(f'numbers: {start!r} begins no number; write one like "+44"')


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    match value:
        case str():
            yield value
        case dict():
            for member in value.values():
                yield from texts(member)
        case list():
            for member in value:
                yield from texts(member)
