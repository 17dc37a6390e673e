"""`rollup` where its sums could be others than those of the source: clocks, types, purges, other settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from daemon.config import parse
from jobs.catalogue.ground import survey
from jobs.catalogue.kinds import look
from jobs.catalogue.verb import Work
from jobs.testing import Queue
from jobs.usage.rollup import ROLLUP, Anew
from tests.jobs.catalogue.house import killed_everywhere
from tests.jobs.catalogue.wares import DAILY, NOW, WEEKLY, Call, call, daily, model, run, shop, weeks

pytestmark = pytest.mark.req("BJ-10")

LOCAL = """
[jobs.local]
verb = "rollup"
source = "shop.local"
into = "shop.sums"
by = ["customer"]
time_column = "at"
bucket_column = "bucket"
sums = { ms = "ms" }
"""


async def local(queue: Queue, time: str, bucket: str) -> None:
    await queue.pool.execute(f"""
        create table shop.local (id int generated always as identity primary key, customer text, ms int, at {time});
        create index on shop.local (at, id);
        create index on shop.local (customer, at);
        create table shop.sums (customer text, bucket {bucket}, ms int not null, primary key (customer, bucket));
    """)


async def total(queue: Queue) -> int:
    found: int = await queue.pool.fetchval("select coalesce(sum(ms), 0) from shop.sums")
    return found


async def alone(queue: Queue, config: str, between: Callable[[], Awaitable[None]]) -> Any:
    """A run of job `daily` that `between` gets to act in after each page."""

    class Told:
        async def progress(self, _percent: float, **_fields: Any) -> None:
            await between()

    conn = await asyncpg.connect(queue.dsn)
    try:
        settings: Any = parse(config).jobs["daily"]
        tables = await survey(conn, ["shop.calls", "shop.daily"])
        now = await conn.fetchval("select now()")
        made: Any = Work(
            name="daily", settings=settings, args=Anew(), ctx=Told(), conn=conn, tables=tables, now=now  # type: ignore[arg-type]
        )  # fmt: skip
        return await ROLLUP.run(made)
    finally:
        await conn.close()


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "bucket", "unit", "at"),
    [
        # in Santiago and Asunción midnight is left out when summer begins
        ("timestamp", "date", "day", "2025-09-07 00:30"),
        ("date", "date", "day", "2025-09-07"),
        ("date", "timestamptz", "day", "2025-09-07"),
        ("timestamp", "timestamptz", "hour", "2025-09-07 00:30"),
        ("timestamp", "timestamptz", "hour", "2025-09-07 01:30"),
    ],
)
async def test_a_time_without_a_zone_that_no_clock_there_has_shown_is_counted_all_the_same(
    time: str, bucket: str, unit: str, at: str
) -> None:
    async with shop(LOCAL + f'bucket = "{unit}"\nbucket_timezone = "America/Santiago"\n') as queue:
        await local(queue, time, bucket)
        await queue.pool.execute(
            f"insert into shop.local (customer, ms, at) values ('ann', 3, '{at}'), ('ann', 4, '{at}')"
        )
        await run(queue, "local")
        assert await total(queue) == 7


@pytest.mark.parametrize(
    ("zone", "time"),
    [
        ("Pacific/Honolulu", "timestamp"),
        ("Pacific/Honolulu", "date"),
        ("Pacific/Kiritimati", "date"),
        ("Europe/Berlin", "timestamp"),
    ],
)
async def test_times_without_a_zone_are_new_by_the_clock_of_their_place(zone: str, time: str) -> None:
    async with shop(LOCAL + f'bucket_timezone = "{zone}"\nlate = "0"\nbatch = 1\npause = "0"\n') as queue:
        await local(queue, time, "date")
        for n in range(15):
            shown = f"(now() at time zone '{zone}')::{time}"
            await queue.pool.execute(f"insert into shop.local (customer, ms, at) values ('ann', 1, {shown})")
            if n % 3 == 2:
                await run(queue, "local")
                assert await total(queue) == n + 1
            await queue.clock.advance("97m")


async def test_weeks_over_the_end_of_a_year_are_one() -> None:
    async with shop(DAILY + 'computed_column = "changed"\n' + WEEKLY) as queue:
        calls: list[Call] = [
            ("ann", 1, n, datetime(2025, 12, 22, 12, tzinfo=UTC) + timedelta(days=n)) for n in range(21)
        ]
        for some in (calls[::2], calls[1::2]):
            await call(queue.pool, some)
            await run(queue)
            await run(queue, "weekly")
            await queue.clock.advance("2h")
        found = {(row[0], row[1]): int(row[2]) for row in await queue.pool.fetch("select * from shop.weekly")}
        assert found == weeks(model(calls))
        assert {week for _, week in found} == {date(2025, 12, 22), date(2025, 12, 29), date(2026, 1, 5)}


async def test_after_a_clock_was_put_back_what_comes_is_counted() -> None:
    async with shop(DAILY + 'late = "1h"\n') as queue:
        await call(queue.pool, [("ann", 1, 1, NOW)])
        await run(queue)
        await queue.pool.execute("update job_rollups set upto = now() + interval '1 day'")
        await queue.clock.advance("30m")
        await call(queue.pool, [("ann", 1, 2, NOW)])
        await run(queue)
        assert await daily(queue.pool) == {("ann", 1, date(2026, 7, 1)): (3, 2)}


# --- purges -----------------------------------------------------------------------------------------------------------


async def test_a_bucket_whose_rows_are_purged_while_the_run_goes_on_is_left_as_it_is() -> None:
    config = DAILY + 'source_retention = "2d"\n'
    async with shop(config) as queue:
        edge = datetime(2026, 6, 29, 12, 30, tzinfo=UTC)
        calls: list[Call] = [("ann", 1, 1, edge + timedelta(hours=n)) for n in range(-12, 36)]
        await call(queue.pool, calls)
        await queue.pool.execute("update shop.calls set at = at + interval '12 hours'")
        await run(queue)
        before = await daily(queue.pool)
        assert before["ann", 1, date(2026, 6, 30)] == (24, 24)
        await queue.clock.travel(datetime(2026, 7, 1, 23, 59, tzinfo=UTC))
        await call(queue.pool, [("ann", 1, 100, datetime(2026, 6, 30, 23, tzinfo=UTC))])

        async def purged() -> None:
            await queue.clock.travel(datetime(2026, 7, 2, 12, tzinfo=UTC))
            await queue.pool.execute("delete from shop.calls where at < now() - interval '2 days'")

        await alone(queue, config, purged)
        assert (await daily(queue.pool))["ann", 1, date(2026, 6, 30)] == (24, 24), "not what is left of it"


async def test_what_the_source_keeps_no_rows_of_stays_when_all_is_made_anew() -> None:
    async with shop() as queue:
        await call(queue.pool, [("ann", 1, n, NOW - timedelta(days=n)) for n in range(20)])
        await run(queue)
        before = await daily(queue.pool)
        await queue.pool.execute("delete from shop.calls where at < now() - interval '5 days 12 hours'")
        await run(queue, args={"anew": True})
        after = await daily(queue.pool)
        assert {day for _, _, day in after} >= {day for _, _, day in before if day < date(2026, 6, 24)}


# --- other settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["select 1", "create index on shop.calls (at)"])
async def test_in_another_time_zone_no_row_is_counted_in_two_days(index: str) -> None:
    zones = DAILY + DAILY.replace("jobs.daily", "jobs.other") + 'bucket_timezone = "Pacific/Kiritimati"\n'
    calls: list[Call] = [("ann", 1, 1, datetime(2026, 6, 3, 23, tzinfo=UTC)), ("bob", 1, 1, NOW - timedelta(days=9))]
    async with shop(zones) as queue:
        await queue.pool.execute(index)
        await call(queue.pool, calls)
        await run(queue)
        await queue.pool.execute("update job_rollups set name = 'other'")  # its zone was changed in the config
        said = await run(queue, "other")
        assert await daily(queue.pool) == model(calls, "Pacific/Kiritimati")
        assert said["emptied"] == 2
        assert (await run(queue, "other"))["read"] == 2, "what came in the last hour, as always"


async def test_a_bucket_whose_rows_are_gone_goes_when_all_is_made_anew() -> None:
    async with shop() as queue:
        await call(queue.pool, [("ann", 1, 1, NOW - timedelta(days=n)) for n in range(4)])
        await run(queue)
        await queue.pool.execute("delete from shop.calls where at::date = (now() - interval '1 day')::date")
        said = await run(queue, args={"anew": True})
        assert (said["computed"], said["emptied"]) == (0, 1)
        assert len(await daily(queue.pool)) == 3


@pytest.mark.req("BJ-27")
async def test_killed_in_any_pause_of_adding_up_otherwise_it_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.usage.rollup.BUCKETS", 3)
    calls: list[Call] = [("ann", 1, 1, NOW - timedelta(hours=20 * n)) for n in range(8)]
    async with shop(DAILY + 'batch = 3\npause = "0"\nlate = "0"\n') as queue:
        await call(queue.pool, calls)
        await queue.clock.advance("1h")

        async def seed() -> None:
            await queue.pool.execute("""
                truncate shop.daily, job_rollups;
                insert into job_rollups values ('daily', 'other sums', now());
                insert into shop.daily select 'ann', region, '2026-07-01', 9, 9 from generate_series(2, 6) as region;
            """)

        assert await killed_everywhere(queue, "daily", seed, lambda: daily(queue.pool), step=3) >= 10
        assert await daily(queue.pool) == model(calls)


# --- types and numbers ------------------------------------------------------------------------------------------------


TYPES = [
    ("text", "varchar(3)", False),
    ("varchar(5)", "varchar(3)", False),
    ("varchar(3)", "varchar(5)", True),
    ("varchar(3)", "text", True),
    ("text", "varchar", True),
    ("text", "char(3)", False),
    ("numeric", "numeric(6,0)", False),
    ("numeric", "integer", False),
    ("bigint", "integer", True),
    ("real", "float8", False),
    ("timestamptz", "date", False),
]


async def test_owners_that_could_become_others_in_the_target_park_the_job() -> None:
    config = DAILY.replace('["customer", "region"]', '["who"]').replace("shop.daily", "shop.of_who")
    async with shop(config) as queue, queue.pool.acquire() as conn:
        for of, into, fits in TYPES:
            await conn.execute(f"""
                drop table if exists shop.of_who;
                alter table shop.calls drop if exists who, add who {of};
                create table shop.of_who (who {into}, day date, ms bigint, calls int, primary key (who, day));
            """)
            reason = (await look(conn, parse(config).jobs["daily"])).reason
            assert (reason is None) is fits, (of, into, reason)
            assert fits or "by: shop.of_who.who is " in (reason or "")


async def test_a_sum_that_its_column_does_not_hold_is_named_and_money_is_a_number() -> None:
    config = DAILY.replace("shop.daily", "shop.narrow")
    async with shop(config) as queue:
        await queue.pool.execute("""
            create table shop.narrow (
                customer text, region int, day date, ms smallint, calls int, primary key (customer, region, day))
        """)
        await call(queue.pool, [("ann", 1, 30_000, NOW), ("ann", 1, 30_000, NOW)])
        await queue.enqueue("daily")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("retry", "out_of_range")
        assert "column of shop.narrow: smallint out of range" in (ran.reason or "")
        for table in ("shop.narrow", "shop.calls"):
            await queue.pool.execute(f"alter table {table} alter ms type money using ms::numeric::money")
        await queue.drain_all()
        assert await queue.pool.fetchval("select ms::numeric from shop.narrow") == 60_000
