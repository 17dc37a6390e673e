"""`rollup`: sums of a table are what its rows come to, whenever these came and whatever became of a run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.catalogue.house import killed_everywhere, rehearsed, whole
from tests.jobs.catalogue.wares import DAILY, NOW, WEEKLY, Call, call, daily, model, run, shop, weeks

CALLS: list[Call] = [
    (customer, region, 10 * n + region, NOW - timedelta(hours=7 * n))
    for n in range(12)
    for customer, region in (("ann", 1), ("ann", 2), ("bob", 1), (None, 1))
]


async def emptied(queue: Queue) -> None:
    await queue.pool.execute("truncate shop.calls, shop.daily, shop.weekly, job_rollups")


@pytest.mark.req("BJ-10")
async def test_sums_are_those_of_the_source_and_late_rows_are_counted_in() -> None:
    async with shop() as queue:
        await call(queue.pool, CALLS)
        await queue.clock.advance("2h")
        first = await run(queue)
        assert (first["read"], first["computed"]) == (48, len(model(CALLS)))
        assert await daily(queue.pool) == model(CALLS)
        assert (await run(queue))["computed"] == 0, "a second run changes nothing"
        late: list[Call] = [("ann", 1, 5, NOW - timedelta(days=400)), ("bob", 1, 7, CALLS[-1][3])]
        await queue.clock.advance("5h")
        await call(queue.pool, late)
        again = await run(queue)
        assert (again["read"], again["computed"]) == (2, 2), "what came, and the buckets that it is for"
        assert await daily(queue.pool) == model([*CALLS, *late])


@pytest.mark.req("BJ-10")
async def test_weeks_are_added_up_from_days() -> None:
    async with shop(DAILY + 'computed_column = "changed"\n' + WEEKLY) as queue:
        for n in range(3):
            await call(queue.pool, CALLS[n::3])
            await run(queue)
            await run(queue, "weekly")
            await queue.clock.advance("2h")
        found = {(row[0], row[1]): int(row[2]) for row in await queue.pool.fetch("select * from shop.weekly")}
        assert found == weeks(model(CALLS))


ZONES = ("UTC", "Europe/Berlin", "America/Havana", "Pacific/Apia", "Asia/Kathmandu")


@pytest.mark.req("BJ-10")
@pytest.mark.parametrize("zone", ZONES)
async def test_an_index_of_owner_and_time_serves_in_whatever_order_it_has_the_owners_columns(zone: str) -> None:
    """A bucket's end is then compared as a row of it."""
    calls: list[Call] = [*CALLS, *(("bob", 2, 3**n, NOW - timedelta(minutes=30 * n)) for n in range(9))]
    async with shop(DAILY + f'bucket_timezone = "{zone}"\n') as queue:
        await queue.pool.execute("create index on shop.calls (region, customer, at)")
        await call(queue.pool, calls)
        await run(queue)
        assert await daily(queue.pool) == model(calls, zone)


HOURS = st.integers(0, 24 * 400)
BATCHES = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["ann", "bob", "o'hara", None]), st.integers(1, 2), st.integers(-9, 9), HOURS),
        max_size=12,
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
async def zones() -> AsyncIterator[Queue]:
    """One database for all examples, with a job for each zone."""
    small = 'batch = 5\npause = "0"\nlate = "0"\n'
    jobs = (DAILY.replace("jobs.daily", f"jobs.z{n}") + f'bucket_timezone = "{z}"\n' for n, z in enumerate(ZONES))
    async with shop("".join(job + small for job in jobs)) as queue:
        yield queue


@pytest.mark.req("BJ-10")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, zone=st.sampled_from(ZONES), base=st.sampled_from([NOW, datetime(2025, 11, 10, tzinfo=UTC)]))
async def test_whatever_comes_in_whatever_order_the_sums_are_right(
    zones: Queue, batches: list[list[tuple[str | None, int, int, int]]], zone: str, base: datetime
) -> None:
    calls: list[Call] = []
    await emptied(zones)
    for batch in batches:
        came: list[Call] = [(who, where, ms, base - timedelta(minutes=30 * h)) for who, where, ms, h in batch]
        await call(zones.pool, came)
        calls += came
        await run(zones, f"z{ZONES.index(zone)}")
        assert await daily(zones.pool) == model(calls, zone)
        await zones.clock.advance("1m")


@pytest.mark.parametrize(
    ("zone", "around"),
    [
        ("Europe/Berlin", datetime(2025, 10, 26, tzinfo=UTC)),
        ("America/Havana", datetime(2025, 11, 2, 5, tzinfo=UTC)),  # midnight comes twice
        ("America/Havana", datetime(2025, 3, 9, 5, tzinfo=UTC)),  # and is left out
        ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),  # a day is left out
    ],
)
async def test_days_are_right_where_clocks_change(zone: str, around: datetime) -> None:
    calls: list[Call] = [("ann", 1, 1, around + timedelta(minutes=15 * n)) for n in range(-200, 200)]
    async with shop(DAILY + f'bucket_timezone = "{zone}"\n') as queue:
        await call(queue.pool, calls)
        await run(queue)
        assert await daily(queue.pool) == model(calls, zone)


