"""Daily partitions: there before they are needed, gone when they are old, and never in anybody's way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from daemon.config import parse
from daemon.migrate import DAYS_AHEAD, PARTITIONED
from daemon.observe import Observer
from daemon.retention import Retention
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from jobs.model import Done
from tests.sql.rows import Insert, Pool, Worker, claim, ended

DAY = timedelta(days=1)
FINISHED = """insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes,
                  finished_at)
              values ($1, 'noop', '{}', 'default', 2, now(), now(), 'done', 1, 0, $2)"""


def named(parent: str, *days: datetime) -> list[str]:
    return [f"{parent}_{day:%Y%m%d}" for day in days]


async def today(pool: Pool) -> datetime:
    now: datetime = await pool.fetchval("select now()")
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def partitions(pool: Pool, parent: str) -> list[str]:
    """All but the default one, in order."""
    rows = await pool.fetch(
        "select inhrelid::regclass::text as name from pg_inherits where inhparent = $1::regclass order by 1", parent
    )
    return [row["name"] for row in rows if not row["name"].endswith("_default")]


@pytest.mark.parametrize("parent", PARTITIONED)
async def test_a_migrated_database_has_today_and_the_days_to_come(
    pool: Pool, keeping: UpkeepStore, parent: str
) -> None:
    first = await today(pool)
    days = [first + n * DAY for n in range(DAYS_AHEAD + 3)]
    assert await partitions(pool, parent) == named(parent, *days[: DAYS_AHEAD + 1])
    assert await keeping.make_partitions(parent, DAYS_AHEAD) == []
    assert await keeping.make_partitions(parent, DAYS_AHEAD + 2) == named(parent, *days[DAYS_AHEAD + 1 :])


async def test_a_row_that_ends_today_lands_in_todays_partition(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    await insert()
    await store.write([ended(job, Done()) for job in await claim(store, await worker())])
    (place,) = await pool.fetch("select tableoid::regclass::text as name, finished_at from job_history")
    assert [place["name"]] == named("job_history", place["finished_at"].astimezone(UTC))
    assert await pool.fetchval("select count(*) from job_history_default") == 0


async def test_days_are_utc_whatever_the_sessions_zone_and_its_summer_time(pool: Pool) -> None:
    """200 days hold a change of clocks."""
    first = await today(pool)
    async with pool.acquire() as conn:
        await conn.execute("set timezone = 'America/Los_Angeles'")
        await conn.fetch("select job_partitions_make('job_history', 200)")
    bounds = await pool.fetch(
        """select pg_get_expr(relpartbound, oid) as bound from pg_class
           where relname = any ($1::text[])""",
        named("job_history", *(first + n * DAY for n in range(201))),
    )
    expected = {f"FOR VALUES FROM ('{day:%Y-%m-%d} 00:00:00+00') TO ('{day + DAY:%Y-%m-%d} 00:00:00+00')"
                for day in (first + n * DAY for n in range(201))}  # fmt: skip
    assert {row["bound"] for row in bounds} == expected


async def test_rows_that_no_partition_was_made_for_move_into_it(pool: Pool, keeping: UpkeepStore) -> None:
    """No daemon ran for days, and its first results were written before its upkeep came round."""
    first = await today(pool)
    for name in await partitions(pool, "job_history"):
        await pool.execute(f"drop table {name}")
    for n, day in enumerate((first - 40 * DAY, first, first + DAY - timedelta(microseconds=1), first + DAY)):
        await pool.execute(FINISHED, n, day)
    made = await keeping.make_partitions("job_history", 1)
    assert made == named("job_history", first, first + DAY, first - 40 * DAY)
    rows = await pool.fetch("select id, tableoid::regclass::text as name from job_history order by id")
    assert [row["name"] for row in rows] == named("job_history", first - 40 * DAY, first, first, first + DAY)
    assert await keeping.drop_partitions("job_history", 30 * 86400.0, 10) == named("job_history", first - 40 * DAY)


async def test_old_partitions_are_dropped_oldest_first_and_live_ones_are_not(pool: Pool, keeping: UpkeepStore) -> None:
    first = await today(pool)
    old = [first - n * DAY for n in (33, 32, 31, 30)]
    for day, name in zip(old, named("job_history", *old), strict=True):
        await pool.execute(f"create table {name} partition of job_history for values from ('{day}') to ('{day + DAY}')")
        await pool.execute(FINISHED, 1, day + DAY / 2)
    live = (await partitions(pool, "job_history"))[4:]
    keep_s = 30 * 86400.0
    assert await keeping.drop_partitions("job_history", keep_s, 2) == named("job_history", *old[:2])
    assert await keeping.drop_partitions("job_history", keep_s, 10) == named("job_history", old[2])
    assert await keeping.drop_partitions("job_history", keep_s, 10) == []
    assert await partitions(pool, "job_history") == [*named("job_history", old[3]), *live]
    assert await keeping.drop_partitions("job_history", 0.0, 10) == named(
        "job_history", old[3]
    )  # today's day is not over
    assert await partitions(pool, "job_history") == live
    assert await keeping.drop_partitions("job_attempts", 0.0, 10) == []


async def test_partitions_are_attached_while_results_come_in(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    await insert(600)
    worker_id = await worker()
    made: list[str] = []

    async def finish() -> None:
        while jobs := await claim(store, worker_id, 20):
            await store.write([ended(job, Done()) for job in jobs])

    async def make() -> None:
        for ahead in range(DAYS_AHEAD + 1, DAYS_AHEAD + 13):
            made.extend(await keeping.make_partitions("job_history", ahead))

    await asyncio.gather(finish(), finish(), make())
    assert len(made) == 12
    assert await pool.fetchval("select count(*) from job_history") == 600
    assert await pool.fetchval("select count(*) from job_history_default") == 0


async def test_daemons_that_make_the_same_days_at_once_do_not_fail(pool: Pool, keeping: UpkeepStore) -> None:
    made = await asyncio.gather(*(keeping.make_partitions("job_history", DAYS_AHEAD + 5) for _ in range(6)))
    assert sorted(map(len, made)) == [0, 0, 0, 0, 0, 5]


@pytest.mark.parametrize("held", ["job_history", "job_history_default"])
async def test_a_lock_in_the_way_makes_it_give_up_soon_and_leaves_nothing(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert, held: str
) -> None:
    """As a backup or a long report would hold it; results are written meanwhile."""
    await insert(2)
    before = await partitions(pool, "job_history")
    old = await today(pool) - 40 * DAY
    (name,) = named("job_history", old)
    await pool.execute(f"create table {name} partition of job_history for values from ('{old}') to ('{old + DAY}')")
    worker_id = await worker()
    async with pool.acquire() as report, report.transaction():
        await report.fetch(f"select from {held}")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await keeping.make_partitions("job_history", DAYS_AHEAD + 1)
        if held == "job_history":
            with pytest.raises(asyncpg.LockNotAvailableError):
                await keeping.drop_partitions("job_history", 0.0, 1)
        await store.write([ended(job, Done()) for job in await claim(store, worker_id)])
    assert await partitions(pool, "job_history") == [name, *before]
    assert await pool.fetchval("select count(*) from job_history") == 2
    (again,) = await keeping.make_partitions("job_history", DAYS_AHEAD + 1)
    assert again not in before


async def test_it_gives_up_soon(pool: Pool) -> None:
    """Results wait for who drops; nobody but readers of the history waits for who makes."""
    found = await pool.fetch("select proname, proconfig from pg_proc where proname ~ 'job_partitions_(make|drop)'")
    settings = {row["proname"]: row["proconfig"] for row in found}
    assert "lock_timeout=200ms" in settings["job_partitions_make"]
    assert "lock_timeout=50ms" in settings["job_partitions_drop"]


async def test_the_last_days_are_not_put_off_by_readers_who_come_and_go(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    """Tomorrow has no partition.  Reports of half a second each overlap without end; a call that gave up after 200 ms
    would never get through, and results are written meanwhile."""
    await insert(2)
    for name in (await partitions(pool, "job_history"))[1:]:
        await pool.execute(f"drop table {name}")
    over = asyncio.Event()

    async def report(first_s: float) -> None:
        while not over.is_set():
            async with pool.acquire() as conn, conn.transaction():
                await conn.fetch("select from job_history limit 1")
                await conn.fetch("select pg_sleep($1)", first_s)
            first_s = 0.6

    async def make() -> list[str]:
        try:
            return await keeping.make_partitions("job_history", DAYS_AHEAD)
        finally:
            over.set()

    jobs = await claim(store, await worker())
    _, _, made, written = await asyncio.gather(
        report(0.3), report(0.6), make(), store.write([ended(job, Done()) for job in jobs])
    )
    assert len(made) == DAYS_AHEAD
    assert len(written) == 2


async def test_a_drop_that_waits_holds_results_up_for_a_moment_only(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    """A report reads the day that is to go.  Results that come while the drop waits for it are written when it gives
    up."""
    await insert(1)
    old = await today(pool) - 40 * DAY
    (name,) = named("job_history", old)
    await pool.execute(f"create table {name} partition of job_history for values from ('{old}') to ('{old + DAY}')")
    jobs = await claim(store, await worker())
    async with pool.acquire() as report, report.transaction():
        await report.fetch("select from job_history")
        dropped, written = await asyncio.gather(
            keeping.drop_partitions("job_history", 0.0, 1),
            store.write([ended(job, Done()) for job in jobs]),
            return_exceptions=True,
        )
    assert isinstance(dropped, asyncpg.LockNotAvailableError)
    assert written == {jobs[0].id}
    assert await keeping.drop_partitions("job_history", 0.0, 1) == [name]


@pytest.mark.parametrize("parent", PARTITIONED)
async def test_a_partition_is_frozen_at_its_first_vacuum(pool: Pool, keeping: UpkeepStore, parent: str) -> None:
    """Those that were there before the migration (the default one), those of the first days, and new ones."""
    await keeping.make_partitions(parent, DAYS_AHEAD + 1)
    options = await pool.fetch(
        "select reloptions from pg_class join pg_inherits on inhrelid = oid where inhparent = $1::regclass", parent
    )
    assert len(options) == DAYS_AHEAD + 3
    assert all("autovacuum_freeze_min_age=0" in row["reloptions"] for row in options)


async def test_after_a_week_without_a_daemon_the_first_upkeep_puts_everything_right(
    pool: Pool, keeping: UpkeepStore, observer: Observer
) -> None:
    """Commands wrote history meanwhile (`jobsd jobs cancel` does): their rows stand in the default partition."""
    first = await today(pool)
    for name in await partitions(pool, "job_history"):
        await pool.execute(f"drop table {name}")
    for n in range(7):
        await pool.execute(FINISHED, n, first - n * DAY)
    await Retention(keeping, observer, lambda: parse("")).partitions()
    assert await pool.fetchval("select count(*) from job_history_default") == 0
    assert await pool.fetchval("select count(*) from job_history") == 7
    days = [first + n * DAY for n in range(-6, DAYS_AHEAD + 1)]
    assert await partitions(pool, "job_history") == named("job_history", *days)


async def test_a_hundred_thousand_strays_move_in_one_go(pool: Pool, keeping: UpkeepStore) -> None:
    first = await today(pool)
    for name in await partitions(pool, "job_history"):
        await pool.execute(f"drop table {name}")
    many = FINISHED.replace("values ($1, ", "select n, ").replace("$2)", "$1 from generate_series(1, 100000) as n")
    await pool.execute(many, first)
    assert len(await keeping.make_partitions("job_history", 0)) == 1
    assert await pool.fetchval("select count(*) from job_history_default") == 0
    assert await pool.fetchval(f"select count(*) from {named('job_history', first)[0]}") == 100_000


async def test_rows_without_a_day_are_reported(pool: Pool, keeping: UpkeepStore, observer: Observer) -> None:
    """A lock on the default partition keeps its rows there: that is an event and a metric, at each try."""
    for name in await partitions(pool, "job_history"):
        await pool.execute(f"drop table {name}")
    await pool.execute(FINISHED, 1, await today(pool))
    async with pool.acquire() as report, report.transaction():
        await report.fetch("select from job_history_default")
        await Retention(keeping, observer, lambda: parse("")).partitions()
    assert level(observer, "jobsd_default_partition_rows", "job_history") == 1
    assert level(observer, "jobsd_partitions_ready", "job_history") == 0
    assert level(observer, "jobsd_partitions_ready", "job_attempts") == DAYS_AHEAD + 1
    await Retention(keeping, observer, lambda: parse("")).partitions()
    assert level(observer, "jobsd_default_partition_rows", "job_history") == 0
    assert level(observer, "jobsd_partitions_ready", "job_history") == DAYS_AHEAD + 1


def level(observer: Observer, name: str, table: str) -> float | None:
    return observer.metrics.registry.get_sample_value(name, {"table": table})
