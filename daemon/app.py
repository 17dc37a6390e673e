"""Composition root: build the parts, run them together, reload them whole, take them down in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from importlib.metadata import version
from time import monotonic
from typing import Any

from daemon import systemd
from daemon.admin import Admin
from daemon.claimer import Claimer
from daemon.config import Config
from daemon.config_show import digest
from daemon.controls import Controls
from daemon.crew import Crew
from daemon.database import Database, close_pool, until_there
from daemon.embedded import Embedded
from daemon.finisher import WRITE_S, Finisher
from daemon.keeper import Keeper
from daemon.lag import probe
from daemon.lane_store import LaneStore
from daemon.lanes import Lanes
from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.listener import Listener
from daemon.membership import Membership
from daemon.migrate import migrate, require_current
from daemon.observe import Observer, Slots
from daemon.reload import Reload
from daemon.rules import Setup
from daemon.runner import Runner
from daemon.schedule_store import ScheduleStore
from daemon.scheduler import Scheduler
from daemon.settings import EMBEDDED
from daemon.statements import AWAY
from daemon.stop import Stop, within
from daemon.store import Store
from daemon.strays import Strays
from daemon.tallies import Tallies
from daemon.terms import TermsBook, TermsStore
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore

OK, INTERNAL = 0, 70
STOP_S = 3.0
"""How long handlers cancelled at the drain's deadline get to end; then their rows are handed back over their heads."""

STALL_S = 30.0
"""A loop that has not come round for so long is stuck."""


