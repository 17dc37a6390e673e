"""One message on its way through one session: what is said, and what each reply to it means.  No I/O.

Commands that are sent together (RFC 2920) are answered in their order, so how far a message came is how many replies
were read; the one thing that counts besides is whether its final dot has left us.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Sequence
from typing import Protocol

from jobs.email.address import Mailbox
from jobs.email.reply import Answer, Fault, Phase, Reply

_OK = (250, 251)
_GO_AHEAD = 354
_CLOSING = 421


class Sendable(Protocol):
    """Bytes that a relay can be handed."""

    @property
    def wire(self) -> bytes: ...

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address of the envelope or a header is outside ASCII (RFC 6531)."""

    @property
    def is_8bit(self) -> bool:
        """Whether any byte is outside ASCII (RFC 6152)."""


class Handover:
    """`sender` None is the null path `<>`.  `plain`: one command at a time, though the relay offers more.

    Life: `commands`, then `hear` for each reply, in their order; `settle` whenever it ends otherwise; then `answers`.
    What is refused ends with RSET: its reply shows that those before it were read for what they were.
    """

    __slots__ = (
        "_answers",
        "_began",
        "_has_8bit",
        "_has_sender",
        "_has_utf8",
        "_heard",
        "_left",
        "begun",
        "dot_is_out",
        "ended",
        "first",
        "go_ahead",
        "message",
        "over",
        "plain",
        "recipients",
        "relay",
        "resetting",
        "sender",
        "waiting",
    )

    def __init__(
        self,
        message: Sendable,
        recipients: Sequence[Mailbox],
        sender: Mailbox | None,
        *,
        relay: str = "",
        plain: bool = False,
    ) -> None:
        self.message = message
        self.recipients = recipients
        self.sender = sender
        self.relay = relay
        self.plain = plain
        self.first = True  # nothing went through its session before
        self.begun = False
        self.go_ahead = False  # the relay waits for the message, or for a lone dot if nobody is to have it
        self.dot_is_out = False
        self.resetting = False  # refused: RSET is to be said, or was
        self.over = False  # nothing more will be said to it, or asked
        self._has_utf8 = message.needs_smtputf8
        self._has_8bit = self._has_utf8 or message.is_8bit
        self.waiting: asyncio.Future[None] | None = None
        self._answers: list[Answer | None] = [None] * len(recipients)
        self._left = len(recipients)
        self._heard = 0
        self._has_sender = False
        self._began = time.perf_counter()

    def unfit(self, extensions: Container[str], largest: int | None) -> Fault | None:
        """Why a relay with these extensions cannot take the message, seen before a command is spent on it."""
        if self._has_utf8 and "smtputf8" not in extensions:
            return "smtputf8"
        if self._has_8bit and not self._has_utf8 and "8bitmime" not in extensions:
            return "8bit"
        if largest is not None and len(self.message.wire) > largest:
            return "size"
        return None

    @property
    def phase(self) -> Phase:
        """What would be lost now is lost here."""
        if self._heard == 0:
            return "mail"
        if self._heard <= len(self.recipients):
            return "rcpt"
        return "final" if self.dot_is_out else "data"

    @property
    def answers(self) -> tuple[Answer, ...]:
        """One for each recipient, in their order; asked for when it is over."""
        return tuple(answer for answer in self._answers if answer is not None)

    @property
    def nobody_left(self) -> bool:
        """Whether each recipient has an answer already."""
        return self._left == 0

    def commands(self, extensions: Container[str]) -> list[bytes]:
        """All that is said before the message: MAIL, each RCPT, DATA."""
        self.begun = True
        sender = self.sender.wire if self.sender else ""
        lines = [f"MAIL FROM:<{sender}>{self._parameters(extensions)}"]
        lines += [f"RCPT TO:<{recipient.wire}>" for recipient in self.recipients]
        lines.append("DATA")
        return [_command(line) for line in lines]

    def next_command(self, commands: Sequence[bytes]) -> bytes:
        """What is said next when one command is said at a time."""
        return commands[self._heard]

    def hear(self, reply: Reply) -> bool:
        """The next reply.  False if it answers nothing that was asked: who says what then is no longer known."""
        if self.resetting:
            self.over = True
            return reply.code in _OK
        at = self._heard
        self._heard += 1
        if at == 0:
            known = self._hear_mail(reply)
        elif at <= len(self.recipients):
            known = self._hear_recipient(at - 1, reply)
        elif at == len(self.recipients) + 1:
            known = self._hear_data(reply)
        else:
            self.over = True
            self.settle("final", reply)
            known = reply.code != _GO_AHEAD
        if self.plain and self.nobody_left and not self.over:
            self.resetting = True
        return known

    def _hear_mail(self, reply: Reply) -> bool:
        self._has_sender = reply.code in _OK
        if not self._has_sender:
            self.settle("mail", reply)
        return reply.code // 100 != 3

    def _hear_recipient(self, number: int, reply: Reply) -> bool:
        """None can be taken without a sender."""
        if reply.code in _OK:
            return self._has_sender
        self._answer(number, "rcpt", reply, None)
        return reply.code // 100 != 3

    def _hear_data(self, reply: Reply) -> bool:
        if reply.code == _GO_AHEAD:
            self.go_ahead = True
            return True
        self.resetting = True
        self.settle("data", reply)
        return reply.code >= 400

    def distrust(self) -> None:
        """Replies were not those that were asked for: none so far counts, unless the message itself is answered."""
        if not self.dot_is_out:
            self._answers = [None] * len(self.recipients)
            self._left = len(self.recipients)

    def settle(self, phase: Phase, reply: Reply | None = None, fault: Fault | None = None) -> None:
        """The same answer for everyone who has none yet."""
        if self._left:
            for number, answer in enumerate(self._answers):
                if answer is None:
                    self._answer(number, phase, reply, fault)

    def break_off(self, phase: Phase, reply: Reply | None = None, fault: Fault | None = None) -> None:
        """The connection ends here.  Of what was said together nothing counts yet: whether each reply was read for what
        it was shows only when the relay asks for the message, or has done RSET."""
        if not (self.plain or self.go_ahead or self.over):
            self.distrust()
        self.settle(phase, reply, fault)

    def end(self) -> None:
        """Nothing more comes: whoever waits for it may go on."""
        self.over = True
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    def undecided(self) -> list[Mailbox]:
        """Who may be offered the message at once on another connection: this one ended before the relay had asked for
        it, and for no reason that is known to lie in it.  Either somebody else's mail went before, or all was said at
        once and not understood: one command at a time shows how far it comes."""
        if self.dot_is_out:
            return []
        pairs = zip(self.recipients, self._answers, strict=True)
        return [recipient for recipient, answer in pairs if answer and self._may_go_again(answer)]

    def _may_go_again(self, answer: Answer) -> bool:
        if answer.phase not in ("mail", "rcpt", "data"):
            return False
        if answer.reply is not None:
            return answer.reply.code == _CLOSING and not self.first
        if answer.fault == "garbled":
            return not (self.first and self.plain)
        return answer.fault == "lost" and not (self.first and (self.plain or self._heard > 0))

    def _answer(self, number: int, phase: Phase, reply: Reply | None, fault: Fault | None) -> None:
        if self._answers[number] is None:
            took_ms = round((time.perf_counter() - self._began) * 1000, 3)
            address = self.recipients[number].address
            self._answers[number] = Answer(address, phase, reply, fault, duration_ms=took_ms, relay=self.relay)
            self._left -= 1

    def _parameters(self, extensions: Container[str]) -> str:
        size = f" SIZE={len(self.message.wire)}" if "size" in extensions else ""
        if self._has_utf8:
            return size + " SMTPUTF8 BODY=8BITMIME"
        return size + " BODY=8BITMIME" if self._has_8bit else size


def _command(line: str) -> bytes:
    if "\r" in line or "\n" in line or "\0" in line:
        raise ValueError(f"{line!r} is more than one command")
    return line.encode() + b"\r\n"