async def test_an_hour_that_comes_twice_is_two_and_local_times_are_taken_as_they_stand() -> None:
    config = """
[jobs.hourly]
verb = "rollup"
source = "shop.calls"
into = "shop.hourly"
by = ["customer"]
time_column = "at"
bucket = "hour"
bucket_column = "hour"
bucket_timezone = "Europe/Berlin"
sums = { ms = "ms" }
[jobs.local]
verb = "rollup"
source = "shop.local"
into = "shop.local_months"
by = ["customer"]
time_column = "at"
bucket = "month"
bucket_column = "month"
bucket_timezone = "Europe/Berlin"
sums = { ms = "ms" }
"""
    around = datetime(2025, 10, 26, 1, tzinfo=UTC)
    async with shop(config) as queue:
        await queue.pool.execute("""
            create table shop.hourly (customer text, hour timestamptz, ms int, primary key (customer, hour));
            create table shop.local (id int primary key, customer text, ms int, at timestamp);
            create table shop.local_months (customer text, month timestamptz, ms int, primary key (customer, month));
            insert into shop.local select n, 'ann', 1, timestamp '2025-10-31 23:30' + n * interval '1 h'
            from generate_series(0, 9) as n
        """)
        await call(queue.pool, [("ann", 1, 1, around + timedelta(minutes=20 * n)) for n in range(-6, 6)])
        await run(queue, "hourly")
        hours = await queue.pool.fetch("select hour, ms from shop.hourly order by hour")
        assert [tuple(row) for row in hours] == [(around + timedelta(hours=n), 3) for n in (-2, -1, 0, 1)]
        await run(queue, "local")
        months = await queue.pool.fetch("select month, ms from shop.local_months order by month")
        assert [tuple(row) for row in months] == [
            (datetime(2025, 9, 30, 22, tzinfo=UTC), 1),
            (datetime(2025, 10, 31, 23, tzinfo=UTC), 9),
        ]


@pytest.mark.req("BJ-10")
async def test_a_row_of_a_transaction_that_was_open_during_a_run_is_counted_by_the_next() -> None:
    async with shop() as queue:
        other = await asyncpg.connect(queue.dsn)
        slow = other.transaction()
        await slow.start()
        await call(other, [("ann", 1, 3, NOW)])
        await call(queue.pool, [("ann", 1, 4, NOW)])
        await run(queue)
        assert await daily(queue.pool) == {("ann", 1, date(2026, 7, 1)): (4, 1)}
        await queue.clock.advance("50m")
        await run(queue)
        await slow.commit()
        await other.close()
        await run(queue)
        assert await daily(queue.pool) == {("ann", 1, date(2026, 7, 1)): (7, 2)}


async def test_what_is_gone_from_the_source_is_gone_from_its_sums_when_they_are_made_anew() -> None:
    async with shop() as queue:
        await call(queue.pool, CALLS)
        await run(queue)
        await queue.clock.advance("3h")
        await queue.pool.execute("delete from shop.calls where customer = 'bob'")
        assert (await run(queue))["computed"] == 0, "nobody told of it"
        await queue.pool.execute("insert into shop.calls (customer, region, ms, at) values ('ann', 1, 1, $1)", NOW)
        rest = [one for one in CALLS if one[0] == "ann"] + [("ann", 1, 1, NOW)]
        await queue.pool.execute("update shop.daily set ms = 0 where customer = 'ann'")
        assert (await run(queue, args={"anew": True}))["computed"] == len(model(rest))
        ann = {bucket: sums for bucket, sums in (await daily(queue.pool)).items() if bucket[0] == "ann"}
        assert ann == model(rest), "a bucket whose rows are all gone is not looked at"


async def test_a_bucket_without_rows_has_no_row() -> None:
    async with shop() as queue:
        await call(queue.pool, [("ann", 1, 1, NOW)])
        await run(queue)
        await queue.pool.execute("update shop.calls set at = at - interval '3 days', came = now()")
        await queue.pool.execute(
            "insert into shop.calls (customer, region, ms, at, came) values ('ann', 1, 0, $1, $1)", NOW
        )
        await queue.pool.execute("update shop.calls set at = null where ms = 0")
        said = await run(queue)
        assert (said["computed"], said["emptied"]) == (1, 0)


async def test_settings_that_mean_other_sums_begin_anew() -> None:
    async with shop() as queue:
        await call(queue.pool, CALLS)
        await run(queue)
        await queue.clock.advance("3h")
        await queue.pool.execute("update job_rollups set said = 'other'")
        assert (await run(queue))["read"] == 48
        assert (await run(queue))["read"] == 0


