"""Real `jobsd serve` processes for tests: start, signal, kill, wait for what they say, read what their handlers did."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

import asyncpg

from daemon.log import Logger
from daemon.observe import Observer
from tests.life.nursery import born

Row = dict[str, Any]
T = TypeVar("T")

LONG = os.environ.get("JOBSD_LONG") == "1"
"""Run the tests at the size they are meant for, instead of one that fits into a coffee break's fraction."""

PATIENCE_S = 180.0
"""The end of every wait: no promise, only so that a test that hangs fails.  A busy machine must not reach it."""

SLACK = 1.0 if LONG else 15.0
"""Where a promise is a duration, what the default run allows instead: the machine may be slow, and busy with something
else.  What takes a minute still shows; the long run, and the benchmarks, hold the promise itself."""

ROOT = Path(__file__).parents[2]


async def until(true: Callable[[], Any], what: Callable[[], str], *, within_s: float = PATIENCE_S) -> Any:
    """The first truthy answer of `true`, which may be a coroutine function; fails after `within_s`.  `what` says then
    what was waited for."""
    deadline, pause_s = monotonic() + within_s, 0.01
    while True:
        answer = true()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert monotonic() < deadline, f"not within {within_s:g} s: {what()}"
        await asyncio.sleep(pause_s)
        pause_s = min(1.15 * pause_s, 0.08)  # whoever is waited for needs the machine, too


async def until_sql(pool: asyncpg.Pool, query: str, *args: Any, within_s: float = PATIENCE_S) -> Any:
    """Wait until the query's first value is true."""
    return await until(lambda: pool.fetchval(query, *args), lambda: query, within_s=within_s)


@dataclass(frozen=True, slots=True)
class Note:
    """A handler's line in the journal; `at` is CLOCK_MONOTONIC, the same for all processes."""

    id: int
    fence: int
    what: str
    at: float
    by: str
    worker: int
    extra: Any = None


class Lines(Generic[T]):
    """What a process appends to a file, whole lines only.  Each is read once, however often somebody asks, or
    whoever waits for one of thousands would keep a core busy."""

    def __init__(self, path: Path, read: Callable[[bytes], T]) -> None:
        self._path = path
        self._read = read
        self._end = 0
        self._found: list[T] = []

    def all(self) -> list[T]:
        """All that there are by now."""
        with self._path.open("rb") as file:
            file.seek(self._end)
            lines, newline, _ = file.read().rpartition(b"\n")
        self._end += len(lines) + len(newline)
        self._found += [self._read(line) for line in lines.split(b"\n") if line]
        return self._found


class Member:
    """One daemon process, with its log and its config file."""

    def __init__(self, name: str, process: ForkServerProcess, log: Path, errors: Path, config: Path) -> None:
        self.name = name
        self.process = process
        self.config = config
        self._log = log
        self._lines: Lines[Row] = Lines(log, json.loads)
        self._errors = errors

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def errors(self) -> str:
        """Its standard error."""
        return self._errors.read_text(errors="replace")

    def events(self, name: str | None = None) -> list[Row]:
        """What it has logged, whole lines only."""
        return [row for row in self._lines.all() if name is None or row["event"] == name]

    async def ready(self) -> Member:
        await self.said("daemon_ready")
        return self

    async def said(self, name: str, count: int = 1, *, within_s: float = PATIENCE_S) -> list[Row]:
        """Wait until it has logged `name` so often."""

        def often() -> list[Row] | None:
            found = self.events(name)
            if len(found) < count:
                assert self.process.exitcode is None, f"{self.name} ended {self.process.exitcode}: {self.tail()}"
            return found if len(found) >= count else None

        rows: list[Row] = await until(often, lambda: f"{count} × {name}; {self.tail()}", within_s=within_s)
        return rows

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        await until(
            lambda: self.process.exitcode is not None, lambda: f"{self.name} ends; {self.tail()}", within_s=within_s
        )
        assert self.process.exitcode is not None
        return self.process.exitcode

    @property
    def worker_id(self) -> int:
        worker_id: int = self.events("worker_registered")[-1]["worker_id"]
        return worker_id

    async def kill(self) -> None:
        self.process.kill()
        await self.ended()

    async def perish(self, pool: asyncpg.Pool) -> None:
        """Be killed, and its lease with it."""
        await self.kill()
        await self.lapse(pool)

    async def lapse(self, pool: asyncpg.Pool) -> None:
        """End its lease now, so that a test need not wait for that."""
        await pool.execute("update job_workers set lease_until = now() where id = $1", self.worker_id)

    async def stop(self, within_s: float = PATIENCE_S) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(within_s)

    def tail(self, lines: int = 15) -> str:
        last = self._log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"{self.name}: {self.errors[-2000:]}", *last])


