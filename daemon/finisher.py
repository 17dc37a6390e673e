"""Group commit for outcomes: many attempts, one transaction, and nothing forgotten while Postgres is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from time import perf_counter

import asyncpg

from daemon.claims import Claims
from daemon.observe import Observer
from daemon.settle import Transition
from daemon.statements import AWAY
from daemon.store import Store

BATCH_MAX = 1000
BACKLOG_MAX = 20_000
"""Results kept in memory; beyond it nothing more is claimed, so that memory is bounded while Postgres is away."""

WRITE_S = 15.0
"""How long a stop waits for Postgres to take the last results; rows it does not take are rescued by their lease."""

_PAUSE_S = (0.05, 2.0)

POISON = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    OverflowError,
)
"""What one result can do to its batch; anything else Postgres says is about Postgres, and is tried again."""

Written = Callable[[Sequence[Transition], Collection[int]], None]
"""Hears of a batch that is in the database, and the ids whose result was taken: the others were no longer ours."""


class Finisher:
    """Takes transitions from anybody and writes them in batches; while one batch is on the wire the next one grows."""

    def __init__(self, store: Store, observer: Observer, beat: Callable[[], None]) -> None:
        self._store = store
        self._observer = observer
        self._beat = beat
        self.claims = Claims()
        self._pending: list[Transition] = []
        self._writing: list[Transition] = []
        self._wake = asyncio.Event()
        self._closing = False
        self.on_room: Callable[[], None] = lambda: None
        self.on_written: list[Written] = []

    @property
    def backlog(self) -> int:
        return len(self._pending) + len(self._writing)

    @property
    def full(self) -> bool:
        return self.backlog >= BACKLOG_MAX

    def known(self) -> set[tuple[int, int]]:
        """(id, fence) of the rows whose results are still here."""
        return {(t.job.id, t.job.fence) for t in (*self._pending, *self._writing)}

    def add(self, transition: Transition) -> None:
        self._pending.append(transition)
        self._wake.set()

    def committed(self, transition: Transition, seconds: float, *, late: bool) -> None:
        """The handler's own transaction has written this end; or has not, since the row was no longer ours."""
        self._report([transition], set() if late else {transition.job.id}, seconds)

    def close(self) -> None:
        """Write what is pending, then let run() return."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Never cancelled: close() it.  It holds what the rows do not say yet."""
        while self._pending or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                was_full = self.full
                batch, self._pending = self._pending[:BATCH_MAX], self._pending[BATCH_MAX:]
                self._writing = batch
                await self._write(batch)
                self._writing = []
                self._beat()
                if was_full and not self.full:
                    self.on_room()

    async def _write(self, batch: list[Transition], *, again: bool = False) -> None:
        """Until it is written.  A reply that was lost is no harm: what is written already is refused by its fence."""
        pause_s = _PAUSE_S[0]
        while True:
            started = perf_counter()
            try:
                ours = await self._store.write(batch, self.claims.ending(t.job for t in batch), again=again)
            except POISON as error:
                await self._write_apart(batch, error, again=again)
                return
            except (*AWAY, asyncpg.PostgresError) as error:
                self._beat()
                self._observer.finish_failed(error, pending=self.backlog, retry_in_s=pause_s)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  spreads reconnects, no secret
                pause_s = min(pause_s * 2, _PAUSE_S[1])
                again = True
            else:
                self._report(batch, ours, perf_counter() - started)
                return

    async def _write_apart(self, batch: list[Transition], error: Exception, *, again: bool) -> None:
        """Postgres refuses something in the batch: halve it until the culprit stands alone, and write that one bare."""
        if len(batch) > 1:
            await self._write(batch[: len(batch) // 2], again=again)
            await self._write(batch[len(batch) // 2 :], again=again)
            return
        (culprit,) = batch
        self._observer.result_unwritable(culprit.job.id, culprit.job.kind, error)
        bare = Transition(
            culprit.job,
            culprit.state,
            culprit.outcome,
            reason=f"what it had to say could not be stored: {type(error).__name__}",
            code="unwritable",
            delay_s=culprit.delay_s,
            charged=culprit.charged,
            gate=culprit.gate,
            failed=culprit.failed,
        )
        if culprit.code == "unwritable":  # even bare: leave the row to the rescue, and its neighbours alone
            return
        await self._write([bare], again=again)

    def _report(self, batch: list[Transition], ours: set[int], seconds: float) -> None:
        late = len(batch) - len(ours)
        self.claims.written(t.job for t in batch)
        self._observer.finished(len(batch), seconds, late)
        for hear in self.on_written:
            hear(batch, ours)
        if late:
            for t in batch:
                if t.job.id not in ours:
                    self._observer.late_result(t.job.id, t.job.kind, t.job.fence)
