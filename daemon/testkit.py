"""The engine's half of the test kit: the claimer, runner, finisher and keeper of a daemon, stepped by hand.

A drain is the life of one worker: it registers, makes rounds until two in a row find nothing, and leaves.  Where a test
lets it die, its lease ends, the keeper rescues its rows, and another life begins.  All calls into the engine are here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg

import sql
from daemon.chores import Chores
from daemon.claimer import Claimer
from daemon.config import Config, parse
from daemon.crew import Crew
from daemon.embedded import Embedded
from daemon.finisher import Finisher
from daemon.handlers import load_kinds
from daemon.lane_store import LaneStore
from daemon.lanes import Lanes
from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.log import Logger
from daemon.migrate import migrate
from daemon.observe import Observer
from daemon.outfit import wanted
from daemon.rules import Setup
from daemon.runner import Runner
from daemon.settle import Transition, hand_back
from daemon.store import Store
from daemon.tallies import Tallies
from daemon.terms import TermsBook, TermsStore
from daemon.upkeep_store import UpkeepStore
from daemon.work_settings import KindSettings, QueueSettings
from daemon.worker_store import WorkerStore
from jobs.clients import Wanted
from jobs.context import Tools
from jobs.model import Job
from jobs.registry import AnyHandler, Kind
from jobs.testing.calls import Calls, is_fault
from jobs.testing.engine import Worker
from jobs.testing.ran import Ran

_SQL = sql.load("testing.sql")

LEASE_S = 100 * 365.25 * 86_400.0
"""Longer than a test moves its clock: nobody sends heartbeats here."""

QUIET_ROUNDS = 2
"""The first after the last job may only have moved rows from one gate to another."""

IDLE_ROUNDS_MAX = 1000
"""Rounds in a row that claim and start nothing: rows are handed to and fro."""

# Nothing here outlives the run, so nothing is made durable; many small databases share the memory.
SERVER = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "max_connections": "300",
    "max_wal_size": "256MB",
}


class Engine:
    """`jobs.testing.engine.Engine`."""

    def postgres(self, folder: Path) -> Embedded:
        return Embedded(folder, settings=SERVER)

    async def migrate(self, dsn: str) -> None:
        await migrate(dsn)

    def plan(
        self, config: Mapping[str, Any] | str, handlers: Sequence[str | AnyHandler] | None, concurrency: int
    ) -> Plan:
        given = parse(config) if isinstance(config, str) else parse("", overrides=config)
        modules = [name for name in handlers or () if isinstance(name, str)]
        found = load_kinds((*given.daemon.handlers, *modules), given.daemon.kinds, given.jobs)
        if handlers is not None:
            wanted = {*handlers, *(found[name].registered for name in given.jobs if name in found)}
            found = {n: k for n, k in found.items() if {k.registered, k.registered.__module__} & wanted}
        return Plan(_calm(given, found, concurrency), found)


@dataclass(frozen=True, slots=True)
class Plan:
    """`jobs.testing.engine.Plan`."""

    config: Config
    kinds: Mapping[str, Kind]

    @property
    def wanted(self) -> Wanted:
        return wanted(self.config)

    def worker(self, pool: asyncpg.Pool, tools: Callable[[], Awaitable[Tools]], calls: Calls) -> Worker:
        return Bench(self, pool, tools, calls)


class Bench:
    """`jobs.testing.engine.Worker`."""

    def __init__(self, plan: Plan, pool: asyncpg.Pool, tools: Callable[[], Awaitable[Tools]], calls: Calls) -> None:
        self._config = plan.config
        self._kinds = {name: calls.watched(kind) for name, kind in plan.kinds.items()}
        self._pool = pool
        self._store = _Store(pool)
        self._workers = WorkerStore(pool)
        self._tools = tools
        self._calls = calls
        self._observer = Observer(_Lines())
        self._waits_s: float | None = None
        self._chores = Chores(
            UpkeepStore(pool),
            self._observer,
            lambda: plan.config,
            lambda: None,
            Tallies(lambda: None),  # nobody looks at the numbers of a test's database
            rest_s=0.0,
        )

    @property
    def waits_s(self) -> float | None:
        return self._waits_s

    def lose_answer(self) -> None:
        self._store.loses = True

    async def drain(self, stop: Callable[[Ran], bool]) -> list[Ran]:
        done: list[Ran] = []
        await self._do_chores()
        while True:
            life = await self._live(stop, done)
            if not life.dead:
                return done
            await self._do_chores()
            if life.stopped:
                return done

    async def _do_chores(self) -> None:
        for chore in self._chores.wanted(await self._chores.ask()):
            await chore.do()

    async def _live(self, stop: Callable[[Ran], bool], done: list[Ran]) -> _Life:
        """One worker's life, to its end or its death."""
        setup = Setup(self._config, await self._tools(), self._kinds)
        worker_id = await self._workers.register(
            "jobs.testing", version("jobsd"), list(self._kinds), list(self._config.daemon.queues), LEASE_S
        )
        life = _Life(setup, self._pool, self._store, self._observer, self._calls, worker_id, stop, done)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(life.finisher.run())
            self._waits_s = await life.rounds()
            await life.quiet()
            life.finisher.close()
            await writing
        if life.dead:
            await self._pool.execute(_SQL["die"], worker_id)
        else:
            await self._workers.leave(worker_id)
        return life


