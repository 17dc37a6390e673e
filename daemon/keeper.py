"""Leaderless upkeep: rescue, expiry, retention, counts.  Every daemon does all of it; each step is safe beside the same
step of another."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from daemon.config import Config
from daemon.observe import Observer
from daemon.sources import KIND_GATE
from daemon.store import AWAY, Store

BATCH = 1000
CLAIMS = 20
"""Claims of a lost worker whose rows go back in one transaction; each has up to a few hundred rows."""

LONGEST_S = 120.0
"""A task that takes longer hangs on a dead connection, or goes on next time: the others must have their turn."""

COUNT_UP_TO = 10_000
"""Rows counted for each queue and class: a gauge that says "10,000 or more" costs the same for any backlog."""


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of upkeep, done every `every_s` or so."""

    name: str
    every_s: float
    do: Callable[[], Awaitable[None]]


class Keeper:
    """Runs the tasks one after another, each in its rhythm."""

    def __init__(
        self,
        store: Store,
        observer: Observer,
        config: Callable[[], Config],
        on_rescued: Callable[[], None],
        sample: Callable[[], None],
        strays: Callable[[], Awaitable[int]],
    ) -> None:
        self._store = store
        self._observer = observer
        self._config = config
        self._on_rescued = on_rescued
        self._sample = sample
        self._strays = strays
        self._tasks = (
            Task("rescue", 1.5, self.rescue),
            Task("expire", 5.0, self.expire),
            Task("strays", 10.0, self.strays),
            Task("count", 15.0, self.count),
            Task("partitions", 600.0, self.partitions),
            Task("retention", 3600.0, self.retention),
        )

    async def run(self) -> None:
        """Until cancelled; every statement is a transaction of its own, so a cancel leaves nothing half done."""
        loop = asyncio.get_running_loop()
        due = {task.name: loop.time() for task in self._tasks}
        while True:
            for task in self._tasks:
                if due[task.name] <= loop.time():
                    await self._attempt(task)
                    due[task.name] = loop.time() + task.every_s * random.uniform(0.9, 1.1)  # noqa: S311  no herd
            await asyncio.sleep(max(0.0, min(due.values()) - loop.time()))

    async def _attempt(self, task: Task) -> None:
        try:
            async with asyncio.timeout(LONGEST_S):
                await task.do()
        except AWAY as error:
            self._observer.keeper_failed(task.name, error)
        except Exception as error:  # one broken piece of upkeep must not end the others
            self._observer.keeper_failed(task.name, error)

    async def rescue(self) -> None:
        """Return the rows of workers that no longer live."""
        for worker_id in await self._store.lost(100):
            back_total = dead_total = 0
            while True:
                back, dead, claims = await self._store.rescue(worker_id, self._config().daemon.crash_limit, CLAIMS)
                back_total, dead_total = back_total + back, dead_total + dead
                if claims == 0:
                    break
                if await self._store.drop_lost_claims(worker_id, CLAIMS) + back + dead == 0:
                    break  # another daemon is at it, or somebody holds a lock on a row: again in a moment
            await self._store.forget(worker_id)
            if back_total + dead_total:
                self._observer.rescued(worker_id, back_total, dead_total)
                await self._store.hint()
                self._on_rescued()

    async def strays(self) -> None:
        """Rows of claims whose answer was lost."""
        if await self._strays():
            self._on_rescued()

    async def expire(self) -> None:
        while (count := await self._store.expire(BATCH)) > 0:
            self._observer.expired(count)
            if count < BATCH:
                break

    async def count(self) -> None:
        """Gauges for people: sampled, not counted at each scrape."""
        queues: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
        parked: defaultdict[str, int] = defaultdict(int)
        for row in await self._store.count(COUNT_UP_TO, BATCH):
            if row.gate.startswith(KIND_GATE):
                parked[row.gate.removeprefix(KIND_GATE)] += row.ready + row.scheduled
                continue
            numbers = queues[row.queue]
            numbers[0] += row.ready
            numbers[1] += row.scheduled
            numbers[3] = max(numbers[3], row.oldest_s)
        for name, running in (await self._store.count_running(COUNT_UP_TO)).items():
            queues[name][2] = running
        samples = {name: (int(n[0]), int(n[1]), int(n[2]), n[3]) for name, n in queues.items()}
        self._observer.sampled(samples, parked, await self._store.count_dead(COUNT_UP_TO))
        self._sample()

    async def partitions(self) -> None:
        """Days to come made ahead, days past their retention dropped; what waits for a lock is tried again later."""
        keep = self._config().retention
        for parent, keep_s in (
            ("job_history", keep.history),
            ("job_attempts", keep.attempts),
            ("webhook_deliveries", keep.webhook_deliveries),
            ("email_deliveries", keep.email_deliveries),
            ("domain_checks", keep.domain_checks),
        ):
            try:
                await self._partitions_of(parent, keep.partitions_ahead, keep_s)
            except AWAY as error:  # somebody holds a lock on this one; the others do not wait for it
                self._observer.keeper_failed("partitions", error)

    async def _partitions_of(self, parent: str, ahead: int, keep_s: float) -> None:
        for name in await self._store.make_partitions(parent, ahead):
            self._observer.retention(parent, name, "created")
        while names := await self._store.drop_partitions(parent, keep_s, 1):
            self._observer.retention(parent, names[0], "dropped")

    async def retention(self) -> None:
        keep = self._config().retention
        while await self._store.forget_keys(keep.idempotency_keys, BATCH) == BATCH:
            continue
        while await self._store.forget_audit(keep.audit, BATCH) == BATCH:
            continue
