"""The way out: messages handed to relays, with an answer for each recipient."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from jobs.email.address import Mailbox
from jobs.email.dkim import Signer
from jobs.email.handover import hand_over
from jobs.email.handshake import RelayFault, open_session, tls_context
from jobs.email.message import Message
from jobs.email.pace import Pace, Rest
from jobs.email.pool import Busy, Pool
from jobs.email.reply import Answer, DeliveryReport, Fault, Phase, Reply
from jobs.email.settings import MAIN, EmailSettings, RelaySettings
from jobs.secrets import Secrets

WAIT_S = 5.0
"""A message that cannot go within this time gives its slot back and comes again."""

_LOGIN_REFUSED = (530, 534, 535, 538)


class UnknownRelay(LookupError):
    """The config has no relay of that name."""


class Mail:
    """All relays of one `[email]` section.  Build it anew when the section changes, then close the old one: it sees
    its messages through, and keeps no connection."""

    def __init__(
        self, settings: EmailSettings, secrets: Secrets, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """ValueError or OSError if a relay's certificates cannot be read; nothing is connected yet."""
        self.settings = settings
        self.signer = Signer(list(settings.dkim.values()), secrets, unsigned=settings.dkim_unsigned)
        self._relays = {name: Relay(name, relay, secrets, clock) for name, relay in settings.relays.items()}

    async def send(
        self, message: Message, recipients: Sequence[Mailbox], sender: Mailbox, relay: str | None = None
    ) -> DeliveryReport:
        """Hand `message` to `relay` (`main` if None) for each of `recipients`; UnknownRelay if there is none such.

        Nothing that a relay does is raised: it is in the report.
        """
        name = relay or MAIN
        if name not in self._relays:
            raise UnknownRelay(f"no relay is called {name!r}; the config has {', '.join(self._relays) or 'none'}")
        return await self._relays[name].send(message, recipients, sender)

    async def close(self) -> None:
        """Close the connections that are idle; the others follow when their messages are through."""
        for relay in self._relays.values():
            relay.close()


class Relay:
    """One relay: its sessions, its pace, and its rest when it fails."""

    def __init__(self, name: str, settings: RelaySettings, secrets: Secrets, clock: Callable[[], float]) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._pool = Pool(settings, partial(open_session, settings, tls_context(settings), secrets), clock)
        self._pace = Pace(settings.rate, settings.burst) if settings.rate else None
        self._turn = asyncio.Lock()
        self._rest = Rest()

    async def send(self, message: Message, recipients: Sequence[Mailbox], sender: Mailbox) -> DeliveryReport:
        answers: list[Answer] = []
        after_s = 0.0
        most = self._settings.recipients_per_message
        for start in range(0, len(recipients), most):
            turn = recipients[start : start + most]
            found, wait_s = await self._send_turn(message, turn, sender)
            answers += found
            after_s = max(after_s, wait_s)
        return DeliveryReport(self._name, tuple(answers), after_s)

    def close(self) -> None:
        self._pool.close()

    async def _send_turn(
        self, message: Message, recipients: Sequence[Mailbox], sender: Mailbox
    ) -> tuple[Sequence[Answer], float]:
        """The answers for recipients that are handed over together, and how long the relay should be left alone."""
        if left_s := self._rest.left_s(self._clock()):
            return _all(recipients, "queue", "resting"), left_s
        try:
            async with self._pool.place(WAIT_S):
                return await self._in_place(message, recipients, sender)
        except Busy:
            return _all(recipients, "queue", "busy"), WAIT_S
        except RelayFault as fault:
            self._rest.failed(self._clock(), login=fault.phase == "auth")
            answers = _all(recipients, fault.phase, None if fault.reply else fault.fault, fault.note, fault.reply)
            return answers, self._rest.left_s(self._clock())

    async def _in_place(
        self, message: Message, recipients: Sequence[Mailbox], sender: Mailbox
    ) -> tuple[Sequence[Answer], float]:
        """Once with a session that was used before, if there is one; when that turns out to have been closed by the
        other side, once more with a new one: nothing was handed over yet."""
        for fresh in (False, True):
            async with self._pool.session(fresh=fresh) as session:
                if wait_s := await self._await_turn():
                    return _all(recipients, "queue", "rate"), wait_s
                was_used = session.messages > 0
                answers = await hand_over(session, self._settings, message, recipients, sender)
            if not (was_used and all(map(_was_stale, answers))):
                break
        return answers, self._note_health(answers)

    async def _await_turn(self) -> float:
        """0 when the message may go now; else how long it would have to wait, which is too long."""
        if self._pace is None:
            return 0.0
        async with self._turn:
            while wait_s := self._pace.wait_s(self._clock()):
                if wait_s > WAIT_S:
                    return wait_s
                await asyncio.sleep(wait_s)
            self._pace.spend(self._clock())
        return 0.0

    def _note_health(self, answers: Sequence[Answer]) -> float:
        """A relay that closes its door or wants another login is left alone; any other answer shows it is well."""
        codes = {answer.reply.code for answer in answers if answer.reply}
        silent = all(answer.phase == "mail" and answer.reply is None for answer in answers)
        if silent or codes.intersection((421, *_LOGIN_REFUSED)):
            self._rest.failed(self._clock(), login=bool(codes.intersection(_LOGIN_REFUSED)))
        else:
            self._rest.worked()
        return self._rest.left_s(self._clock())


def _was_stale(answer: Answer) -> bool:
    """Whether the connection ended before the relay had said anything about this message."""
    closing = answer.reply is not None and answer.reply.code == 421
    return answer.phase == "mail" and (closing or answer.fault == "lost")


def _all(
    recipients: Sequence[Mailbox], phase: Phase, fault: Fault | None, note: str = "", reply: Reply | None = None
) -> tuple[Answer, ...]:
    return tuple(Answer(r.address, phase, reply, fault, note) for r in recipients)
