"""A queue for one test: a database of its own, a clock that stands, the real engine, and faults on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any

import asyncpg
import msgspec

import sql
from jobs.registry import AnyHandler
from jobs.storage.storage import Storage
from jobs.testing import clock
from jobs.testing.calls import At, Calls, Crash, Fail, Twice
from jobs.testing.clock import Clock
from jobs.testing.dns import FakeDns
from jobs.testing.engine import Plan, find_engine
from jobs.testing.expect import Expect
from jobs.testing.http import FakeHttp
from jobs.testing.idempotency import Idempotency, Trial, check
from jobs.testing.mail import FakeMail
from jobs.testing.ran import Drained, Ran
from jobs.testing.server import Database, Schema, Server, server
from jobs.testing.tools import Tools
from jobs.values import duration

_SQL = sql.load("testing.sql")
JOBS_MAX = 1000
STEPS_MAX = 10_000
CONNECTIONS = 10
LIMIT_STEP_S = 1.0
"""How far the clock goes when a limit holds a row back and does not say for how long."""


class NotEnqueued(Exception):
    """A row with this unique_key or idempotency_key is there already, so no other was added."""


class StillBusy(AssertionError):
    """More ran than a drain is allowed, and there is no end in sight: most likely a job that enqueues itself."""


class Queue(Expect):
    """What `queue()` gives.  `pool` and `dsn` are for statements of the test's own, `http`, `mail` and `dns` are what
    handlers talked to."""

    def __init__(
        self, server: Server, database: Database, pool: asyncpg.Pool, now: datetime, plan: Plan, tools: Tools
    ) -> None:
        super().__init__(pool)
        self.pool = pool
        self.dsn = database.dsn
        self.clock = Clock(pool, now)
        self._server = server
        self._database = database
        self._plan = plan
        self._tools = tools
        self._calls = Calls(tools.cut_off)
        self._worker = plan.worker(pool, tools.ready, self._calls)

    @property
    def storage(self) -> Storage:
        """Where handlers keep files: a folder of this test's own."""
        return self._tools.storage

    @property
    def http(self) -> FakeHttp:
        return self._tools.fake_http

    @property
    def mail(self) -> FakeMail:
        return self._tools.fake_mail

    @property
    def dns(self) -> FakeDns:
        return self._tools.fake_dns

    # --- rows ---------------------------------------------------------------------------------------------------------

    async def enqueue(
        self, kind: str, args: Any = None, *, run_at: datetime | str | timedelta | None = None, **columns: Any
    ) -> int:
        """Insert a row as any producer does; its id.  `run_at` may be a time from now ("1h").  NotEnqueued when one of
        its keys is taken."""
        given = {"kind": kind, "args": msgspec.json.encode({} if args is None else args).decode(), **columns}
        if run_at is not None:
            given["run_at"] = run_at if isinstance(run_at, datetime) else self.clock.now + _later(run_at)
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in given)
        places = ", ".join(f"${n}::text::jsonb" if name == "args" else f"${n}" for n, name in enumerate(given, 1))
        statement = f"insert into jobs ({names}) values ({places}) on conflict do nothing returning id"  # noqa: S608
        job_id: int | None = await self.pool.fetchval(statement, *given.values())
        if job_id is None:
            raise NotEnqueued(f"a {kind!r} with one of the keys {columns} is there already")
        return job_id

    # --- running ------------------------------------------------------------------------------------------------------

    async def drain(
        self,
        *,
        max_jobs: int | None = None,
        until: Callable[[Ran], bool] | None = None,
        raise_errors: bool = False,
    ) -> Drained:
        """Run what is due now, and what becomes due by that; not what is due later.

        `max_jobs`: stop after so many attempts.  `until`: stop after the attempt of which it is true.  `raise_errors`:
        stop at the first handler that raises anything but an outcome, and raise that here.
        """
        most = JOBS_MAX if max_jobs is None else max_jobs
        if most <= 0:
            return Drained()
        count, faults = 0, list[BaseException]()

        def stop(ran: Ran) -> bool:
            nonlocal count
            count += 1
            if raise_errors and ran.error is not None:
                faults.append(ran.error)
            try:
                wanted = until is not None and until(ran)
            except Exception as error:  # the test's own; it is not the engine's to deal with
                faults.append(error)
            return count >= most or bool(faults) or wanted

        done = Drained(await self._worker.drain(stop))
        if faults:
            raise faults[0]
        if max_jobs is None and len(done) >= most:
            raise StillBusy(_too_many(most, done))
        return done

    async def drain_all(
        self, *, within: str | float | timedelta | None = None, max_jobs: int = JOBS_MAX, raise_errors: bool = False
    ) -> Drained:
        """Drain, move the clock to the next time at which something is due, and again, until nothing waits that time
        alone can bring on.  `within`: so far and no further; then the clock stands at that time."""
        end = None if within is None else self.clock.now + _later(within)
        done: list[Ran] = []
        for _ in range(STEPS_MAX):
            done += await self.drain(max_jobs=max_jobs - len(done), raise_errors=raise_errors)
            if len(done) >= max_jobs:
                raise StillBusy(_too_many(max_jobs, done))
            due = await self._next_due()
            if due is None or (end is not None and due > end):
                break
            await self.clock.travel(due)
        else:
            raise StillBusy(f"the clock was moved {STEPS_MAX:,} times, and there is still something due later")
        if end is not None:
            await self.clock.travel(max(end, self.clock.now))
        return Drained(done)

    async def _next_due(self) -> datetime | None:
        due: datetime | None = await self.pool.fetchval(_SQL["next_due"])
        if await self.pool.fetchval(_SQL["held_by_limit"]):
            step = self.clock.now + timedelta(seconds=max(self._worker.waits_s or LIMIT_STEP_S, 0.001))
            due = step if due is None else min(due, step)
        return due

    # --- faults -------------------------------------------------------------------------------------------------------

    def fail(self, kind: str, with_: BaseException | type[BaseException] = RuntimeError, *, times: int = 1) -> None:
        """The next calls of this kind's handler are not made: `with_` is raised in their place, an exception or an
        outcome like Retry("…")."""
        self._calls.spoil(kind, Fail(with_), times)

    def crash_next(self, kind: str, *, at: At = "end", times: int = 1) -> None:
        """The worker dies under the next job of this kind: at the "start" of the handler, in its n-th pause (1 is the
        first `await` that gives way), or at its "end", when the work is done and nothing of it written down.  Its rows
        are rescued, the crash is counted, and another worker goes on."""
        self._calls.spoil(kind, Crash(at), times)

    def duplicate(self, kind: str, *, at: int | None = None, times: int = 1) -> None:
        """The next job of this kind runs twice, as at-least-once may: one call after the other, or the second from
        beginning to end while the first stands still in its n-th pause.  What the first comes to is lost."""
        self._calls.spoil(kind, Twice(at), times)

    def lose_answer(self) -> None:
        """The next commit of results is made, but its answer does not arrive: the engine writes it again."""
        self._worker.lose_answer()

    async def check_idempotent(
        self,
        kind: str,
        args: Any = None,
        *,
        state: Callable[[], Awaitable[Any]],
        points: int = 25,
        **columns: Any,
    ) -> Idempotency:
        """Run a job of this kind once; then from the same beginning twice, and killed at its start and its end; and in
        each of its first `points` pauses killed, and overtaken by a second run.  AssertionError where `state` is not
        what it is after one quiet run.  In the end the database is as it was; whoever is connected to it is cut off."""
        return await check(Trial(self, kind, args, columns, state), points)

    # --- for check_idempotent -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def beginning(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """A call that makes the database, the clock and the fakes what they are now."""
        now = self.clock.now
        self._tools.cut_off()
        copy = await self._server.copy(self._database)

        async def again() -> None:
            self._tools.cut_off()
            await self.pool.expire_connections()
            await self._server.put_back(self._database, copy)
            self.clock.now = now
            self._calls.unspoil()
            self._tools.clear()

        try:
            yield again
        finally:
            await again()
            await self._server.drop(copy)

    @property
    def pause_reached(self) -> bool:
        """Whether the last fault in a pause came in one that there is."""
        return self._calls.reached


