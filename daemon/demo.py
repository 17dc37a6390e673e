"""`jobsd demo`: the real daemon on a database of its own, with receivers and rows to watch it by."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import uvloop

from daemon.config import Config, load
from daemon.demo_daemon import Announcer, WatchedDaemon
from daemon.demo_guest import Guest
from daemon.demo_home import Home
from daemon.demo_news import news
from daemon.demo_screen import Screen, clock_text
from daemon.demo_sinks import Sinks
from daemon.embedded import Embedded
from daemon.exits import FAILED, INTERNAL, OK, UNAVAILABLE, Exit
from daemon.log import Logger, hear_libraries
from daemon.migrate import SchemaError, migrate
from daemon.pginstall import EmbeddedError
from daemon.settle import Transition
from daemon.statements import AWAY

DEADLINE_S = 60.0
"""The sample rows need eight seconds, the events as much; most of it is waiting for retries."""


@dataclass(frozen=True, slots=True)
class Visit:
    """How long the guest stays: with `once`, until every sample row is as it must be and the events are told of, or
    either has taken `deadline_s`; else until Ctrl-C, with `trickles` adding rows."""

    once: bool
    trickles: bool
    deadline_s: float


def run_demo(
    state_dir: Path | None = None, *, once: bool = False, trickles: bool = True, deadline_s: float = DEADLINE_S
) -> int:
    """Run in `state_dir` (./var/demo if None) as Visit says; the exit code, 1 when `deadline_s` was not enough.

    Exit, with a message for people, when it cannot start.
    """
    home = Home(state_dir)
    with home.log.open("wb") as log:
        logger = Logger(log)
        try:
            return uvloop.run(_run(home, logger, Visit(once, trickles, deadline_s)))
        except (SchemaError, EmbeddedError) as error:
            first, *rest = str(error).splitlines()
            said = f"{first} {rest[-1]}" if rest else first  # the end of PostgreSQL's own log
            raise Exit(UNAVAILABLE, f"{said}\nto begin anew, without the old rows: rm -r {home.database}") from error
        except AWAY as error:
            raise Exit(UNAVAILABLE, f"the demo ended: {error}; its log: {home.log}") from error
        finally:
            logger.close()
            home.release()


async def _run(home: Home, logger: Logger, visit: Visit) -> int:
    async with Sinks(home.secret(), home.mail, home.dkim()) as sinks:
        demo = Demo(home, logger, sinks)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, demo.stop)
        loop.add_signal_handler(signal.SIGHUP, demo.reload)
        try:
            return await demo.run(visit)
        finally:
            demo.screen.close()


class Demo:
    """One run: the daemon, the guest who visits it, and the screen that says what goes on."""

    def __init__(self, home: Home, logger: Logger, sinks: Sinks) -> None:
        loop = asyncio.get_running_loop()
        self._home = home
        self._sinks = sinks
        self._began = monotonic()
        self.screen = Screen(sys.stdout, lambda: loop.call_soon_threadsafe(self.stop))
        self._observer = Announcer(logger, self.screen.show)
        hear_libraries(self._observer.life)
        self._daemon: WatchedDaemon | None = None
        self._visit: asyncio.Task[None] | None = None
        self._ended: Counter[str] = Counter()
        self._verdict = OK
        self._is_stopping = False

    async def run(self, visit: Visit) -> int:
        """Until the visit is over or `stop` is called; the exit code."""
        self.screen.say(f"jobsd demo: PostgreSQL 18 starts in {self._home.folder}", "quiet")
        code = OK
        try:
            await make_database(self._home.database)
            if not self._is_stopping:
                code = await self._serve(visit)
        except EmbeddedError:
            if not self._is_stopping:  # Ctrl-C in the midst of initdb ends that too
                raise
        if code != OK:
            self.screen.say(f"the daemon ended by itself; its log says why: {self._home.log}", "bad")
            return INTERNAL
        self.screen.say(f"stopped: {self._tally()}; the data stays in {self._home.folder}")
        return self._verdict

    def stop(self) -> None:
        """Let running jobs end; the second call does not wait for them."""
        if not self._is_stopping:
            self.screen.say("stopping: running jobs end first; once more, and they are cut short", "quiet")
            self._end()
        elif self._daemon is not None:
            self._daemon.stop()

    def reload(self) -> None:
        """Read demo.toml again."""
        if self._daemon is not None:
            self._daemon.reload()

    async def _serve(self, visit: Visit) -> int:
        ports = self._sinks.ports()
        self._home.write_settings(ports)
        config = self._load()
        self._observer.configure(config.log.level, config.log.format, config.log.started)
        guest = Guest(self._home, ports, self.screen, config, self._sinks)
        self._daemon = WatchedDaemon(
            config, self._load, self._observer, lambda batch, _ours: self._written(batch, guest)
        )
        self._visit = asyncio.get_running_loop().create_task(self._receive(guest, visit, self._daemon.ready))
        self._visit.add_done_callback(lambda _: self._end())
        try:
            code = await self._daemon.run()
        finally:
            self._visit.cancel()
            await asyncio.wait({self._visit})
        if not self._visit.cancelled():
            self._visit.result()
        return code

    async def _receive(self, guest: Guest, visit: Visit, ready: asyncio.Event) -> None:
        await ready.wait()
        self.screen.say(f"ready after {monotonic() - self._began:.1f} s")
        if not visit.once:
            await guest.stay(self._status, trickles=visit.trickles)
        elif not await guest.wait(visit.deadline_s):
            self._verdict = FAILED

    def _end(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            if self._visit is not None:
                self._visit.cancel()
            if self._daemon is not None:
                self._daemon.stop()

    def _load(self) -> Config:
        """Nothing from the environment: whatever DATABASE_URL says here, it is not meant for a demo."""
        return load(self._home.settings, env={})

    def _written(self, batch: Sequence[Transition], guest: Guest) -> None:
        for transition in batch:
            self._ended[transition.outcome] += 1
            if transition.job.kind == "dns_check":
                self._sinks.dns.checked(transition.job.args_json)
            if transition.job.lane in guest.muted:
                continue
            line = news(transition, guest.shows.get(transition.job.id, ""))
            if line is not None:
                guest.shows.pop(transition.job.id, None)  # said once
                self.screen.show(line)

    def _status(self) -> str:
        return f"{clock_text(monotonic() - self._began)}  {self._tally()}"

    def _tally(self) -> str:
        ended = self._ended
        return f"{ended['done']} done, {ended['retry']} retried, {ended['dead']} dead"


async def make_database(folder: Path) -> None:
    """The first time, make the database without waiting for the disk: 0.8 s instead of 4.3 on a busy one (measured);
    there is nothing in it yet.  Once it is there, commits are as durable as everywhere."""
    if (folder / "data" / "PG_VERSION").exists():
        return
    server = Embedded(folder, settings={"fsync": "off"})
    try:
        await migrate(await server.start(), roles=True)
    finally:
        await server.stop()
