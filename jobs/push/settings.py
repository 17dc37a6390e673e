"""What the operator decides about push messages: who sends them, and how they are sent."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.push.cipher import PLAIN_MAX
from jobs.values import Duration, Secret, Size, duration, key

LONGEST_S = 28 * 86400.0
"""Services keep nothing for longer."""

_SUBJECT = re.compile(r"(mailto:[^\s@]+@[^\s@]+|https://\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSettings:
    """The `[push]` section."""

    private_key: Secret | None = key(
        None, "The VAPID key: secret://NAME of a PEM, or of 32 bytes in URL-safe base64.  Unset: no push is sent."
    )
    subject: str | None = key(
        None, 'Whom push services write to when something is amiss: "mailto:ops@shop.example" or an https:// page.'
    )
    ttl: Duration = key(
        duration("1d"), "How long a service keeps a message for a browser that is away.", minimum=0, maximum=LONGEST_S
    )
    padding: Size = key(
        Size(256),
        "Messages are filled up to a multiple of this, so that their length tells less; 0: they are not.",
        minimum=0,
        maximum=PLAIN_MAX,
    )
    timeout: Duration = key(
        duration("20s"), "Longest time for one attempt, answer included.", minimum=0.05, maximum=240
    )
    refused_for: Duration = key(
        duration("1d"),
        "A message that a service refuses for our key's sake is not given up before this.",
        minimum=0,
    )

    def __post_init__(self) -> None:
        if self.subject is not None and not (self.subject.isascii() and _SUBJECT.fullmatch(self.subject)):
            raise ValueError('subject: write "mailto:somebody@shop.example" or "https://…"')
