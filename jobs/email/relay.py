"""The way out: messages handed to relays, with an answer for each recipient."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from jobs.email.address import Mailbox
from jobs.email.handover import hand_over
from jobs.email.handshake import RelayFault, open_session, tls_context
from jobs.email.judge import judge
from jobs.email.message import Message
from jobs.email.pace import Rest
from jobs.email.pool import Busy, Pool
from jobs.email.reply import Answer, DeliveryReport, Fault, Phase, Reply
from jobs.email.settings import MAIN, EmailSettings, RelaySettings
from jobs.email.turns import Asker, Turns
from jobs.secrets import Secrets

WAIT_S = 5.0
"""A message that cannot go within this time gives its slot back and comes again."""

NOBODY = Asker()

_LOGIN_REFUSED = (530, 534, 535, 538)


class UnknownRelay(LookupError):
    """The config has no relay of that name."""


class Mail:
    """All relays of one `[email]` section.  Build it anew when the section changes, then close the old one: it sees
    its messages through, and keeps no connection."""

    def __init__(
        self,
        settings: EmailSettings,
        secrets: Secrets,
        turns: Turns | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """ValueError or OSError if a relay's certificates cannot be read; nothing is connected yet."""
        self.settings = settings
        turns = turns or Turns()
        self._relays = {name: Relay(name, relay, secrets, turns, clock) for name, relay in settings.relays.items()}

    async def send(
        self,
        message: Message,
        recipients: Sequence[Mailbox],
        sender: Mailbox,
        relay: str | None = None,
        asker: Asker = NOBODY,
    ) -> DeliveryReport:
        """Hand `message` to `relay` (`main` if None) for each of `recipients`; UnknownRelay if there is none such.

        Nothing that a relay does is raised: it is in the report.
        """
        name = relay or MAIN
        if name not in self._relays:
            raise UnknownRelay(f"no relay is called {name!r}; the config has {', '.join(self._relays) or 'none'}")
        return await self._relays[name].send(message, recipients, sender, asker)

    async def close(self) -> None:
        """Close the connections that are idle; the others follow when their messages are through."""
        for relay in self._relays.values():
            relay.close()


class Relay:
    """One relay: its sessions, its turns, and its rest when it fails."""

    def __init__(
        self, name: str, settings: RelaySettings, secrets: Secrets, turns: Turns, clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._pool = Pool(settings, partial(open_session, settings, tls_context(settings), secrets), clock)
        self._turns = turns
        self._rest = Rest()

    async def send(
        self, message: Message, recipients: Sequence[Mailbox], sender: Mailbox, asker: Asker
    ) -> DeliveryReport:
        answers: list[Answer] = []
        after_s, slowed = 0.0, False
        most = self._settings.recipients_per_message
        for start in range(0, len(recipients), most):
            turn = recipients[start : start + most]
            began = self._clock()
            found, wait_s = await self._send_turn(message, turn, sender, asker)
            answers += map(self._dated, found)
            after_s = max(after_s, wait_s)
            slowed = self._slow_down(found, self._clock() - began) or slowed
        return DeliveryReport(self._name, tuple(answers), after_s, slowed)

    def close(self) -> None:
        self._pool.close()

    async def _send_turn(
        self, message: Message, recipients: Sequence[Mailbox], sender: Mailbox, asker: Asker
    ) -> tuple[Sequence[Answer], float]:
        """The answers for recipients that are handed over together, and how long the relay should be left alone."""
        if left_s := self._rest.left_s(self._clock()):
            return _all(recipients, "queue", "resting"), left_s
        try:
            async with self._pool.place(WAIT_S):
                return await self._in_place(message, recipients, sender, asker)
        except Busy:
            return _all(recipients, "queue", "busy"), WAIT_S
        except RelayFault as fault:
            self._rest.failed(self._clock(), login=fault.phase == "auth")
            answers = _all(recipients, fault.phase, None if fault.reply else fault.fault, fault.note, fault.reply)
            return answers, self._rest.left_s(self._clock())

    async def _in_place(
        self, message: Message, recipients: Sequence[Mailbox], sender: Mailbox, asker: Asker
    ) -> tuple[Sequence[Answer], float]:
        """Once with a session that was used before, if there is one; when that turns out to have been closed by the
        other side, once more with a new one: nothing was handed over yet."""
        for fresh in (False, True):
            async with self._pool.session(fresh=fresh) as session:
                if wait_s := await self._turns.take(self._name, asker, WAIT_S):
                    return _all(recipients, "queue", "rate"), wait_s
                was_used = session.messages > 0
                answers = await hand_over(session, self._settings, message, recipients, sender)
            if not (was_used and all(map(_was_stale, answers))):
                break
        return answers, self._note_health(answers)

    def _slow_down(self, answers: Sequence[Answer], age_s: float) -> bool:
        """Whether it found this too much, and has a rate that is lowered now."""
        said = next((v.why for v in map(judge, answers) if v.code == "relay_throttled"), None)
        return said is not None and self._turns.throttled(self._name, age_s, said)

    def _dated(self, answer: Answer) -> Answer:
        """With the beginning of its next day, for an answer that its quota is used up."""
        left_s = self._settings.next_day_s(time.time())
        if left_s is None or judge(answer).code != "relay_quota":
            return answer
        return replace(answer, day_left_s=left_s)

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
