"""A worker's sign of life: a heartbeat in a thread of its own, and the end of all work when it is not heard in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic, time

import asyncpg
import orjson

import sql

_HEARTBEAT = sql.load("worker.sql")["heartbeat"]
FENCE_SHARE = 2 / 3
"""Of the lease without an answered heartbeat: then stop, so as to have stopped before anybody takes over."""
LAST_SHARE = 0.9
"""Of the lease: a heartbeat that is on its way is waited for no longer, however short the lease is."""

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Lease:
    """Prolongs one worker's lease every third of it, on its own connection and event loop: a handler that blocks the
    daemon's loop must not make it look dead.

    `on_beat(seconds, skew_s)`, `on_failure(error)`, `on_silence()` (no answer for two thirds of the lease: fence
    yourself) and `on_lost()` (Postgres says the lease has run out) are called in the daemon's loop.
    """

    def __init__(
        self,
        connect: Connect,
        lease_s: float,
        *,
        on_beat: Callable[[float, float], None],
        on_failure: Callable[[BaseException], None],
        on_silence: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._lease_s = lease_s
        self._on_beat = on_beat
        self._on_failure = on_failure
        self._on_silence = on_silence
        self._on_lost = on_lost
        self._home = asyncio.get_running_loop()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.worker_id: int | None = None
        self.kinds: Sequence[str] = ()
        self.running: Callable[[], Mapping[str, int]] = dict
        self.draining = False
        self.silent = False
        self.answered_at = monotonic()

    def hold(self, worker_id: int, registered_at: float) -> None:
        """Keep this worker alive from now on.  `registered_at`: monotonic time before the registration was sent."""
        self.answered_at = registered_at
        self.silent = False
        self.worker_id = worker_id
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="lease", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Beat no more; returns when the thread has ended."""
        self.worker_id = None
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _main(self) -> None:
        asyncio.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        conn: asyncpg.Connection | None = None
        every_s = self._lease_s / 3
        # blocks this thread's loop, which has nothing else to do
        while not self._stop.wait(every_s if conn is not None and not self.silent else min(every_s, 0.5)):
            worker_id = self.worker_id
            if worker_id is None:
                continue
            try:
                left_s = self.answered_at + self._lease_s * LAST_SHARE - monotonic()
                async with asyncio.timeout(min(max(every_s, 1.0), max(left_s, 0.2))):
                    if conn is None or conn.is_closed():
                        conn = await self._connect()
                    await self._beat(conn, worker_id)
            except Exception as error:  # whatever it is: were this thread to end, nobody would fence us in time
                if conn is not None:
                    conn.terminate()
                conn = None
                self._tell(self._on_failure, error)
            self._judge(worker_id)
        if conn is not None:
            conn.terminate()

    async def _beat(self, conn: asyncpg.Connection, worker_id: int) -> None:
        # a copy, since the daemon's loop goes on meanwhile
        load = orjson.dumps({queue: n for queue, n in list(self.running().items()) if n}).decode()
        sent, sent_wall = monotonic(), time()
        answer = await conn.fetchval(_HEARTBEAT, worker_id, self._lease_s, self.draining, list(self.kinds), load)
        if self.worker_id != worker_id:
            return
        if answer is None:
            self.worker_id = None
            self._tell(self._on_lost)
            return
        seconds = monotonic() - sent
        self.answered_at = sent  # the lease runs from some moment after we sent: count from before
        self.silent = False
        self._tell(self._on_beat, seconds, answer - sent_wall - seconds / 2)

    def _judge(self, worker_id: int) -> None:
        quiet_s = monotonic() - self.answered_at
        if self.worker_id == worker_id and not self.silent and quiet_s >= self._lease_s * FENCE_SHARE:
            self.silent = True
            self._tell(self._on_silence)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        self._home.call_soon_threadsafe(callback, *args)
