"""Somebody's own tables, and what tests ask about all of them at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import asyncpg

from daemon.config import parse
from daemon.database import Database
from daemon.handlers import load_kinds
from daemon.log import Logger
from daemon.observe import Observer
from daemon.rehearsal import rehearse, unsaved
from jobs.catalogue.kinds import CAREFUL, look
from jobs.catalogue.verb import Work
from jobs.catalogue.verbs import VERBS
from jobs.context import Context
from jobs.model import Outcome
from jobs.testing import Queue, queue
from tests.life.fleet import until

TABLES = """
create schema zoo;
create type zoo.mood as enum ('calm', 'cross');
create table zoo.visits (
    id bigint generated always as identity primary key,
    came_at timestamptz,
    mood zoo.mood not null default 'calm',
    kept boolean not null default false,
    seen_at timestamptz
);
create index on zoo.visits (came_at);
create table zoo."Odd names" (
    "a""b" uuid default gen_random_uuid(), "c d" text not null default '{', "When" date, primary key ("a""b", "c d")
);
create table zoo.heap (n int, at timestamptz);
create view zoo.seen as select * from zoo.visits;
create table zoo.days (day date not null, id int not null, primary key (day, id)) partition by range (day);
create table zoo.days_old partition of zoo.days for values from ('2000-01-01') to ('2020-01-01');
create table zoo.days_new partition of zoo.days for values from ('2020-01-01') to ('2100-01-01');
"""

VISITS = """
[jobs.old_visits]
verb = "purge"
table = "zoo.visits"
age_column = "came_at"
retention = "30d"
batch = 7
pause = "0"
"""


@asynccontextmanager
async def zoo(config: str = VISITS, schema: str = TABLES) -> AsyncIterator[Queue]:
    async with queue(schema=schema, config=config, handlers=[]) as made:
        yield made


async def visit(queue: Queue, days: float, count: int = 1, **columns: Any) -> None:
    """So many rows that came so many days ago."""
    names = "".join(f', "{name}"' for name in columns)
    places = "".join(f", ${n}" for n in range(3, 3 + len(columns)))
    await queue.pool.execute(
        f"insert into zoo.visits (came_at{names}) "
        f"select now() - $1::float8 * interval '1 day' - n * interval '1 s'{places} "
        "from generate_series(1, $2::int) as n",
        days,
        count,
        *columns.values(),
    )


async def whole(pool: asyncpg.Pool) -> dict[str, list[str]]:
    """Every row of every table there is."""
    tables = await pool.fetch(
        "select oid::regclass::text as name from pg_class where relkind = 'r' and relnamespace not in "
        "('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)"
    )
    rows = {}
    for (name,) in tables:
        found = await pool.fetch(f"select to_jsonb(t)::text from {name} as t")
        rows[name] = sorted(row[0] for row in found)
    return rows


async def rehearsed(queue: Queue, config: str, name: str, args: str = "{}") -> Outcome:
    """What `jobsd test NAME` comes to."""
    settings = parse(config)
    kind = load_kinds((), ("*",), settings.jobs)[name]
    logger = Logger(sys.stderr)
    database = Database(queue.dsn, settings.database)
    said, trace = await rehearse(settings, database, kind, unsaved(kind, args, "default", None), Observer(logger))
    logger.close()
    assert trace is None, trace
    return said


async def unlocked(queue: Queue, config: str, name: str) -> Any:
    """A run on a connection of its own, which no lock of its job keeps from the others."""
    settings: Any = parse(config).jobs[name]
    verb = VERBS[settings.verb]
    conn = await asyncpg.connect(queue.dsn)
    try:
        found = await look(conn, settings)
        assert found.reason is None
        await conn.execute(CAREFUL, f"{round(settings.lock_timeout * 1000)}ms")
        return await verb.run(
            Work(
                name=name,
                settings=settings,
                args=verb.args(),
                ctx=cast("Context", _Silent()),
                conn=conn,
                tables=found.tables,
                now=queue.clock.now,
            )
        )
    finally:
        await conn.close()


GATE = """
create function zoo.gate() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(4711);
    return new;
end $$;
create trigger aaa_gate before {place} for each row execute function zoo.gate()"""
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


async def at_once(queue: Queue, config: str, name: str, place: str, runs: int = 3) -> list[Any]:
    """So many runs that no lock of their job keeps apart: none is through with what it does at `place`, like `insert on
    zoo.events`, before each has come there."""
    patient = config + 'lock_timeout = "10s"\n'
    gate = await asyncpg.connect(queue.dsn)
    try:
        await gate.execute(GATE.replace("{place}", place))
        await gate.execute("select pg_advisory_lock(4711)")
        tasks = [asyncio.create_task(unlocked(queue, patient, name)) for _ in range(runs)]

        async def all_there() -> bool:
            return bool(await gate.fetchval(WAITING) + sum(task.done() for task in tasks) >= runs)

        await until(all_there, lambda: f"{runs} runs meet")
        await gate.execute("select pg_advisory_unlock(4711)")
        return await asyncio.gather(*tasks)
    finally:
        await gate.close()


class _Silent:
    """All that those verbs ask of a context."""

    job = SimpleNamespace(id=1)

    async def progress(self, _percent: float, **_fields: Any) -> None: ...


async def killed_everywhere(
    queue: Queue,
    name: str,
    seed: Callable[[], Awaitable[None]],
    state: Callable[[], Awaitable[Any]],
    *,
    step: int = 1,
    most: int = 40,
) -> int:
    """Kill a run in each of its pauses, or in every `step`-th, and let it run again: the state must be that of a quiet
    run.  How many pauses there were."""
    await seed()
    await queue.enqueue(name)
    ran = await queue.drain_all()
    assert ran[-1].outcome == "done", ran
    once = await state()
    for pause in range(1, most, step):
        await seed()
        await queue.enqueue(name)
        queue.crash_next(name, at=pause)
        ran = await queue.drain_all()
        assert ran[-1].outcome == "done", (pause, ran)
        assert await state() == once, f"killed in pause {pause}"
        if not queue.pause_reached:
            return pause - step
    return most
