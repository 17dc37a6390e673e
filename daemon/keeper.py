"""Leaderless upkeep.  Every daemon does all of it; each step is safe beside the same step of another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from daemon import counts
from daemon.chores import EVERY_S, SOONEST_S, Chore, Chores, pause_s
from daemon.config import Config
from daemon.observe import Observer
from daemon.retention import Retention
from daemon.statements import AWAY
from daemon.tallies import Tallies
from daemon.upkeep_store import UpkeepStore

LONGEST_S = 120.0
"""A task that takes longer hangs on a dead connection, or goes on next time: the others must have their turn."""

FORWARDS_S = 120.0
"""Forwards whose job is no more are given up so often; those whose attempts end are without it."""

DOMAINS_S = 120.0
DOMAINS_EXACT = 10_000
"""What states registered domains are in is asked so often, and counted up to so many of each."""

PARTITIONS_S = 120.0
"""Each try may wait in vain for a lock that a report holds."""


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of upkeep, done every `every_s` or so."""

    name: str
    every_s: float
    do: Callable[[], Awaitable[None]]


class Keeper:
    """Asks what there is to do and does it, and runs the tasks that go by the clock: one thing after another."""

    def __init__(
        self,
        store: UpkeepStore,
        observer: Observer,
        config: Callable[[], Config],
        on_due: Callable[[], None],
        sample: Callable[[], None],
        strays: Callable[[], Awaitable[int]],
        tallies: Tallies,
    ) -> None:
        self._store = store
        self._observer = observer
        self._on_due = on_due
        self._sample = sample
        self._strays = strays
        self._tallies = tallies
        self._chores = Chores(store, observer, config, on_due, tallies)
        self._wanted: list[Chore] = []
        self._ask_at = self._asked_at = 0.0
        self._wake = asyncio.Event()
        retention = Retention(store, observer, config)
        self.tasks = (
            Task("strays", 10.0, self.strays),
            Task("count", 15.0, self.count),
            Task("tallies", 5.0, self.flush),
            Task("sweep", 10.0, retention.sweep),
            Task("forwards", FORWARDS_S, retention.forwards),
            Task("domains", DOMAINS_S, self.domains),
            Task("partitions", PARTITIONS_S, retention.partitions),
            Task("retention", 3600.0, retention.forget),
        )

    def look_again(self) -> None:
        """An operator wants something: ask now, and not in a moment."""
        self._ask_at = self._asked_at + SOONEST_S
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; every statement is a transaction of its own, so a cancel leaves nothing half done."""
        loop = asyncio.get_running_loop()
        due = {task.name: loop.time() for task in self.tasks}
        while True:
            self._wake.clear()
            if self._ask_at <= loop.time():
                await self._look()
            for task in self.tasks:
                if due[task.name] <= loop.time():
                    await self._attempt(task)
                    due[task.name] = loop.time() + task.every_s * random.uniform(0.9, 1.1)  # noqa: S311  no herd
            await self._nap(min(self._ask_at, *due.values()) - loop.time())

    async def _look(self) -> None:
        self._wanted = []
        await self._attempt(Chore("chores", self._ask))
        for chore in self._wanted:
            await self._attempt(chore)

    async def _ask(self) -> None:
        now = self._asked_at = asyncio.get_running_loop().time()
        self._ask_at = now + EVERY_S  # should there be no answer
        found = await self._chores.ask()
        if not self._wake.is_set():
            self._ask_at = now + pause_s(found, random.random())  # noqa: S311  no herd
        self._wanted = self._chores.wanted(found)

    async def _attempt(self, task: Task | Chore) -> None:
        try:
            async with asyncio.timeout(LONGEST_S):
                await task.do()
        except AWAY as error:
            self._observer.keeper_failed(task.name, error)
        except Exception as error:  # one broken piece of upkeep must not end the others
            self._observer.keeper_failed(task.name, error)

    async def _nap(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return  # nobody called; the clock did

    async def strays(self) -> None:
        """Rows of claims whose answer was lost."""
        if await self._strays():
            self._on_due()

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

    async def domains(self) -> None:
        """How many registered domains are in each state."""
        self._observer.upkeep.domains_counted(await self._store.domain_states(DOMAINS_EXACT))
