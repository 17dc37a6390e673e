"""Composition root: build the parts, run them together, reload them whole, take them down in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from importlib.metadata import version
from socket import gethostname
from time import monotonic
from typing import Any

from daemon import systemd
from daemon.admin import Admin
from daemon.claimer import Claimer
from daemon.config import Config, ConfigError
from daemon.config_diff import diff
from daemon.config_show import digest
from daemon.controls import Controls
from daemon.crew import Crew
from daemon.database import Database, until_there
from daemon.embedded import Embedded
from daemon.finisher import WRITE_S, Finisher
from daemon.handlers import load_kinds
from daemon.keeper import Keeper
from daemon.lag import probe
from daemon.lane_store import LaneStore
from daemon.lanes import Lanes
from daemon.lease import Lease
from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.listener import Listener
from daemon.migrate import SchemaError, look, migrate
from daemon.observe import Observer, Slots
from daemon.outfit import secret_folders, wanted
from daemon.rules import Setup
from daemon.runner import Runner
from daemon.schedule_store import ScheduleStore
from daemon.scheduler import Scheduler
from daemon.settings import EMBEDDED
from daemon.statements import AWAY
from daemon.store import Store
from daemon.strays import Strays
from daemon.tallies import Tallies
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore
from jobs.clients import Clients, open_clients
from jobs.secrets import Secrets

OK, INTERNAL = 0, 70
STOP_S = 3.0
"""How long handlers cancelled at the drain's deadline get to end; then their rows are handed back over their heads."""

FORCED_S = 0.4
"""How long each step of a stop may still take once a second signal has come."""

REGISTER_S = 10.0
"""A registration not answered by then is tried again on another connection; its row, if there is one, runs out."""

STALL_S = 30.0
"""A loop that has not come round for so long is stuck."""


