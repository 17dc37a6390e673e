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
from daemon.config import Config
from daemon.config_show import digest
from daemon.database import Database, close_pool, until_there
from daemon.embedded import Embedded
from daemon.finisher import WRITE_S
from daemon.migrate import migrate, require_current
from daemon.observe import Observer
from daemon.parts import Parts
from daemon.reload import Reload
from daemon.rules import Setup
from daemon.settings import EMBEDDED
from daemon.statements import AWAY
from daemon.stop import Stop, within

OK, INTERNAL = 0, 70
STOP_S = 3.0
"""How long handlers cancelled at the drain's deadline get to end; then their rows are handed back over their heads."""

STALL_S = 30.0
"""A loop that has not come round for so long is stuck."""


class Daemon:
    """One `jobsd serve`.  `stop()` drains, a second one forces; `reload()` reads the config again."""

    def __init__(self, config: Config, load: Callable[[], Config], observer: Observer) -> None:
        self._reload = Reload(config, load, observer, self._apply, self._wait_for_current)
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
            admin = Admin(
                config.admin.listen,
                self._observer,
                self._ready_checks(),
                self._live_checks(),
                self._parked,
                lambda: self._reload.storage,
            )
            await admin.start()
            stack.push_async_callback(admin.close)
            if await self._open(stack, config):
                await self._serve(started)
        return OK if self._fault is None else INTERNAL

    # --- opening ----------------------------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack, config: Config) -> bool:
        """Reach the database and build the parts; false when a stop came first."""
        dsn = str(config.database.dsn)
        if dsn == EMBEDDED:
            dsn = await self._open_embedded(stack, config)
        database = Database(dsn, config.database)
        waiting = asyncio.get_running_loop().create_task(until_there(database.engine_pool, self._no_database))
        if not await self._stop.unless_asked(waiting):
            return False
        pool = waiting.result()
        stack.push_async_callback(close_pool, pool)
        await require_current(await database.connect())
        handler_pool = await database.handler_pool()
        stack.push_async_callback(close_pool, handler_pool)
        conns = await database.transaction_pool()
        stack.push_async_callback(close_pool, conns)
        setup = self._reload.open(handler_pool, pool)
        stack.push_async_callback(self._reload.close)
        self._parts = Parts(database, pool, conns, self._reload, setup, self._observer, self._watchdog)
        try:
            await self._parts.parking.look()
        except AWAY as error:
            self._observer.keeper_failed("parking", error)  # its loop asks again
        self._opened(self._parts)
        stack.push_async_callback(self._parts.runner.notes.aclose)
        stack.callback(self._parts.terms.close)
        return True

    async def _open_embedded(self, stack: AsyncExitStack, config: Config) -> str:
        """A server of our own, up to date; its DSN."""
        embedded = Embedded(config.daemon.postgres_folder, attach=False)
        dsn = await embedded.start()
        stack.push_async_callback(embedded.stop)
        began = monotonic()
        for name in await migrate(dsn, config.database.schema, roles=True):
            self._observer.life.migrated(name, monotonic() - began)
        return dsn

    def _opened(self, parts: Parts) -> None:
        """The parts are built, and none runs yet: for a daemon that is watched."""

    def _no_database(self, error: BaseException) -> None:
        self._starting = f"waiting for the database: {error}"
        self._observer.keeper_failed("connect", error)
        systemd.extend_timeout(30)
        systemd.status(self._starting)

    # --- running ----------------------------------------------------------------------------------------------------

    async def _serve(self, started: float) -> None:
        parts = self._parts
        async with asyncio.TaskGroup() as results, asyncio.TaskGroup() as work:
            writing = results.create_task(self._guard("finisher", parts.finisher.run()))
            await until_there(parts.membership.register, self._no_database)
            claiming = work.create_task(self._guard("claimer", parts.claimer.run()))
            loops = [
                work.create_task(self._guard(name, loop))
                for name, loop in (*parts.loops(), ("reload", self._reload.run(work)))
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
        hearing = asyncio.get_running_loop().create_task(self._parts.listener.hearing.wait())
        await self._stop.unless_asked(hearing, 5)
        if not self._parts.listener.hearing.is_set():
            self._observer.keeper_failed("listen", TimeoutError("not listening yet; polling meanwhile"))
        self._observer.life.daemon_ready(monotonic() - started)
        systemd.ready("serving")
        self.ready.set()

    async def _drain(
        self, claiming: asyncio.Task[None], writing: asyncio.Task[None], loops: list[asyncio.Task[None]]
    ) -> None:
        """The order is the guarantee: claim nothing more, let running jobs end, hand back those that do not, write down
        how all of them ended, give up the lease."""
        began, parts, lease = monotonic(), self._parts, self._parts.membership.lease
        self._starting = "draining"
        self._observer.life.daemon_draining(len(parts.runner))
        systemd.stopping(f"draining {len(parts.runner)}")
        self._watchdog.release("claimer")
        lease.draining = True
        parts.claimer.close()
        await self._stop.unless_forced(WRITE_S, claiming)
        handed_back = await self._let_end()
        parts.finisher.close()
        if not await self._stop.unless_forced(WRITE_S, writing):
            writing.cancel()
        worker_id = lease.worker_id
        for loop in (*loops, claiming):
            loop.cancel()
        await within(3, self._last_words())
        await asyncio.get_running_loop().run_in_executor(None, lease.close)
        if worker_id is not None:
            await within(3, parts.membership.leave(worker_id))
        self._observer.life.daemon_stopped(monotonic() - began, handed_back)

    async def _let_end(self) -> int:
        """Wait for running jobs up to the deadline, then cancel them; how many rows went back."""
        runner = self._parts.runner
        idle = asyncio.get_running_loop().create_task(runner.wait_idle())
        handed_back = 0
        if not await self._stop.unless_forced(self._reload.config.daemon.drain_timeout, idle, grace_s=0.0):
            handed_back = runner.cancel("drain")
            if not await self._stop.unless_forced(STOP_S, idle):
                self.stubborn = runner.abandon()
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

    async def _last_words(self) -> None:
        """What is known in memory alone, and is no great loss."""
        for name, write in (("tallies", self._parts.keeper.flush), ("endpoints", self._parts.endpoint_watch.flush)):
            try:
                await write()
            except AWAY as error:
                self._observer.keeper_failed(name, error)

    # --- what others ask --------------------------------------------------------------------------------------------

    def _ready_checks(self) -> dict[str, Callable[[], str | None]]:
        def unless_starting(trouble: Callable[[], str | None]) -> Callable[[], str | None]:
            return lambda: None if self._starting is not None else trouble()

        return {
            "daemon": lambda: self._starting,
            "database": unless_starting(lambda: self._parts.database_trouble()),
            "listener": unless_starting(lambda: self._parts.listener.trouble),
        }

    def _live_checks(self) -> dict[str, Callable[[], str | None]]:
        return {"loops": lambda: ", ".join(self._watchdog.stalled()) or None}

    def _parked(self) -> dict[str, str]:
        """Jobs of the config that wait for their tables; the daemon is ready all the same."""
        return {} if self._starting is not None else self._parts.parking.parked

    def _stalled(self, parts: tuple[str, ...]) -> None:
        if parts:
            self._observer.keeper_failed("watchdog", RuntimeError(f"stalled: {', '.join(parts)}"))

    def _apply(self, setup: Setup) -> None:
        self._parts.apply(setup)

    async def _wait_for_current(self) -> None:
        await self._parts.runner.wait_for_current()
