"""The way out: messages handed to relays, with an answer for each recipient."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from jobs.email.address import Mailbox
from jobs.email.dkim import Signer
from jobs.email.handover import Handover, Sendable
from jobs.email.handshake import RelayFault, open_session, tls_context
from jobs.email.health import Health, passes_on
from jobs.email.pace import Pace
from jobs.email.pool import Busy, Pool
from jobs.email.reply import Answer, DeliveryReport, Fault, Phase, Reply
from jobs.email.room import Room
from jobs.email.session import Session
from jobs.email.settings import MAIN, EmailSettings, RelaySettings
from jobs.email.srs import Srs
from jobs.secrets import SecretMissing, Secrets

WAIT_S = 5.0
"""A message that cannot go within this time gives its slot back and comes again."""

_GOES_MORE = 2
"""How often one message may find that its connection has ended meanwhile, and go through another one."""

_UNFIT: tuple[Fault, ...] = ("smtputf8", "8bit", "size")


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
        self.room = Room(settings.forward.memory)
        self._secrets = secrets
        self._relays = {name: Relay(name, relay, secrets, clock) for name, relay in settings.relays.items()}

    def srs(self) -> Srs:
        """What rewrites the senders of forwards; SecretMissing if a setting, or a secret it names, is not there."""
        forward = self.settings.forward
        if forward.domain is None:
            raise SecretMissing("email.forward.domain is not set")
        if not forward.srs_secrets:
            raise SecretMissing("email.forward.srs_secrets is empty; make one with: openssl rand -base64 32")
        return Srs(forward.domain, [self._secrets.resolve(secret) for secret in forward.srs_secrets])

    async def send(
        self, message: Sendable, recipients: Sequence[Mailbox], sender: Mailbox | None, relay: str | None = None
    ) -> DeliveryReport:
        """Hand `message` to `relay` (`main` if None) for each of `recipients`; UnknownRelay if there is none such.
        `sender` None is the null path `<>`.

        Nothing that a relay does is raised: it is in the report.  Those whom the relay does not serve, for reasons of
        its own and before it was given the message, are offered to those it falls back to.
        """
        name = relay or MAIN
        if name not in self._relays:
            raise UnknownRelay(f"no relay is called {name!r}; the config has {', '.join(self._relays) or 'none'}")
        route = [self._relays[name], *(self._relays[other] for other in self._relays[name].fallback)]
        report = await route[0].send(message, recipients, sender, spare=len(route) > 1)
        for number, other in enumerate(route[1:], start=2):
            left = [r for r, answer in zip(recipients, report.answers, strict=True) if passes_on(answer)]
            if not left:
                break
            report = _joined(report, await other.send(message, left, sender, spare=number < len(route)))
        return report

    async def close(self) -> None:
        """Close the connections that are idle; the others follow when their messages are through."""
        for relay in self._relays.values():
            relay.close()


def _joined(before: DeliveryReport, after: DeliveryReport) -> DeliveryReport:
    """What two relays said, one after the other.  One that could never take the message decides nothing: the other
    takes it when it is well again."""
    news = {answer.recipient: answer for answer in after.answers if answer.fault not in _UNFIT}
    rests = [report.after_s for report in (before, after) if report.after_s]
    return DeliveryReport(
        before.relay,
        tuple(news.get(answer.recipient, answer) for answer in before.answers),
        min(rests, default=0.0),
        (*before.passed, *(answer for answer in before.answers if answer.recipient in news)),
        (*before.alerts, *after.alerts),
    )


class Relay:
    """One relay: its sessions, its pace, and its rest when it fails."""

    def __init__(self, name: str, settings: RelaySettings, secrets: Secrets, clock: Callable[[], float]) -> None:
        self.fallback = settings.fallback
        self._name = name
        self._settings = settings
        self._clock = clock
        self._health = Health(name)
        self._open = partial(open_session, settings, tls_context(settings), secrets)
        self._pool = Pool(settings, self._open_if_well, clock)
        self._pace = Pace(settings.rate, settings.burst) if settings.rate else None
        self._turn = asyncio.Lock()

    async def send(
        self, message: Sendable, recipients: Sequence[Mailbox], sender: Mailbox | None, *, spare: bool = False
    ) -> DeliveryReport:
        """`spare`: another relay takes what this one does not."""
        answers: list[Answer] = []
        after_s = 0.0
        most = self._settings.recipients_per_message
        for start in range(0, len(recipients), most):
            turn = recipients[start : start + most]
            if _is_stopped():  # after the dot of a turn before: what that came to is said, and nothing more is sent
                answers += self._all(turn, "queue", "stopped")
                continue
            spare_s = self._settings.connect_timeout if spare else 0.0
            if left_s := self._health.left_s(self._clock(), spare_s=spare_s):
                answers += self._all(turn, "queue", "resting")
                after_s = max(after_s, left_s)
                continue
            found, wait_s = await self._send_turn(message, turn, sender)
            answers += found
            after_s = max(after_s, wait_s)
        return DeliveryReport(self._name, tuple(answers), after_s, (), self._health.alerts())

    def close(self) -> None:
        self._pool.close()

    async def _send_turn(
        self, message: Sendable, recipients: Sequence[Mailbox], sender: Mailbox | None
    ) -> tuple[Sequence[Answer], float]:
        """The answers for recipients that are handed over together, and how long the relay should be left alone.

        A connection that the other side closed meanwhile, or that ended with somebody else's message, costs another
        one: nothing was handed over yet.
        """
        handover = Handover(message, recipients, sender, relay=self._name)
        told, wait_s = await self._go(handover, fresh=False)
        for _ in range(_GOES_MORE):
            if not (pending := handover.undecided()):
                break
            handover = Handover(message, pending, sender, relay=self._name, plain=True)
            found, wait_s = await self._go(handover, fresh=True)
            news = {answer.recipient: answer for answer in found}
            told = [news.get(answer.recipient, answer) for answer in told]
        self._health.note(told, self._clock())
        return told, wait_s or self._health.left_s(self._clock())

    async def _go(self, handover: Handover, *, fresh: bool) -> tuple[Sequence[Answer], float]:
        """Once through one session, and how long to wait if it cannot go now for reasons of ours."""
        recipients = handover.recipients
        try:
            session = await self._pool.take(WAIT_S, fresh=fresh)
        except Busy:
            return self._all(recipients, "queue", "busy"), WAIT_S
        except RelayFault as fault:
            said = None if fault.reply else fault.fault
            return self._all(recipients, fault.phase, said, fault.note, fault.reply), 0.0
        try:
            if (fault_of_ours := handover.unfit(session.extensions, session.largest_message)) is not None:
                return self._all(recipients, "hello", fault_of_ours), 0.0
            if wait_s := await self._await_turn():
                return self._all(recipients, "queue", "rate"), wait_s
            await session.hand_over(handover)
        finally:
            self._pool.put(session)
        return handover.answers, 0.0

    async def _open_if_well(self) -> Session:
        """Whoever waited for a connection while another one's failed does not try again."""
        if self._health.left_s(self._clock()):
            raise RelayFault("queue", "resting", "")
        return await self._open()

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

    def _all(
        self,
        recipients: Sequence[Mailbox],
        phase: Phase,
        fault: Fault | None,
        note: str = "",
        reply: Reply | None = None,
    ) -> tuple[Answer, ...]:
        return tuple(Answer(r.address, phase, reply, fault, note, relay=self._name) for r in recipients)


def _is_stopped() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
