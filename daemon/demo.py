"""`jobsd demo`: the real daemon on a database of its own, with receivers and rows to watch it by."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import asyncpg
import uvloop

import sql
from daemon.config import Config, load
from daemon.database import Database
from daemon.demo_daemon import Announcer, WatchedDaemon
from daemon.demo_hints import hints
from daemon.demo_home import Home, program_folder
from daemon.demo_news import news
from daemon.demo_rows import SAMPLES, Sample, difference, script, trickle
from daemon.demo_screen import Foot, Screen, clock_text
from daemon.demo_sinks import HOST, Ports, Sinks
from daemon.embedded import DATABASE, PORT, SUPERUSER, Embedded
from daemon.exits import FAILED, INTERNAL, OK, UNAVAILABLE, Exit
from daemon.log import Logger, hear_libraries
from daemon.migrate import SchemaError
from daemon.pginstall import EmbeddedError, wheel_bin_dir
from daemon.settle import Transition
from daemon.store import AWAY

DEADLINE_S = 60.0
"""With `once`: the sample rows need eight seconds, most of it waiting for retries."""

TRICKLE_S = 5.0
BACKLOG_MAX = 100
"""With so many unfinished rows nothing is added: somebody has paused a queue."""

LOOK_S = 0.2

_SQL = sql.load("demo.sql")


def run_demo(
    state_dir: Path | None = None, *, once: bool = False, trickles: bool = True, deadline_s: float = DEADLINE_S
) -> int:
    """Run until Ctrl-C or SIGTERM; the exit code.

    `once`: end as soon as every sample row is as it must be, 0, or after `deadline_s`, 1.  Exit, with a message for
    people, when it cannot start.
    """
    home = Home(state_dir)
    with home.log.open("wb") as log:
        logger = Logger(log)
        try:
            return uvloop.run(_run(home, logger, once, trickles, deadline_s))
        except (SchemaError, EmbeddedError) as error:
            first, *rest = str(error).splitlines()
            said = f"{first} {rest[-1]}" if rest else first  # the end of PostgreSQL's own log
            raise Exit(UNAVAILABLE, f"{said}\nto begin anew, without the old rows: rm -r {home.database}") from error
        except AWAY as error:
            raise Exit(UNAVAILABLE, f"the demo ended: {error}; its log: {home.log}") from error
        finally:
            logger.close()
            home.release()


async def _run(home: Home, logger: Logger, once: bool, trickles: bool, deadline_s: float) -> int:
    began = monotonic()
    async with Sinks(home.secret(), home.mail) as sinks:
        home.write_settings(sinks.ports)
        demo = _Demo(home, logger, sinks)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, demo.stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, demo.daemon.reload)
        try:
            return await demo.run(began, once, trickles, deadline_s)
        finally:
            demo.screen.close()


class _Demo:
    """One run: the daemon, and a guest that inserts rows and says what becomes of them."""

    def __init__(self, home: Home, logger: Logger, sinks: Sinks) -> None:
        loop = asyncio.get_running_loop()
        self._home = home
        self._sinks = sinks
        self.screen = Screen(sys.stdout, lambda: loop.call_soon_threadsafe(self.stop))
        observer = Announcer(logger, self.screen.show)
        self._config = self._load()
        observer.configure(self._config.log.level, self._config.log.format, self._config.log.started)
        hear_libraries(observer)
        self.daemon = WatchedDaemon(self._config, self._load, observer, self._written)
        self._shows: dict[int, str] = {}
        self._ended: Counter[str] = Counter()
        self._verdict = OK
        self._is_stopping = False

    async def run(self, began: float, once: bool, trickles: bool, deadline_s: float) -> int:
        self._began = began
        self.screen.say(f"jobsd demo: PostgreSQL 18 starts in {self._home.folder}", "quiet")
        self._visit = asyncio.get_running_loop().create_task(self._visit_daemon(once, trickles, deadline_s))
        self._visit.add_done_callback(lambda _: self._end())
        code = await self.daemon.run()
        self._visit.cancel()
        await asyncio.wait({self._visit})
        if not self._visit.cancelled() and (fault := self._visit.exception()) is not None:
            raise fault
        if code != OK:
            self.screen.say(f"the daemon ended by itself; its log says why: {self._home.log}", "bad")
            return INTERNAL
        self.screen.say(f"stopped: {self._tally()}; the data stays in {self._home.folder}")
        return self._verdict

    def stop(self) -> None:
        """Let running jobs end; the second call does not wait for them."""
        if self._is_stopping:
            self.daemon.stop()
            return
        self.screen.say("stopping: running jobs end first; once more, and they are cut short", "quiet")
        self._end()

    def _end(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._visit.cancel()
            self.daemon.stop()

    def _load(self) -> Config:
        """Nothing from the environment: whatever DATABASE_URL says here, it is not meant for a demo."""
        return load(self._home.settings, env={})

    def _written(self, batch: Sequence[Transition]) -> None:
        for transition in batch:
            self._ended[transition.outcome] += 1
            line = news(transition, self._shows.get(transition.job.id, ""))
            if line is not None:
                self._shows.pop(transition.job.id, None)  # said once
                self.screen.show(line)

    # --- the guest --------------------------------------------------------------------------------------------------

    async def _visit_daemon(self, once: bool, trickles: bool, deadline_s: float) -> None:
        await self.daemon.ready.wait()
        server = Embedded(self._config.daemon.postgres_folder)  # the daemon owns it; this only finds it
        dsn = await server.start()
        try:
            async with await Database(dsn, self._config.database).handler_pool() as pool:
                self._introduce(server)
                samples = await self._insert(pool)
                if once:
                    await self._watch(pool, samples, deadline_s)
                else:
                    await self._stay(pool, samples, trickles)
        finally:
            await server.stop()

    def _introduce(self, server: Embedded) -> None:
        home, ports = self._home, self._sinks.ports
        home.write_env(server.socket_folder, PORT, SUPERUSER, DATABASE, program_folder(), wheel_bin_dir(server.version))
        self.screen.say(f"ready after {monotonic() - self._began:.1f} s; log {home.log}, settings {home.settings}")
        self.screen.say(
            f"receivers on {HOST}: webhook {ports.webhook}, mail {ports.mail} (kept in {home.mail}), dns {ports.dns}; "
            f"metrics {ports.admin}"
        )

    async def _insert(self, pool: asyncpg.Pool) -> dict[int, Sample]:
        """All sample rows in one transaction; by id."""
        samples = [sample.at(_receiver(self._sinks.ports)) for sample in SAMPLES]
        self._home.rows.write_text(script(samples))
        self.screen.say(f"\n{len(samples)} rows go in, all of them in {self._home.rows}; the first one:")
        self.screen.say("\n".join(f"  {line}" for line in samples[0].statement.splitlines()) + "\n", "quiet")
        found = {}
        async with pool.acquire() as conn, conn.transaction():
            for sample in samples:
                found[await conn.fetchval(f"{sample.statement.removesuffix(';')} returning id")] = sample
            self._shows = {job_id: sample.shows for job_id, sample in found.items()}
        return found

    async def _watch(self, pool: asyncpg.Pool, samples: dict[int, Sample], deadline_s: float) -> None:
        """Until every sample is as it must be, or the time is over."""
        deadline = monotonic() + deadline_s
        while True:
            rows = {row["id"]: dict(row) for row in await pool.fetch(_SQL["standing"], list(samples))}
            wrong = {job_id: difference(sample, rows.get(job_id)) for job_id, sample in samples.items()}
            wrong = {job_id: text for job_id, text in wrong.items() if text}
            if not wrong:
                self.screen.say(f"all {len(samples)} rows are as they must be")
                return
            if monotonic() >= deadline:
                break
            await asyncio.sleep(LOOK_S)
        for job_id, text in wrong.items():
            self.screen.say(f"row {job_id} ({samples[job_id].shows}) {text}", "bad")
        self._verdict = FAILED

    async def _stay(self, pool: asyncpg.Pool, samples: dict[int, Sample], trickles: bool) -> None:
        """Add a row now and then, until stopped."""
        waiting = next(job_id for job_id, sample in samples.items() if sample.state == "ready")
        told = hints(self._home.env, self._sinks.ports, waiting, has_curl=shutil.which("curl") is not None)
        if not self.screen.lives:
            self.screen.say("\n".join(("", *told, "Ctrl-C stops everything.", "")))
        statements = trickle(_receiver(self._sinks.ports))
        next_at = monotonic() + 2 * TRICKLE_S
        while True:
            self.screen.foot(
                Foot(f"{clock_text(monotonic() - self._began)}  {self._tally()}  ·  Ctrl-C stops everything", told)
            )
            await asyncio.sleep(1.0)
            if not trickles or monotonic() < next_at:
                continue
            next_at = monotonic() + TRICKLE_S
            with suppress(*AWAY):  # the screen says so already
                if await pool.fetchval(_SQL["backlog"], BACKLOG_MAX) < BACKLOG_MAX:
                    await pool.execute(next(statements))

    def _tally(self) -> str:
        ended = self._ended
        return f"{ended['done']} done, {ended['retry']} retried, {ended['dead']} dead"


def _receiver(ports: Ports) -> str:
    return f"http://{HOST}:{ports.webhook}"