class Daemon:
    """One `jobsd serve`.  `stop()` drains, a second one forces; `reload()` reads the config again."""

    def __init__(self, config: Config, load: Callable[[], Config], observer: Observer) -> None:
        self._reload = Reload(config, load, observer, self._apply, lambda: self._runner.wait_for_current())
        self._observer = observer
        self._stop = Stop()
        self._fault: BaseException | None = None
        self._watchdog = systemd.Watchdog(systemd.watchdog_interval_s(), self._stalled)
        self._starting: str | None = "starting"
        self.stubborn = 0
        """After run(): attempts that still run although they were told to stop; their rows were handed back."""
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """Drain and end; the second call ends without waiting for running jobs."""
        self._stop.ask()

    def reload(self) -> None:
        """Read the config again, soon; calls that come meanwhile count as one."""
        self._reload.ask()

    async def run(self) -> int:
        """Until stopped; the exit code."""
        started = monotonic()
        self._observer.life.daemon_starting(version("jobsd"))
        config = self._reload.config
        self._observer.life.config_loaded(config.source, digest(config), [str(warning) for warning in config.warnings])
        async with AsyncExitStack() as stack:
            self._admin = Admin(config.admin.listen, self._observer, self._ready_checks(), self._live_checks())
            await self._admin.start()
            stack.push_async_callback(self._admin.close)
            if await self._open(stack):
                await self._serve(stack, started)
        return OK if self._fault is None else INTERNAL

    # --- opening ----------------------------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> bool:
        """Reach the database and build the parts; false when a stop came first."""
        self._embedded: Embedded | None = None
        config = self._reload.config
        dsn = str(config.database.dsn)
        schema = config.database.schema
        if dsn == EMBEDDED:
            self._embedded = Embedded(config.daemon.postgres_folder, attach=False)
            dsn = await self._embedded.start()
            stack.push_async_callback(self._embedded.stop)
            began = monotonic()
            for name in await migrate(dsn, schema, roles=True):
                self._observer.life.migrated(name, monotonic() - began)
        self._database = Database(dsn, config.database)
        waiting = asyncio.get_running_loop().create_task(until_there(self._database.engine_pool, self._no_database))
        if not await self._stop.unless_asked(waiting):
            return False
        self._pool = waiting.result()
        stack.push_async_callback(close_pool, self._pool)
        await require_current(await self._database.connect())
        handler_pool = await self._database.handler_pool()
        stack.push_async_callback(close_pool, handler_pool)
        self._conns = await self._database.transaction_pool()
        stack.push_async_callback(close_pool, self._conns)
        setup = self._reload.open(handler_pool)
        stack.push_async_callback(self._reload.close)
        self._build(setup)
        stack.push_async_callback(self._runner.notes.aclose)
        stack.callback(self._terms.close)
        return True

    def _build(self, setup: Setup) -> None:
        watchdog, observer, pool = self._watchdog, self._observer, self._pool
        answer_s = self._database.answer_s
        store = Store(pool, timeout_s=answer_s)
        self._finisher = Finisher(store, observer, lambda: watchdog.beat("finisher"))
        self._runner = Runner(setup, store, self._finisher, observer, self._conns)
        self._membership = Membership(
            self._database.connect,
            lambda: self._reload.config,
            WorkerStore(pool, timeout_s=answer_s),
            self._runner,
            observer,
            on_beat=self._skewed,
            on_try=lambda: watchdog.beat("heartbeat"),
            on_anew=lambda: self._claimer.look_again(),
        )
        self._lease, worker_id = self._membership.lease, self._membership.worker_id
        self._lanes = Lanes(
            LaneStore(pool, timeout_s=answer_s),
            lambda lane: self._reload.config.lane(lane),
            worker_id,
            observer,
        )
        self._terms = TermsBook(TermsStore(pool, timeout_s=answer_s))
        crew = Crew(store, self._runner, self._finisher, observer, worker_id, self._terms)
        lender = Lender(LimitStore(pool, timeout_s=answer_s), self._runner.places)
        self._claimer = Claimer(crew, lender, self._lanes, self._claimer_beat)
        self._controls = Controls(WorkerStore(pool, timeout_s=answer_s), self._runner, observer, worker_id)
        self._listener = Listener(
            self._database.connect,
            self._database.channel,
            self._claimer.hint,
            self._claimer.look_again,
            observer,
            on_call=self._called,
        )
        strays = Strays(store, self._runner, self._finisher, worker_id)
        tallies = Tallies(lambda: self._lease.worker_id)
        self._finisher.on_recorded = tallies.ended
        self._keeper = Keeper(
            UpkeepStore(pool, timeout_s=answer_s),
            observer,
            lambda: self._reload.config,
            self._claimer.look_again,
            self._sample,
            strays.check,
            tallies,
        )
        self._scheduler = Scheduler(ScheduleStore(pool, timeout_s=answer_s), observer, setup.config.schedules)
        observer.watch_slots(self._slots)

    def _no_database(self, error: BaseException) -> None:
        self._starting = f"waiting for the database: {error}"
        self._observer.keeper_failed("connect", error)
        systemd.extend_timeout(30)
        systemd.status(self._starting)

    # --- running ----------------------------------------------------------------------------------------------------

    async def _serve(self, stack: AsyncExitStack, started: float) -> None:
        async with asyncio.TaskGroup() as results, asyncio.TaskGroup() as work:
            writing = results.create_task(self._guard("finisher", self._finisher.run()))
            await until_there(self._membership.register, self._no_database)
            claiming = work.create_task(self._guard("claimer", self._claimer.run()))
            loops = [
                work.create_task(self._guard(name, loop))
                for name, loop in (
                    ("limits", self._claimer.admission.run()),
                    ("listener", self._listener.run()),
                    ("controls", self._controls.run()),
                    ("keeper", self._keeper.run()),
                    ("scheduler", self._scheduler.run()),
                    ("lanes", self._lanes.run()),
                    ("watchdog", self._watchdog.run()),
                    ("lag", probe(self._observer)),
                    ("membership", self._membership.stay()),
                    ("reload", self._reload.run(work)),
                )
            ]
            for part in ("claimer", "finisher"):
                self._watchdog.watch(part, STALL_S)
            self._watchdog.watch("heartbeat", max(STALL_S, self._reload.config.daemon.lease * 2))
            self._starting = None
            await self._announce(started)
            await self._stop.wait()
            await self._drain(claiming, writing, loops)

    async def _announce(self, started: float) -> None:
        """READY only when the first look has been made and the listener hears, or has failed to."""
        hearing = asyncio.get_running_loop().create_task(self._listener.hearing.wait())
        await self._stop.unless_asked(hearing, 5)
        if not self._listener.hearing.is_set():
            self._observer.keeper_failed("listen", TimeoutError("not listening yet; polling meanwhile"))
        self._observer.life.daemon_ready(monotonic() - started)
        systemd.ready("serving")
        self.ready.set()

    async def _drain(
        self, claiming: asyncio.Task[None], writing: asyncio.Task[None], loops: list[asyncio.Task[None]]
    ) -> None:
        """The order is the guarantee: claim nothing more, let running jobs end, hand back those that do not, write down
        how all of them ended, give up the lease."""
        began = monotonic()
        self._starting = "draining"
        self._observer.life.daemon_draining(len(self._runner))
        systemd.stopping(f"draining {len(self._runner)}")
        self._watchdog.release("claimer")
        self._lease.draining = True
        self._claimer.close()
        await self._stop.unless_forced(WRITE_S, claiming)
        handed_back = await self._let_end()
        self._finisher.close()
        if not await self._stop.unless_forced(WRITE_S, writing):
            writing.cancel()
        worker_id = self._lease.worker_id
        for loop in (*loops, claiming):
            loop.cancel()
        await within(3, self._last_tally())
        await asyncio.get_running_loop().run_in_executor(None, self._lease.close)
        if worker_id is not None:
            await within(3, self._membership.leave(worker_id))
        self._observer.life.daemon_stopped(monotonic() - began, handed_back)

    async def _let_end(self) -> int:
        """Wait for running jobs up to the deadline, then cancel them; how many rows went back."""
        idle = asyncio.get_running_loop().create_task(self._runner.wait_idle())
        handed_back = 0
        if not await self._stop.unless_forced(self._reload.config.daemon.drain_timeout, idle, grace_s=0.0):
            handed_back = self._runner.cancel("drain")
            if not await self._stop.unless_forced(STOP_S, idle):
                self.stubborn = self._runner.abandon()
        idle.cancel()
        return handed_back

    async def _guard(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """A loop that dies takes the daemon down in good order: alive but idle is the worst of states."""
        try:
            await loop
        except Exception as error:  # whatever it was, results in memory must still be written
            self._fault = error
            self._observer.task_died(name, error)
            self._stop.begin()

    def _called(self) -> None:
        """An operator wants something: attempts stopped, pauses begun or ended, rows at another place or time."""
        self._controls.call()
        self._scheduler.look_again()
        self._claimer.look_again()

    def _skewed(self, skew_s: float) -> None:
        self._scheduler.skew_s = skew_s

    async def _last_tally(self) -> None:
        try:
            await self._keeper.flush()
        except AWAY as error:
            self._observer.keeper_failed("tallies", error)

    def _apply(self, setup: Setup) -> None:
        """What a reload has prepared: attempts that start from now on go by it."""
        self._runner.setup = setup
        self._lease.kinds = sorted(setup.kinds)
        self._claimer.reload()
        self._scheduler.reload(setup.config.schedules)

    # --- what others ask --------------------------------------------------------------------------------------------

    def _ready_checks(self) -> dict[str, Callable[[], str | None]]:
        return {
            "daemon": lambda: self._starting,
            "database": self._database_trouble,
            "listener": self._listener_trouble,
        }

    def _live_checks(self) -> dict[str, Callable[[], str | None]]:
        return {"loops": lambda: ", ".join(self._watchdog.stalled()) or None}

    def _database_trouble(self) -> str | None:
        if self._starting is not None:
            return None
        quiet_s = monotonic() - self._claimer.answered_at
        allowed_s = self._reload.config.daemon.poll_interval + 2.0
        return None if quiet_s < allowed_s else f"no answer for {quiet_s:.0f} s"

    def _listener_trouble(self) -> str | None:
        return None if self._starting is not None else self._listener.trouble

    def _claimer_beat(self) -> None:
        self._watchdog.beat("claimer")
        if self._finisher.backlog == 0:
            self._watchdog.beat("finisher")

    def _stalled(self, parts: tuple[str, ...]) -> None:
        if parts:
            self._observer.keeper_failed("watchdog", RuntimeError(f"stalled: {', '.join(parts)}"))

    def _slots(self) -> dict[str, Slots]:
        config, busy = self._reload.config, self._runner.busy
        names = {*busy, *(name for name in config.queues if "*" not in name)}
        return {name: Slots(busy[name], config.queue(name).concurrency) for name in names}

    def _sample(self) -> None:
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        self._observer.life.pool(size, idle)
        systemd.status(f"serving; {len(self._runner)} running, {self._finisher.backlog} results to write")
