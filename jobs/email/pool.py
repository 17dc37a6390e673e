"""The sessions of one relay: so many at most, used again while they are good, closed when nobody needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from jobs.email.session import Broken, Session
from jobs.email.settings import RelaySettings

_PROBE_AFTER_S = 10.0
_PROBE_TIMEOUT_S = 10.0


class Busy(Exception):
    """All connections are taken, and none came free in time."""


class Pool:
    """`open_session` makes a new session; `clock` counts seconds."""

    def __init__(
        self, relay: RelaySettings, open_session: Callable[[], Awaitable[Session]], clock: Callable[[], float]
    ) -> None:
        self._relay = relay
        self._open_session = open_session
        self._clock = clock
        self._places = asyncio.Semaphore(relay.connections)
        self._idle: dict[Session, asyncio.TimerHandle] = {}
        self._closed = False

    @asynccontextmanager
    async def place(self, wait_s: float) -> AsyncIterator[None]:
        """The right to one connection; Busy if there is none within `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise Busy from None
        try:
            yield
        finally:
            self._places.release()

    @asynccontextmanager
    async def session(self, *, fresh: bool = False) -> AsyncIterator[Session]:
        """A session, for the holder of a place.  It is kept for the next one if it was left whole, and closed if what
        used it failed or was cancelled."""
        session = (None if fresh else await self._waiting()) or await self._open_session()
        try:
            yield session
        except BaseException:
            session.abort()
            raise
        self._keep(session)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when its message is through."""
        self._closed = True
        for session in list(self._idle):
            self._let_go(session)

    async def _waiting(self) -> Session | None:
        """The session used last (the others may then grow old), if it still answers."""
        while self._idle:
            session, timer = self._idle.popitem()
            timer.cancel()
            if not session.is_open:
                session.abort()
            elif not self._is_doubtful(session) or await self._answers(session):
                return session
        return None

    def _is_doubtful(self, session: Session) -> bool:
        return session.needs_reset or self._clock() - session.idle_since > _PROBE_AFTER_S

    async def _answers(self, session: Session) -> bool:
        """RSET: clears what an earlier message left, and shows whether the other side is still there."""
        try:
            reply = await session.command("RSET", min(_PROBE_TIMEOUT_S, self._relay.command_timeout))
        except Broken:
            return False
        except BaseException:
            session.abort()
            raise
        session.needs_reset = False
        if reply.code != 250:
            session.abort()
        return reply.code == 250

    def _keep(self, session: Session) -> None:
        if self._closed or session.messages >= self._relay.messages_per_connection:
            session.leave()
        elif session.is_open:
            session.idle_since = self._clock()
            loop = asyncio.get_running_loop()
            self._idle[session] = loop.call_later(self._relay.idle, self._let_go, session)
        else:
            session.abort()

    def _let_go(self, session: Session) -> None:
        timer = self._idle.pop(session)
        timer.cancel()
        session.leave()
