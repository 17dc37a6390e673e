"""What a relay said, and what came of each recipient: facts, not yet judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Phase = Literal["queue", "connect", "tls", "hello", "auth", "mail", "rcpt", "data", "final"]
"""How far a message came.  `queue`: our own waiting room.  `final`: the dot is on its way, so only its reply tells."""

Fault = Literal[
    "resting", "rate", "busy",  # queue: the relay failed a moment ago; its rate is spent; its connections are
    "lost", "timeout", "garbled", "refused",  # connection lost; silence; no SMTP; not to be reached
    "stopped",  # by us
    "tls", "auth",  # no TLS, no login to be had
    "smtputf8", "8bit", "size",  # no SMTPUTF8, no 8BITMIME to be had; the relay's SIZE is smaller
]  # fmt: skip
"""Why there is no reply."""

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|$)")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of SMTP: its code, and its text with one line of it on each line."""

    code: int
    text: str = ""

    @property
    def enhanced(self) -> str | None:
        """The status code of RFC 3463 that the text begins with, if it does."""
        match = _ENHANCED.match(self.text)
        return match[1] if match else None

    @property
    def words(self) -> str:
        """The text as it may be stored: on one line, at most 1 KiB of UTF-8, without NUL and surrogates."""
        return " ".join(self.text.split()).encode()[:1024].decode(errors="ignore")


def reply_text(raw: bytes) -> str:
    """What the bytes after a reply code say; what is no character becomes U+FFFD or a space."""
    return _UNPRINTABLE.sub(" ", raw.decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Answer:
    """How far the hand-over of one recipient came.  Either `reply`, the one that decided it, or the `fault` that kept
    it away; `note` adds to a fault what people should know; `relay` is the one it was handed to."""

    recipient: str
    phase: Phase
    reply: Reply | None = None
    fault: Fault | None = None
    note: str = ""
    duration_ms: float = 0.0
    relay: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """A relay that an operator must look at (`off`), or that is well again: said once each by a process."""

    relay: str
    off: bool
    code: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """One answer for each recipient.  `after_s`: how long the relay, and those it falls back to, should be left alone,
    0 if one of them is well.  `passed`: answers of relays after which another one was tried."""

    relay: str
    answers: Sequence[Answer]
    after_s: float = 0.0
    passed: Sequence[Answer] = ()
    alerts: Sequence[Alert] = ()
