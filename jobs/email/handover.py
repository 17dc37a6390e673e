"""One message through one session: MAIL, each RCPT, DATA, and the answer of each recipient."""

from __future__ import annotations

import time
from collections.abc import Sequence

from jobs.email.address import Mailbox
from jobs.email.message import Message
from jobs.email.reply import Answer, Fault, Phase, Reply
from jobs.email.session import Broken, Session
from jobs.email.settings import RelaySettings

_OK = (250, 251)
_GO_AHEAD = 354


async def hand_over(
    session: Session, relay: RelaySettings, message: Message, recipients: Sequence[Mailbox], sender: Mailbox
) -> tuple[Answer, ...]:
    """One answer for each recipient, in their order.  A session that broke is closed; its faults are answers too."""
    transaction = _Transaction(session, relay, message, recipients)
    if fault := _unfit(session, message):
        transaction.settle("hello", fault=fault)
    else:
        try:
            await transaction.run(sender)
        except Broken as error:
            transaction.settle("final" if error.after_dot else transaction.phase, fault=error.fault)
    return tuple(transaction.answers[r.address] for r in recipients)


def _unfit(session: Session, message: Message) -> Fault | None:
    """Why this relay cannot take the message, seen before a command is spent on it."""
    if message.needs_smtputf8 and "smtputf8" not in session.extensions:
        return "smtputf8"
    if session.largest_message is not None and len(message.wire) > session.largest_message:
        return "size"
    return None


class _Transaction:
    """`answers` grows; who has none yet is still in the running."""

    def __init__(self, session: Session, relay: RelaySettings, message: Message, recipients: Sequence[Mailbox]) -> None:
        self._session = session
        self._relay = relay
        self._message = message
        self._recipients = recipients
        self._started = time.perf_counter()
        self.phase: Phase = "mail"
        self.answers: dict[str, Answer] = {}

    async def run(self, sender: Mailbox) -> None:
        self._session.messages += 1
        self._session.needs_reset = True
        reply = await self._command(f"MAIL FROM:<{sender.wire}>{self._parameters()}")
        if reply.code not in _OK:
            return self.settle("mail", reply)
        if not await self._offer_recipients():
            return None
        self.phase = "data"
        reply = await self._session.command("DATA", self._relay.data_timeout)
        if reply.code != _GO_AHEAD:
            return self.settle("data", reply)
        reply = await self._session.message(
            self._message.wire,
            piece_timeout_s=self._relay.data_timeout,
            final_timeout_s=self._relay.final_timeout,
        )
        self.settle("final", reply)
        self._session.needs_reset = not 200 <= reply.code < 300
        return None

    async def _offer_recipients(self) -> bool:
        """Whether the relay takes the message for anybody."""
        self.phase = "rcpt"
        for recipient in self._recipients:
            reply = await self._command(f"RCPT TO:<{recipient.wire}>")
            if reply.code == 421:
                self.settle("rcpt", reply)
                return False
            if reply.code not in _OK:
                self._answer(recipient, "rcpt", reply, None)
        return len(self.answers) < len(self._recipients)

    def settle(self, phase: Phase, reply: Reply | None = None, fault: Fault | None = None) -> None:
        """The same answer for everyone who has none yet."""
        for recipient in self._recipients:
            if recipient.address not in self.answers:
                self._answer(recipient, phase, reply, fault)

    def _answer(self, recipient: Mailbox, phase: Phase, reply: Reply | None, fault: Fault | None) -> None:
        took_ms = round((time.perf_counter() - self._started) * 1000, 3)
        self.answers[recipient.address] = Answer(recipient.address, phase, reply, fault, duration_ms=took_ms)

    def _parameters(self) -> str:
        size = f" SIZE={len(self._message.wire)}" if "size" in self._session.extensions else ""
        return size + (" SMTPUTF8 BODY=8BITMIME" if self._message.needs_smtputf8 else "")

    async def _command(self, line: str) -> Reply:
        return await self._session.command(line, self._relay.command_timeout)