class _Life:
    """One worker, from its first claim to its last word."""

    def __init__(
        self,
        setup: Setup,
        pool: asyncpg.Pool,
        store: Store,
        observer: Observer,
        calls: Calls,
        worker_id: int,
        stop: Callable[[Ran], bool],
        done: list[Ran],
    ) -> None:
        self.dead = False
        self._calls = calls
        self._stop = stop
        self.stopped = False
        self._done = done
        self._at_once = setup.config.queue("default").concurrency
        self._written = asyncio.Event()
        self.finisher = _Finisher(store, observer, self._written.set, self._ended)
        self._runner = _Turns(setup, store, self.finisher, observer)
        self._worker_id = worker_id
        crew = Crew(store, self._runner, self.finisher, observer, self._lives_as, TermsBook(TermsStore(pool)))
        self._lanes = Lanes(LaneStore(pool), setup.config.lane, self._lives_as, observer)
        # the database's clock stands still: what is not due now is not due before the end of this life
        self._lender = Lender(LimitStore(pool), self._runner.places, ahead_s=0.0, clock=lambda: 0.0)
        self._claimer = Claimer(crew, self._lender, self._lanes, lambda: None)
        calls.die = self._die

    async def rounds(self) -> float | None:
        """Until there is nothing more to do now, or no more to be done; the shortest time that a limit says to wait."""
        quiet = idle = 0
        while quiet < QUIET_ROUNDS and idle < IDLE_ROUNDS_MAX and not (self.stopped or self.dead):
            self._claimer.look_again()
            await self._claimer.scout.step()
            await self._lanes.step()
            await self._claimer.admission.step(self._at_once)
            pause_s = await self._claimer.step()
            ran = await self._turn()
            await self._flush()
            quiet = quiet + 1 if pause_s > 0 and not ran else 0
            idle = 0 if ran else idle + 1
        waits_s = self._lender.waits_s()
        self._claimer.close()
        await self._claimer.admission.step()
        return waits_s

    def _lives_as(self) -> int | None:
        return None if self.dead else self._worker_id

    async def quiet(self) -> None:
        """Nothing more is said of running jobs."""
        await self._runner.notes.aclose()

    async def _turn(self) -> bool:
        """Run what was claimed, in the order of the claim; whether that was anything."""
        taken = self._runner.taken()
        for start in range(0, len(taken), self._at_once):
            for job, rest in taken[start : start + self._at_once]:
                if self.stopped or self.dead:  # as a daemon does that stops with a claim on the wire
                    self.finisher.add(hand_back(job, gate=job.gate))
                else:
                    self._runner.begin(job, rest)
            await self._runner.wait_idle()
            await self._flush()
        return bool(taken)

    async def _flush(self) -> None:
        while self.finisher.backlog:
            self._written.clear()
            await self._written.wait()

    def _die(self) -> None:
        """Killed: what was not written down is lost, and whatever else ran here ends."""
        self.dead = True
        self.finisher.dead = True
        for job in self._runner.jobs():
            self._calls.taken(job.id, job.fence)
            self._tell(Ran(job, "crashed", "crashed", "its worker died"))
        self._runner.cancel("fence")

    def _ended(self, t: Transition) -> None:
        if t.outcome == "handed_back":
            return
        call = self._calls.taken(t.job.id, t.job.fence)
        error = call.error if is_fault(call.error) else None
        self._tell(Ran(t.job, t.outcome, t.code, t.reason, t.result, error, t.delay_s, call.duration_s))

    def _tell(self, ran: Ran) -> None:
        self._done.append(ran)
        self.stopped = self._stop(ran) or self.stopped


