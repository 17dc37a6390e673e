"""Hear the insert trigger's hints, and notice when the line is dead."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic

import asyncpg

from daemon.observe import Observer
from daemon.statements import AWAY

BEAT_S = 10.0
BEAT_LIMIT_S = 5.0
"""A half-open connection never says so by itself: a question every 10 s must be answered within 5."""


CALL = "control"
"""What a notification says when an operator wants something, and no row was inserted."""


class Listener:
    """Keeps one connection listening.  The daemon is right without it: it only makes pick-up fast."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        channel: str,
        on_hint: Callable[[], None],
        on_hearing: Callable[[], None],
        observer: Observer,
        *,
        beat_s: float = BEAT_S,
        on_call: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._on_hint = on_hint
        self._on_call = on_call
        self._on_hearing = on_hearing
        self._observer = observer
        self._beat_s = beat_s
        self._deaf_since = monotonic()
        self.hearing = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        """None while it hears, or for how long it has not."""
        return None if self.hearing.is_set() else f"not listening for {monotonic() - self._deaf_since:.0f} s"

    async def run(self) -> None:
        """Until cancelled: connect, listen, ask now and then, and begin again when the line breaks."""
        pause_s = 0.05
        while True:
            try:
                await self._listen()
            except (*AWAY, TimeoutError) as error:
                if self.hearing.is_set():
                    self._deaf_since, pause_s = monotonic(), 0.05
                self.hearing.clear()
                self._observer.life.deaf(error)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  spreads reconnects, no secret
            pause_s = min(pause_s * 2, 5.0)

    async def _listen(self) -> None:
        broken = asyncio.Event()
        conn = await self._connect()
        try:
            conn.add_termination_listener(lambda _conn: broken.set())
            async with asyncio.timeout(BEAT_LIMIT_S):  # the line may be as dead as the one before
                await conn.add_listener(self._channel, self._heard)
            self._observer.life.listening(monotonic() - self._deaf_since)
            self.hearing.set()
            self._on_hearing()  # what was inserted meanwhile sent its hint to nobody
            while not broken.is_set():
                await self._beat(conn, broken)
            raise ConnectionError("the listening connection was closed")
        finally:
            conn.terminate()

    async def _beat(self, conn: asyncpg.Connection, broken: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._beat_s):
                await broken.wait()
        except TimeoutError:
            channels = await conn.fetch("select pg_listening_channels()", timeout=BEAT_LIMIT_S)
            if self._channel not in {row[0] for row in channels}:
                raise ConnectionError("the connection no longer listens") from None

    def _heard(self, _conn: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == CALL:
            self._on_call()
            return
        self._observer.life.hint()
        self._on_hint()