async def test_buckets_go_when_they_are_kept_no_longer_and_do_not_come_back() -> None:
    async with shop(DAILY + 'retention = "2d"\n') as queue:
        await call(queue.pool, CALLS)
        await queue.clock.advance("2h")
        await run(queue)
        recent = {bucket: sums for bucket, sums in model(CALLS).items() if bucket[2] >= date(2026, 6, 30)}
        assert await daily(queue.pool) == recent
        await queue.clock.advance("1d")
        await call(queue.pool, [("ann", 1, 1, NOW - timedelta(days=3))])
        said = await run(queue)
        assert (said["computed"], said["deleted"], said["passed_over"]) == (0, 3, 1)
        assert {bucket[2] for bucket in await daily(queue.pool)} == {date(2026, 7, 1)}


async def test_buckets_whose_rows_were_purged_are_left_as_they_are() -> None:
    async with shop(DAILY + 'source_retention = "2d"\n') as queue:
        await call(queue.pool, CALLS)
        await run(queue)
        before = await daily(queue.pool)
        await queue.clock.advance("1d")
        await queue.pool.execute("delete from shop.calls where at < now() - interval '2 days'")
        await call(queue.pool, [("ann", 1, 1, NOW - timedelta(hours=30))])
        said = await run(queue, args={"anew": True})
        assert said["passed_over"] > 0
        assert await daily(queue.pool) == before, "the thirtieth is not whole any more"


async def test_without_arrivals_rows_are_looked_for_by_their_own_time() -> None:
    config = DAILY.replace('arrived_column = "came"\n', 'late = "2d"\n')
    async with shop(config) as queue:
        await queue.pool.execute("create index on shop.calls (at, id)")
        await call(queue.pool, CALLS)
        await run(queue)
        assert await daily(queue.pool) == model(CALLS)
        await queue.clock.advance("1h")
        late: list[Call] = [("ann", 1, 1, NOW - timedelta(hours=40)), ("ann", 1, 1, NOW - timedelta(days=9))]
        await call(queue.pool, late)
        await run(queue)
        assert await daily(queue.pool) == model([*CALLS, late[0]]), "what is later than that is left out"
        await run(queue, args={"anew": True})
        assert await daily(queue.pool) == model([*CALLS, *late])


async def test_without_an_index_the_sums_are_the_same() -> None:
    async with shop(DAILY + 'batch = 7\npause = "0"\n') as queue:
        await queue.pool.execute("drop index shop.calls_came_id_idx, shop.calls_customer_at_idx")
        await call(queue.pool, CALLS)
        await run(queue)
        assert await daily(queue.pool) == model(CALLS)


@pytest.mark.req("BJ-27")
@pytest.mark.req("BJ-10")
async def test_killed_in_any_pause_and_run_again_it_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.usage.rollup.BUCKETS", 6)
    async with shop(DAILY + 'batch = 9\npause = "0"\nretention = "3d"\n') as queue:

        async def seed() -> None:
            await emptied(queue)
            await call(queue.pool, CALLS[::3])
            await queue.pool.execute("insert into shop.daily values ('ann', 1, '2020-01-01', 7, 7)")

        assert await killed_everywhere(queue, "daily", seed, lambda: daily(queue.pool), step=2) >= 10
        assert ("ann", 1, date(2020, 1, 1)) not in await daily(queue.pool)


async def test_a_run_that_was_killed_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.usage.rollup.BUCKETS", 1)
    async with shop(DAILY + 'batch = 4\npause = "0"\nlate = "0"\n') as queue:
        for n in range(10):
            await call(queue.pool, CALLS[n::10])
            await queue.clock.advance("1m")
        await queue.enqueue("daily")
        queue.crash_next("daily", at=40)
        ran = await queue.drain_all()
        assert ran[-1].outcome == "done"
        assert 0 < ran[-1].result["read"] < len(CALLS)
        assert await daily(queue.pool) == model(CALLS)


@pytest.mark.req("BJ-27")
async def test_run_twice_and_beside_itself_it_comes_to_the_same() -> None:
    async with shop(DAILY + 'batch = 9\npause = "0"\n') as queue:
        await call(queue.pool, CALLS)
        said = await queue.check_idempotent("daily", state=lambda: daily(queue.pool), points=2)
        assert said.state == model(CALLS)


@pytest.mark.req("BJ-30")
async def test_a_rehearsal_says_what_differs_and_leaves_the_whole_database_as_it_was() -> None:
    async with shop() as queue:
        await call(queue.pool, CALLS)
        await queue.clock.advance("3h")
        await run(queue)
        await call(queue.pool, [("ann", 1, 5, NOW)])
        before = await whole(queue.pool)
        said = await rehearsed(queue, DAILY, "daily")
        assert isinstance(said, Done)
        assert (said.result["would_compute"], said.result["would_read"]) == (1, 1)
        assert await whole(queue.pool) == before
        await run(queue)
        row = await queue.pool.fetchval(
            "select to_json(d) from (select customer, region, day, ms, calls from shop.daily "
            "where (customer, region, day) = ('ann', 1, $1)) as d",
            NOW.date(),
        )
        assert said.result["sample"] == [json.loads(row)]