class _Turns(Runner):
    """Takes what the claimer starts, and starts it in turn."""

    def __init__(self, setup: Setup, store: Store, finisher: Finisher, observer: Observer) -> None:
        super().__init__(setup, store, finisher, observer)
        self._taken: list[tuple[Job, tuple[Any, ...]]] = []
        self._begun: dict[tuple[int, int], Job] = {}

    def start(self, job: Job, *rest: Any, **more: Any) -> None:
        self._taken.append((job, (*rest, *more.values())))

    def taken(self) -> list[tuple[Job, tuple[Any, ...]]]:
        taken, self._taken = self._taken, []
        return taken

    def begin(self, job: Job, rest: tuple[Any, ...]) -> None:
        self._begun[job.id, job.fence] = job
        super().start(job, *rest)

    def jobs(self) -> list[Job]:
        """Those that run now."""
        return [job for key, job in self._begun.items() if key in self.known()]


class _Finisher(Finisher):
    """Says what it is given to write; of a dead worker it writes nothing."""

    def __init__(
        self, store: Store, observer: Observer, beat: Callable[[], None], ended: Callable[[Transition], None]
    ) -> None:
        super().__init__(store, observer, beat)
        self.dead = False
        self._ended = ended

    def add(self, transition: Transition) -> None:
        if not self.dead:
            super().add(transition)
            self._ended(transition)

    def committed(self, transition: Transition, seconds: float, *, late: bool) -> None:
        if not self.dead:
            super().committed(transition, seconds, late=late)
            self._ended(transition)


class _Store(Store):
    """Loses the answer to one commit, if asked to."""

    loses = False

    async def write(
        self, batch: Sequence[Transition], ended_claims: Sequence[int] = (), *, again: bool = False
    ) -> set[int]:
        ours = await super().write(batch, ended_claims, again=again)
        if self.loses:
            self.loses = False
            raise ConnectionResetError("the answer to this commit was lost, as the test asked")
        return ours


class _Lines(Logger):
    """Lines go to Python's own logging, `jobs.testing`, where test runners look for them; no thread, no descriptor."""

    def __init__(self) -> None:
        self._to = logging.getLogger("jobs.testing")

    json = False

    def writes(self, level: str) -> bool:
        return self._to.isEnabledFor(logging.getLevelName(level.upper()))

    def emit(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        self._to.log(logging.getLevelName(level.upper()), "%s %s", event, words, extra={"event": event, "job": fields})


def _calm(config: Config, kinds: Mapping[str, Kind], concurrency: int) -> Config:
    """So many jobs at once, and retries at the very moment their policy names, unless the test has set a jitter."""
    queues = {"*": QueueSettings(), **config.queues}
    sections = {name: config.kinds.get(name) or KindSettings() for name in {*kinds, *config.kinds}}
    return replace(
        config,
        queues={name: replace(queue, concurrency=concurrency) for name, queue in queues.items()},
        kinds={name: replace(kind, jitter=0.0) if kind.jitter is None else kind for name, kind in sections.items()},
    )
