"""`ctx.mail` that goes nowhere: messages are kept, relays say what they are told to."""

from __future__ import annotations

import asyncio
import email
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default

from jobs.email.address import Mailbox
from jobs.email.handover import Sendable
from jobs.email.relay import Mail
from jobs.email.reply import Answer, DeliveryReport, Reply
from jobs.email.settings import MAIN, EmailSettings
from jobs.secrets import Secrets

MESSAGES_MAX = 100_000
ACCEPTED = Reply(250, "2.0.0 ok")


@dataclass(frozen=True, slots=True)
class Mailed:
    """One message that a relay was handed, and what it said.  `sender` is empty for the null path `<>`."""

    relay: str
    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    reply: Reply


class FakeMail(Mail):
    """`outbox` is what was handed over, refused messages too."""

    def __init__(self, settings: EmailSettings | None = None) -> None:
        super().__init__(settings or EmailSettings(), Secrets())
        self.outbox: list[Mailed] = []
        self._replies: deque[Reply] = deque()

    def reply(self, *replies: tuple[int, str]) -> None:
        """What the relay says to the next messages: `(451, "4.7.1 later")`; after that it takes all."""
        self._replies.extend(Reply(code, text) for code, text in replies)

    def clear(self) -> None:
        self.outbox.clear()

    async def send(
        self, message: Sendable, recipients: Sequence[Mailbox], sender: Mailbox | None, relay: str | None = None
    ) -> DeliveryReport:
        await asyncio.sleep(0)  # where a worker may die with its message unsent
        said = self._replies.popleft() if self._replies else ACCEPTED
        if len(self.outbox) >= MESSAGES_MAX:
            raise AssertionError(f"over {MESSAGES_MAX:,} messages were sent")
        to = tuple(mailbox.address for mailbox in recipients)
        parsed = email.message_from_bytes(message.wire, _class=EmailMessage, policy=default)
        name = relay or MAIN
        self.outbox.append(Mailed(name, sender.address if sender else "", to, parsed, said))
        await asyncio.sleep(0)  # and here with the relay's answer unread
        return DeliveryReport(name, tuple(Answer(r.address, "final", said, relay=name) for r in recipients))