class Daemon:
    """One `jobsd serve`.  `stop()` drains, a second one forces; `reload()` reads the config again."""

    def __init__(self, config: Config, load: Callable[[], Config], observer: Observer) -> None:
        self._config = self._started_with = config
        self._load = load
        self._observer = observer
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()
        self._reload = asyncio.Event()
        self._fault: BaseException | None = None
        self._watchdog = systemd.Watchdog(systemd.watchdog_interval_s(), self._stalled)
        self._starting: str | None = "starting"
        self.stubborn = 0
        """After run(): attempts that still run although they were told to stop; their rows were handed back."""
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """Drain and end; the second call ends without waiting for running jobs."""
        if self._stopping.is_set():
            self._forced.set()
        self._stopping.set()

    def reload(self) -> None:
        """Read the config again, soon; calls that come meanwhile count as one."""
        self._reload.set()

    async def run(self) -> int:
        """Until stopped; the exit code."""
        started = monotonic()
        self._observer.life.daemon_starting(version("jobsd"))
        self._observer.life.config_loaded(
            self._config.source, digest(self._config), [str(warning) for warning in self._config.warnings]
        )
        async with AsyncExitStack() as stack:
            self._admin = Admin(self._config.admin.listen, self._observer, self._ready_checks(), self._live_checks())
            await self._admin.start()
            stack.push_async_callback(self._admin.close)
            if await self._open(stack):
                await self._serve(stack, started)
        return OK if self._fault is None else INTERNAL

    # --- opening ----------------------------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> bool:
        """Reach the database and build the parts; false when a stop came first."""
        self._embedded: Embedded | None = None
        dsn = str(self._config.database.dsn)
        schema = self._config.database.schema
        if dsn == EMBEDDED:
            self._embedded = Embedded(self._config.daemon.postgres_folder, attach=False)
            dsn = await self._embedded.start()
            stack.push_async_callback(self._embedded.stop)
            began = monotonic()
            for name in await migrate(dsn, schema, roles=True):
                self._observer.life.migrated(name, monotonic() - began)
        self._database = Database(dsn, self._config.database)
        waiting = asyncio.get_running_loop().create_task(until_there(self._database.engine_pool, self._no_database))
        stop = asyncio.get_running_loop().create_task(self._stopping.wait())
        await asyncio.wait({waiting, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not waiting.done():
            waiting.cancel()
            return False
        self._pool = waiting.result()
        stack.push_async_callback(self._close_pool, self._pool)
        await self._check_schema()
        handler_pool = await self._database.handler_pool()
        stack.push_async_callback(self._close_pool, handler_pool)
        self._conns = await self._database.transaction_pool()
        stack.push_async_callback(self._close_pool, self._conns)
        kinds = load_kinds(self._config.daemon.handlers, self._config.daemon.kinds)
        self._secrets = Secrets(secret_folders(self._config))
        self._clients = open_clients(wanted(self._config), handler_pool, self._secrets)
        stack.push_async_callback(self._close_clients)
        self._build(Setup(self._config, self._clients, kinds))
        stack.push_async_callback(self._runner.notes.aclose)
        return True

    def _build(self, setup: Setup) -> None:
        watchdog, observer, pool = self._watchdog, self._observer, self._pool
        answer_s = answer_limit_s(setup.config.database.statement_timeout)
        store = Store(pool, timeout_s=answer_s)
        self._workers = WorkerStore(pool, timeout_s=answer_s)
        self._finisher = Finisher(store, observer, lambda: watchdog.beat("finisher"))
        self._runner = Runner(setup, store, self._finisher, observer, self._conns)
        self._lease = Lease(
            self._database.connect,
            setup.config.daemon.lease,
            on_beat=self._heard_back,
            on_failure=self._not_heard_back,
            on_silence=self._fence,
            on_lost=self._lost,
        )
        self._lease.running = lambda: self._runner.busy
        self._unregistered = asyncio.Event()
        self._lanes = Lanes(
            LaneStore(pool, timeout_s=answer_s),
            lambda lane: self._config.lane(lane),
            self._worker_id,
            observer,
        )
        crew = Crew(store, self._runner, self._finisher, observer, self._worker_id)
        lender = Lender(LimitStore(pool, timeout_s=answer_s), self._runner.places)
        self._claimer = Claimer(crew, lender, self._lanes, self._claimer_beat)
        self._controls = Controls(self._workers, self._runner, observer, self._worker_id)
        self._listener = Listener(
            self._database.connect,
            self._database.channel,
            self._claimer.hint,
            self._claimer.look_again,
            observer,
            on_call=self._called,
        )
        strays = Strays(store, self._runner, self._finisher, self._worker_id)
        tallies = Tallies(lambda: self._lease.worker_id)
        self._finisher.on_recorded = tallies.ended
        self._keeper = Keeper(
            UpkeepStore(pool, timeout_s=answer_s),
            observer,
            lambda: self._config,
            self._claimer.look_again,
            self._sample,
            strays.check,
            tallies,
        )
        self._scheduler = Scheduler(ScheduleStore(pool, timeout_s=answer_s), observer, setup.config.schedules)
        observer.watch_slots(self._slots)

    async def _check_schema(self) -> None:
        conn = await self._database.connect()
        try:
            pending = (await look(conn)).pending
        finally:
            await conn.close()
        if pending:
            raise SchemaError(
                f"the database is {len(pending)} migrations behind (next: {pending[0].name}); run: jobsd migrate"
            )

    def _no_database(self, error: BaseException) -> None:
        self._starting = f"waiting for the database: {error}"
        self._observer.keeper_failed("connect", error)
        systemd.extend_timeout(30)
        systemd.status(self._starting)

    # --- running ----------------------------------------------------------------------------------------------------

    async def _serve(self, stack: AsyncExitStack, started: float) -> None:
        async with asyncio.TaskGroup() as results, asyncio.TaskGroup() as work:
            writing = results.create_task(self._guard("finisher", self._finisher.run()))
            await until_there(self._register, self._no_database)
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
                    ("membership", self._stay_registered()),
                    ("reload", self._reload_when_asked(work)),
                )
            ]
            for part in ("claimer", "finisher"):
                self._watchdog.watch(part, STALL_S)
            self._watchdog.watch("heartbeat", max(STALL_S, self._config.daemon.lease * 2))
            self._starting = None
            await self._announce(started)
            await self._stopping.wait()
            await self._drain(claiming, writing, loops)

    async def _announce(self, started: float) -> None:
        """READY only when the first look has been made and the listener hears, or has failed to."""
        hearing = asyncio.get_running_loop().create_task(self._listener.hearing.wait())
        stop = asyncio.get_running_loop().create_task(self._stopping.wait())
        await asyncio.wait({hearing, stop}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        hearing.cancel()
        stop.cancel()
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
        await self._unless_forced(WRITE_S, claiming)
        handed_back = await self._let_end()
        self._finisher.close()
        if not await self._unless_forced(WRITE_S, writing):
            writing.cancel()
        worker_id = self._lease.worker_id
        for loop in (*loops, claiming):
            loop.cancel()
        await _within(3, self._last_tally())
        await asyncio.get_running_loop().run_in_executor(None, self._lease.close)
        if worker_id is not None:
            await _within(3, self._leave(worker_id))
        self._observer.life.daemon_stopped(monotonic() - began, handed_back)

    async def _let_end(self) -> int:
        """Wait for running jobs up to the deadline, then cancel them; how many rows went back."""
        idle = asyncio.get_running_loop().create_task(self._runner.wait_idle())
        handed_back = 0
        if not await self._unless_forced(self._config.daemon.drain_timeout, idle, grace_s=0.0):
            handed_back = self._runner.cancel("drain")
            if not await self._unless_forced(STOP_S, idle):
                self.stubborn = self._runner.abandon()
        idle.cancel()
        return handed_back

    async def _unless_forced(self, seconds: float, task: asyncio.Task[None], *, grace_s: float = FORCED_S) -> bool:
        """Wait for `task`, but once a second signal has come only a moment longer; whether it is done."""
        forced = asyncio.get_running_loop().create_task(self._forced.wait())
        await asyncio.wait({task, forced}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if forced.done() and not task.done() and grace_s > 0:
            await asyncio.wait({task}, timeout=min(seconds, grace_s))
        forced.cancel()
        return task.done()

    async def _guard(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """A loop that dies takes the daemon down in good order: alive but idle is the worst of states."""
        try:
            await loop
        except Exception as error:  # whatever it was, results in memory must still be written
            self._fault = error
            self._observer.task_died(name, error)
            self._stopping.set()

    # --- the lease --------------------------------------------------------------------------------------------------

    def _called(self) -> None:
        """An operator wants something: attempts stopped, pauses begun or ended, rows at another place or time."""
        self._controls.call()
        self._scheduler.look_again()
        self._claimer.look_again()

    async def _register(self) -> None:
        daemon, kinds = self._config.daemon, sorted(self._runner.setup.kinds)
        sent = monotonic()
        name = daemon.name or f"{gethostname()}:{os.getpid()}"
        async with asyncio.timeout(REGISTER_S):
            worker_id = await self._workers.register(name, version("jobsd"), kinds, daemon.queues, daemon.lease)
        self._lease.kinds = kinds
        self._lease.hold(worker_id, sent)
        self._observer.life.worker_registered(worker_id)

    async def _stay_registered(self) -> None:
        """A lost lease is never had again: its rows may be others' by now.  Begin anew, as somebody else."""
        while True:
            await self._unregistered.wait()
            self._unregistered.clear()
            await until_there(self._register, self._observer.life.heartbeat_failed)
            self._claimer.look_again()

    def _worker_id(self) -> int | None:
        return None if self._lease.silent else self._lease.worker_id

    def _heard_back(self, seconds: float, skew_s: float) -> None:
        self._watchdog.beat("heartbeat")
        self._scheduler.skew_s = skew_s
        self._observer.life.heartbeat(seconds, skew_s)

    def _not_heard_back(self, error: BaseException) -> None:
        self._watchdog.beat("heartbeat")  # it tries: a database that is away is no reason to be killed
        self._observer.life.heartbeat_failed(error)

    def _fence(self) -> None:
        self._observer.life.worker_fenced(self._lease.worker_id, self._runner.cancel("fence"))

    def _lost(self) -> None:
        self._observer.life.worker_lost("its lease ran out before a heartbeat reached the database")
        self._runner.cancel("fence")
        self._unregistered.set()

    async def _last_tally(self) -> None:
        try:
            await self._keeper.flush()
        except AWAY as error:
            self._observer.keeper_failed("tallies", error)

    async def _leave(self, worker_id: int) -> None:
        try:
            await self._workers.leave(worker_id)
        except AWAY as error:
            self._observer.life.heartbeat_failed(error)

    # --- reload -----------------------------------------------------------------------------------------------------

    async def _reload_when_asked(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            systemd.reloading()
            taken = self._swap(group)
            systemd.ready("serving" if taken else "serving; the last reload was refused, see the log")

    def _swap(self, group: asyncio.TaskGroup) -> bool:
        """Read, validate, prepare every part; then replace all of them, or none and return false."""
        try:
            new = self._load()
            kinds = load_kinds(self._started_with.daemon.handlers, new.daemon.kinds)
            clients = open_clients(wanted(new), self._clients.db, self._secrets_for(new), before=self._clients)
        except ConfigError as error:
            self._observer.life.reload_refused([str(problem) for problem in error.problems])
            return False
        except Exception as error:  # a part that cannot be prepared, whatever it says: nothing has changed yet
            self._observer.life.reload_refused([f"cannot be prepared: {error!r}"])
            return False
        what = diff(self._config, new)
        late = diff(self._started_with, new).restart_required
        old, self._clients, self._config, self._secrets = self._clients, clients, new, clients.secrets
        self._runner.setup = Setup(new, clients, kinds)
        self._lease.kinds = sorted(kinds)
        self._claimer.reload()
        self._scheduler.reload(new.schedules)
        self._observer.configure(new.log.level, new.log.format, new.log.started)
        group.create_task(self._retire(old, clients))
        self._observer.life.reloaded([c.path for c in what.changed], what.added, what.removed, late, digest(new))
        return True

    async def _retire(self, old: Clients, new: Clients) -> None:
        """Close what the reload replaced once the attempts that began with it have ended."""
        await self._runner.wait_for_current()
        await old.close(kept_by=new)

    def _secrets_for(self, config: Config) -> Secrets:
        folders = secret_folders(config)
        return self._secrets if folders == secret_folders(self._config) else Secrets(folders)

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
        allowed_s = self._config.daemon.poll_interval + 2.0
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
        config, busy = self._config, self._runner.busy
        names = {*busy, *(name for name in config.queues if "*" not in name)}
        return {name: Slots(busy[name], config.queue(name).concurrency) for name in names}

    def _sample(self) -> None:
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        self._observer.life.pool(size, idle)
        systemd.status(f"serving; {len(self._runner)} running, {self._finisher.backlog} results to write")

    async def _close_pool(self, pool: Any) -> None:
        if not await _within(3, pool.close()):
            pool.terminate()

    async def _close_clients(self) -> None:
        await self._clients.close()


def answer_limit_s(statement_timeout_s: float) -> float:
    """How long to wait for an answer: a little longer than Postgres would let the statement run."""
    return statement_timeout_s + 1.0 if statement_timeout_s else 31.0


async def _within(seconds: float, what: Any) -> bool:
    """Whether `what` was over in time.  For asyncio.wait, whether anything is done."""
    try:
        async with asyncio.timeout(seconds):
            await what
    except TimeoutError:
        return False
    return True
