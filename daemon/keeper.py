"""Leaderless upkeep: rescue, expiry, retention, counts.  Every daemon does all of it; each step is safe beside the same
step of another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from daemon import counts
from daemon.config import Config
from daemon.observe import Observer
from daemon.retention import Retention
from daemon.statements import AWAY
from daemon.tallies import Tallies
from daemon.upkeep_store import UpkeepStore

BATCH = 1000
PAGES = 10
"""So many times BATCH open batches are looked at in a turn; the next goes on after them."""

CLAIMS = 20
"""Claims of a lost worker whose rows go back in one transaction; each has up to a few hundred rows."""

LONGEST_S = 120.0
"""A task that takes longer hangs on a dead connection, or goes on next time: the others must have their turn."""

PARTITIONS_S = 120.0
"""Each try may wait in vain for a lock that a report holds."""


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
        store: UpkeepStore,
        observer: Observer,
        config: Callable[[], Config],
        on_rescued: Callable[[], None],
        sample: Callable[[], None],
        strays: Callable[[], Awaitable[int]],
        tallies: Tallies,
    ) -> None:
        self._store = store
        self._observer = observer
        self._config = config
        self._on_rescued = on_rescued
        self._sample = sample
        self._strays = strays
        self._order_seen: tuple[str, str] = ("", "")
        self._batch_after = 0
        self._paused: set[str] = set()
        self._tallies = tallies
        retention = Retention(store, observer, config)
        self._tasks = (
            Task("rescue", 1.5, self.rescue),
            Task("control", 2.0, self.control),
            Task("expire", 5.0, self.expire),
            Task("order", 5.0, self.order),
            Task("batches", 5.0, self.batches),
            Task("strays", 10.0, self.strays),
            Task("count", 15.0, self.count),
            Task("tallies", 5.0, self.flush),
            Task("sweep", 10.0, retention.sweep),
            Task("partitions", PARTITIONS_S, retention.partitions),
            Task("retention", 3600.0, retention.forget),
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
                back_total, dead_total = back_total + back, dead_total + len(dead)
                self._tallies.add_all((queue, "dead") for queue in dead)
                if claims == 0:
                    break
                if await self._store.drop_lost_claims(worker_id, CLAIMS) + back + len(dead) == 0:
                    break  # another daemon is at it, or somebody holds a lock on a row: again in a moment
            await self._store.forget(worker_id)
            if back_total + dead_total:
                self._observer.upkeep.rescued(worker_id, back_total, dead_total)
                await self._store.hint()
                self._on_rescued()

    async def control(self) -> None:
        """Pauses end when their time is over; and so do rows that came back although somebody wants them stopped."""
        if await self._store.end_pauses(BATCH):
            await self._store.call()
        paused = await self._store.pauses(BATCH)
        for gate in paused.keys() - self._paused:
            self._observer.upkeep.paused(gate, *paused[gate])
        for gate in self._paused - paused.keys():
            self._observer.upkeep.resumed(gate)
            self._on_rescued()
        self._paused = set(paused)
        while queues := await self._store.end_asked(BATCH):
            self._tallies.add_all((queue, "cancelled") for queue in queues)
            self._observer.upkeep.cancelled_rows(len(queues))

    async def strays(self) -> None:
        """Rows of claims whose answer was lost."""
        if await self._strays():
            self._on_rescued()

    async def expire(self) -> None:
        while queues := await self._store.expire(BATCH):
            self._tallies.add_all((queue, "dead") for queue in queues)
            self._observer.upkeep.expired(len(queues))
            if len(queues) < BATCH:
                break

    async def order(self) -> None:
        """Rows behind one that blocks for too long, and those that an end could not open: some keys each time."""
        stepped = await self._store.step_aside(BATCH)
        seen, opened = await self._store.open_heads(self._order_seen, BATCH)
        self._order_seen = seen or ("", "")
        if stepped + opened:
            self._on_rescued()

    async def batches(self) -> None:
        """Batches whose last children went by another way than an end, or ended while somebody was joining."""
        after: int | None = self._batch_after
        for _ in range(PAGES):
            after, over = await self._store.settle_batches(after or 0, BATCH)
            if over:
                self._on_rescued()  # callbacks are due
            if after is None:
                break
        self._batch_after = after or 0

    async def flush(self) -> None:
        """Write down how many jobs ended; also the last thing a daemon does before it leaves."""
        await self._tallies.flush(self._store)

    async def count(self) -> None:
        """Gauges for people: sampled, not counted at each scrape."""
        async with self._store.connection() as conn:
            survey = await counts.take(conn)
        self._observer.upkeep.sampled(
            {name: (n.ready.n, n.scheduled.n, n.running.n, n.oldest_s) for name, n in survey.queues.items()},
            survey.parked,
            {name: n.dead.n for name, n in survey.queues.items()},
        )
        self._sample()