Module = str | ModuleType | AnyHandler


@asynccontextmanager
async def queue(
    *,
    handlers: Sequence[Module] | None = None,
    schema: Schema = None,
    config: Mapping[str, Any] | str = "",
    tools: Mapping[str, Any] | None = None,
    start: datetime | None = None,
    concurrency: int = 1,
    dsn: str | None = None,
) -> AsyncIterator[Queue]:
    """A queue in a database of its own, gone afterwards.

    `handlers`: modules, by name or themselves, or functions; only their kinds are served.  None: every kind that is
    registered.  `schema`: the tables of your own (SQL, a Path, or a function that is given a DSN), made once for all
    tests.  `config`: TOML, or settings by dotted path.  `tools`: http, mail, dns or secrets in place of the fakes.
    `start`: what the clock shows.  `concurrency`: jobs at once; one makes the order that of the queue.  `dsn`: a server
    to make databases on; without it PostgreSQL out of the wheel, started at the first use.
    """
    plan = find_engine().plan(config, None if handlers is None else [_handler(h) for h in handlers], concurrency)
    place = server(dsn)
    database = await place.clone(schema)
    try:
        now = await clock.still(database.dsn, start)
        made = Tools(database.dsn, plan.wanted, tools or {})
        pool = await asyncpg.create_pool(database.dsn, min_size=0, max_size=CONNECTIONS)
        try:
            yield Queue(place, database, pool, now, plan, made)
        finally:
            await made.close()
            pool.terminate()
    finally:
        await place.drop(database)


def _handler(given: Module) -> str | AnyHandler:
    return given.__name__ if isinstance(given, ModuleType) else given


def _later(by: str | float | timedelta) -> timedelta:
    return timedelta(seconds=duration(by))


def _too_many(most: int, done: Sequence[Ran]) -> str:
    return f"{most:,} attempts were made; give max_jobs if that is right.  The last:\n{Drained(done[-5:])}"
