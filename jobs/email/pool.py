"""The sessions of one relay: so many at most, used again while they are good, closed when nobody needs them.

A seat is the right to hand over one message.  A session has one, or a few if its relay offers PIPELINING: then each
message's commands go out with the final dot of the one before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from jobs.email.session import Session
from jobs.email.settings import RelaySettings

_PROBE_AFTER_S = 10.0
_PROBE_TIMEOUT_S = 10.0


class Busy(Exception):
    """All seats are taken, and none came free in time."""


class Pool:
    """`open_session` makes a new session; `clock` counts seconds."""

    def __init__(
        self, relay: RelaySettings, open_session: Callable[[], Awaitable[Session]], clock: Callable[[], float]
    ) -> None:
        self._relay = relay
        self._open_session = open_session
        self._clock = clock
        self._open = 0  # connections there are, or will be in a moment
        self._idle: dict[Session, asyncio.TimerHandle] = {}  # the one used last is last
        self._roomy: dict[Session, None] = {}  # in use, with a seat that is free
        self._waiters: deque[asyncio.Future[Session | None]] = deque()
        self._closed = False

    async def take(self, wait_s: float, *, fresh: bool = False) -> Session:
        """A seat, to be `put` back; Busy if there is none within `wait_s`.  `fresh`: of a new session, if one may
        be opened."""
        while True:
            session = self._seat_now(fresh=fresh)
            if session is None and not self._may_open():
                session = await self._wait(wait_s)
            if session is None:
                return self._in_use(await self._make())
            if session.seats > 1 or not self._is_doubtful(session):
                return self._in_use(session)
            if await self._answers(session):
                return self._in_use(session)
            self.put(session)

    def put(self, session: Session) -> None:
        """Give a seat back.  The session is kept for the next one if it was left whole."""
        session.seats -= 1
        session.idle_since = self._clock()
        if session.seats == 0:
            self._roomy.pop(session, None)
            if self._closed or session.messages >= self._relay.messages_per_connection or not session.is_usable:
                return self._part(session)
        return self._offer(session)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when its message is through."""
        self._closed = True
        for session in list(self._idle):
            self._let_go(session)

    def _seat_now(self, *, fresh: bool) -> Session | None:
        """The session used last (the others may then grow old); one in use only when no more may be opened."""
        if fresh:
            if self._idle and self._open >= self._relay.connections:
                self._let_go(next(iter(self._idle)))
            return None
        while self._idle:
            session, timer = self._idle.popitem()
            timer.cancel()
            if session.is_usable:
                session.seats = 1
                return session
            self._part(session)
        if self._open >= self._relay.connections:
            while self._roomy:
                session = next(iter(self._roomy))
                del self._roomy[session]  # who takes it offers it again, as the last one
                if self._has_room(session):
                    session.seats += 1
                    return session
        return None

    def _may_open(self) -> bool:
        if self._open >= self._relay.connections:
            return False
        self._open += 1
        return True

    async def _make(self) -> Session:
        """A new session, whose place is taken already."""
        try:
            session = await self._open_session()
        except BaseException:
            self._open -= 1
            self._let_open()
            raise
        session.seats = 1
        return session

    async def _wait(self, wait_s: float) -> Session | None:
        """A seat of somebody who is through, or None and the place for a new session."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Session | None] = loop.create_future()
        late = loop.call_later(wait_s, _give_up, waiter)
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._give_back(waiter)
            raise
        finally:
            late.cancel()

    def _give_back(self, waiter: asyncio.Future[Session | None]) -> None:
        """What was given to somebody who is cancelled in the same moment."""
        if not waiter.done() or waiter.cancelled() or waiter.exception():
            return
        if (session := waiter.result()) is not None:
            self.put(session)
        else:
            self._open -= 1
            self._let_open()

    def _in_use(self, session: Session) -> Session:
        """Its other seats are there for whoever waits."""
        self._offer(session)
        return session

    def _offer(self, session: Session) -> None:
        while self._waiters and self._has_room(session):
            waiter = self._waiters.popleft()
            if not waiter.done():
                session.seats += 1
                waiter.set_result(session)
        if session.seats == 0:
            self._keep(session)
        elif self._has_room(session):
            self._roomy[session] = None
        else:
            self._roomy.pop(session, None)

    def _has_room(self, session: Session) -> bool:
        if session.messages + session.seats >= self._relay.messages_per_connection and session.seats:
            return False
        return session.seats < session.seats_max and session.is_usable

    def _let_open(self) -> None:
        """A connection less: whoever waits may open one."""
        while self._waiters and self._open < self._relay.connections:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._open += 1
                waiter.set_result(None)

    def _keep(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        self._idle[session] = loop.call_later(self._relay.idle, self._let_go, session)

    def _let_go(self, session: Session) -> None:
        self._idle.pop(session).cancel()
        self._part(session)

    def _part(self, session: Session) -> None:
        session.leave()
        self._open -= 1
        self._let_open()

    def _is_doubtful(self, session: Session) -> bool:
        return session.messages > 0 and self._clock() - session.idle_since > _PROBE_AFTER_S

    async def _answers(self, session: Session) -> bool:
        try:
            return await session.answers(min(_PROBE_TIMEOUT_S, self._relay.command_timeout))
        except BaseException:
            self.put(session)
            raise


def _give_up(waiter: asyncio.Future[Session | None]) -> None:
    if not waiter.done():
        waiter.set_exception(Busy())
