"""One job of a config, run again and again in this process as `jobsd run` runs it, and what each run took.

`python -m benchmarks.catalogue_run CONFIG SERVER_PID NOT_COUNTED_PID JOB...`: JSON lines, one when a run begins and one
when it has ended.  A process of its own, so that its memory is the runs' own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import asyncpg
import uvloop

from benchmarks.lab import TICKS_PER_SECOND
from daemon.config import Config, load
from daemon.database import Database
from daemon.handlers import load_kinds
from daemon.log import Logger
from daemon.observe import Observer
from daemon.one_shot import OneShot
from daemon.operator_store import NewRow
from jobs.context import Context
from jobs.registry import Kind

RUNS = ("first", "again", "idle")
"""With work to do; at once after that; and after a vacuum, as on any other day."""
READ_ONLY = "READ ONLY"


@dataclass(slots=True)
class Watch:
    """Transactions of the handler's connections, as its process sees them, in milliseconds; `longest_read_ms`: of those
    that read a snapshot and lock nothing."""

    transactions: int = 0
    longest_ms: float = 0.0
    longest_read_ms: float = 0.0
    backends: list[int] = field(default_factory=list)

    async def begin(self, conn: Any) -> None:
        self.backends.append(conn.get_server_pid())
        conn.add_query_logger(_Connection(self).hear)

    def took(self, seconds: float, *, reads: bool) -> None:
        self.transactions += 1
        if reads:
            self.longest_read_ms = max(self.longest_read_ms, seconds * 1000)
        else:
            self.longest_ms = max(self.longest_ms, seconds * 1000)


class _Connection:
    """Tells where a transaction of one connection begins and ends."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._began: float | None = None
        self._reads = False

    def hear(self, record: Any) -> None:
        text, now = record.query.lstrip()[:80].upper(), monotonic()
        if text.startswith("BEGIN"):
            self._began, self._reads = now - record.elapsed, READ_ONLY in text
        elif self._began is None:
            self._watch.took(record.elapsed, reads=False)
        elif text.startswith(("COMMIT", "ROLLBACK;")):
            self._watch.took(now - self._began, reads=self._reads)
            self._began = None


@dataclass(frozen=True, slots=True)
class Took:
    """What one run took: its handler alone, since a daemon is there already.  `grown_mib`: how much more this process
    ever had than when the run began; `server_mib`: what its connection has that is not shared memory."""

    ends: str
    run: str
    said: Any
    seconds: float
    daemon_cpu_s: float
    server_cpu_s: float
    transactions: int
    longest_ms: float
    longest_read_ms: float
    grown_mib: float
    server_mib: float


class Measured:
    """A handler with a look at the clocks before and after it."""

    def __init__(self, kind: Kind, run: str, server: Server, watch: Watch) -> None:
        self._kind, self._run, self._server, self._watch = kind, run, server, watch
        self.took: Took | None = None

    @property
    def kind(self) -> Kind:
        return replace(self._kind, handler=self._handler)

    async def _handler(self, args: Any, ctx: Context) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # noqa: ASYNC240  its high-water mark begins anew
        rss, began, cpu, server_cpu = _status("self", "VmRSS"), monotonic(), process_time(), self._server.cpu_s()
        said = await self._kind.handler(args, ctx)
        seconds, cpu_s, server_cpu_s = monotonic() - began, process_time() - cpu, self._server.cpu_s() - server_cpu
        await asyncio.sleep(0)  # the last statement is heard of
        watch = self._watch
        self.took = Took(
            self._kind.name,
            self._run,
            getattr(said, "result", str(said)),
            seconds,
            cpu_s,
            server_cpu_s,
            watch.transactions,
            watch.longest_ms,
            watch.longest_read_ms,
            _status("self", "VmHWM") - rss,
            max((_status(pid, "RssAnon") for pid in watch.backends), default=0.0),
        )
        return said


@dataclass(frozen=True, slots=True)
class Server:
    """The processes of a PostgreSQL server but for one."""

    pid: int
    without: int

    def cpu_s(self) -> float:
        """Of the living to the nanosecond, of those that have ended in ticks."""
        children = set(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()) - {str(self.without)}
        ended = sum(map(int, Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[13:15]))
        return sum(map(_ran_s, children)) + ended / TICKS_PER_SECOND


def _ran_s(pid: str) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0


def _status(pid: int | str, name: str) -> float:
    """In MiB; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def _tell(said: dict[str, Any]) -> None:
    print(json.dumps(said, default=str), flush=True)


async def run(config: Config, kind: Kind, name: str, server: Server) -> None:
    """One run, as `jobsd run` does it."""
    watch = Watch()
    pool: Any = asyncpg.create_pool

    def watched(*args: Any, **given: Any) -> Any:
        of_handlers = given["server_settings"]["application_name"].endswith(" handlers")
        return pool(*args, **given, **({"init": watch.begin} if of_handlers else {}))

    measured = Measured(kind, name, server, watch)
    logger = Logger(sys.stderr)
    observer = Observer(logger)
    observer.configure("warning", config.log.format, config.log.started)
    _tell({"begins": kind.name, "run": name})
    asyncpg.create_pool = watched
    try:
        database = Database(str(config.database.dsn), config.database)
        ending = await OneShot(config, database, measured.kind, observer).run(
            NewRow(kind=kind.name, args_json="{}", queue=config.jobs[kind.name].queue)
        )
    finally:
        asyncpg.create_pool = pool
        logger.close()
    assert measured.took is not None
    assert ending.transition.state == "done", (kind.name, ending)
    _tell(asdict(measured.took))


async def main(config: Config, server: Server, names: Iterable[str]) -> None:
    kinds = load_kinds(config.daemon.handlers, ("*",), config.jobs)
    for name in names:
        for number in RUNS:
            if number == "idle":
                await _vacuum(str(config.database.dsn))
            await run(config, kinds[name], number, server)


async def _vacuum(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    await conn.execute("vacuum (analyze)")
    await conn.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        path, postmaster, without, *jobs = sys.argv[1:]
        runner.run(main(load(Path(path)), Server(int(postmaster), int(without)), jobs))