class Fleet:
    """Daemons on one database.  Whatever still runs at the end is killed."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.journal = folder / "journal"
        self.journal.touch()
        self._notes = Lines(self.journal, lambda line: Note(**json.loads(line)))
        self.members: list[Member] = []
        self.faults_expected = False
        """Set by a test that breaks a daemon on purpose: a dead loop or a traceback is then no failure of the test."""

    def spawn(self, name: str = "a", config: str = "", *, dsn: str | None = None, **env: str) -> Member:
        """Start a daemon and do not wait for it.  `config` is its file; env var names are given without `JOBSD_`."""
        stem = f"{name}-{len(self.members)}"
        file, log, errors = (self.folder / (stem + suffix) for suffix in (".toml", ".log", ".err"))
        file.write_text(config)
        settings = {
            "DATABASE_URL": dsn or self.dsn,
            "JOBSD_DAEMON__HANDLERS": "tests.life.kinds",
            "JOBSD_DAEMON__NAME": name,
            "JOBSD_LOG__FORMAT": "json",
            "JOBSD_TEST_JOURNAL": str(self.journal),
            "PYTHONPATH": str(ROOT),
            **{f"JOBSD_{key}": value for key, value in {"ADMIN__LISTEN": "", "DAEMON__LEASE": "60s", **env}.items()},
        }
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("JOBSD_", "DATABASE_"))}
        log.touch()
        errors.touch()
        process = born(["serve", "-c", str(file)], {**clean, **settings}, ROOT, log, errors)
        member = Member(name, process, log, errors, file)
        self.members.append(member)
        return member

    async def start(self, name: str = "a", config: str = "", *, dsn: str | None = None, **env: str) -> Member:
        """Start a daemon and wait until it takes rows."""
        return await self.spawn(name, config, dsn=dsn, **env).ready()

    def notes(self, what: str | None = None) -> list[Note]:
        """What the handlers wrote down, in the order in which they did."""
        return [note for note in self._notes.all() if what is None or note.what == what]

    async def noted(self, what: str, count: int = 1, *, within_s: float = PATIENCE_S) -> list[Note]:
        """Wait until the handlers have written down `what` so often."""

        def often() -> list[Note] | None:
            found = self.notes(what)
            return found if len(found) >= count else None

        notes: list[Note] = await until(
            often, lambda: f"{count} × {what}; {[member.tail() for member in self.members]}", within_s=within_s
        )
        return notes

    def sabotage(self, now: bool) -> None:
        """Tell tests.life.saboteur when."""
        sign = self.journal.with_suffix(".sabotage")
        if now:
            sign.touch()
        else:
            sign.unlink()

    def close(self) -> None:
        for member in self.members:
            if member.process.exitcode is None:
                member.process.kill()
                member.process.join()

    def blame(self) -> list[str]:
        """Dead loops and tracebacks: no daemon should have any, whatever was done to it."""
        if self.faults_expected:
            return []
        died = [f"{m.name}: {row}" for m in self.members for row in m.events("task_died")]
        return died + [f"{m.name}: {m.errors[-3000:]}" for m in self.members if "Traceback" in m.errors]


@asynccontextmanager
async def fleet_on(dsn: str, folder: Path) -> AsyncIterator[Fleet]:
    """No daemon outlives the test; what went wrong inside one fails it."""
    fleet = Fleet(dsn, folder)
    try:
        yield fleet
    finally:
        fleet.close()
    assert not fleet.blame(), "\n".join(fleet.blame())


@contextmanager
def observer_to(path: Path) -> Iterator[Observer]:
    """For parts of the daemon that are run in the test's own process."""
    with path.open("w") as file:
        logger = Logger(file)
        try:
            yield Observer(logger)
        finally:
            logger.close()


# --- rows -----------------------------------------------------------------------------------------------------------


async def insert(
    pool: asyncpg.Pool | asyncpg.Connection, kind: str, count: int = 1, args: Any = None, **columns: Any
) -> list[int]:
    """`count` rows alike, in one statement, so with one hint; their ids."""
    names = ", ".join(["kind", "args", *columns])
    values = ", ".join(["$1", "$2::text::jsonb", *(f"${n}" for n in range(4, 4 + len(columns)))])
    rows = await pool.fetch(
        f"insert into jobs ({names}) select {values} from generate_series(1, $3) returning id",
        kind,
        json.dumps(args or {}),
        count,
        *columns.values(),
    )
    return [row[0] for row in rows]


async def empty(pool: asyncpg.Pool, *, within_s: float = PATIENCE_S) -> None:
    """Wait until no live row is left."""

    async def gone() -> bool:
        return not await pool.fetchval("select exists (select from jobs)")

    await until(gone, lambda: "jobs is empty", within_s=within_s)


async def ended(pool: asyncpg.Pool, ids: Sequence[int], *, within_s: float = PATIENCE_S) -> list[asyncpg.Record]:
    """Wait until these rows have ended; their history, by id."""

    async def all_there() -> list[asyncpg.Record] | None:
        rows = await pool.fetch("select * from job_history where id = any ($1::bigint[]) order by id", list(ids))
        return rows if len(rows) >= len(ids) else None

    rows: list[asyncpg.Record] = await until(all_there, lambda: f"{len(ids)} rows end", within_s=within_s)
    return rows


async def each_ended_once(pool: asyncpg.Pool, ids: Sequence[int]) -> None:
    """Nothing lost, nothing stuck, nothing twice."""
    assert await pool.fetchval("select count(*) from jobs where id = any ($1::bigint[])", list(ids)) == 0
    ends = await pool.fetchrow(
        "select count(*) as rows, count(distinct id) as ids from job_history where id = any ($1::bigint[])", list(ids)
    )
    assert ends is not None
    assert (ends["rows"], ends["ids"]) == (len(ids), len(ids))
