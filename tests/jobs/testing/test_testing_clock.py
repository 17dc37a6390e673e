"""The clock of a test's database stands still until it is moved, and all SQL goes by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest

from jobs import testing
from jobs.testing import Queue
from tests.jobs.testing.shop import handlers

ASKED = "select now(), clock_timestamp(), statement_timestamp(), transaction_timestamp()"


async def test_it_stands_still(jobs_queue: Queue) -> None:
    rows = [*await jobs_queue.pool.fetch(ASKED), *await jobs_queue.pool.fetch(ASKED)]
    assert {time for row in rows for time in row} == {jobs_queue.clock.now}


async def test_it_is_the_clock_of_every_connection_to_the_database(jobs_queue: Queue) -> None:
    await jobs_queue.clock.advance("10d")
    conn = await asyncpg.connect(jobs_queue.dsn)
    assert await conn.fetchval("select now()") == jobs_queue.clock.now
    await conn.execute("insert into charges (order_id) values (7)")
    assert await conn.fetchval("select charged_at from charges") == jobs_queue.clock.now
    await conn.close()


async def test_it_is_the_clock_of_rows_and_of_handlers(jobs_queue: Queue) -> None:
    await jobs_queue.clock.advance("365d")
    job = await jobs_queue.enqueue("shop.when")
    assert (await jobs_queue.assert_enqueued(job)).run_at == jobs_queue.clock.now
    assert (await jobs_queue.drain()).one().result == jobs_queue.clock.now.isoformat()
    row = await jobs_queue.assert_done(job)
    assert datetime.fromisoformat(row.columns["started_at"]) == jobs_queue.clock.now == row.finished_at


async def test_it_begins_when_a_test_says() -> None:
    start = datetime(2031, 12, 31, 23, 59, tzinfo=UTC)
    async with testing.queue(handlers=[handlers], start=start) as queue:
        assert await queue.pool.fetchval("select now()") == start
        assert await queue.clock.advance("1m") == datetime(2032, 1, 1, tzinfo=UTC)
        assert await queue.clock.travel(datetime(2040, 1, 1, tzinfo=UTC)) == queue.clock.now


async def test_it_goes_forward_only(jobs_queue: Queue) -> None:
    with pytest.raises(ValueError, match="backwards"):
        await jobs_queue.clock.advance(-1)
    with pytest.raises(ValueError, match="backwards"):
        await jobs_queue.clock.travel(jobs_queue.clock.now - timedelta(seconds=1))
    with pytest.raises(ValueError, match="time zone"):
        await jobs_queue.clock.travel(datetime(2040, 1, 1))


async def test_what_is_due_later_runs_later(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when", run_at="1h")
    await jobs_queue.assert_enqueued("shop.when", state="scheduled")
    assert (await jobs_queue.drain()).outcomes == []
    await jobs_queue.clock.advance(3599)
    assert (await jobs_queue.drain()).outcomes == []
    await jobs_queue.clock.advance(1)
    assert (await jobs_queue.drain()).outcomes == [("shop.when", "done")]


async def test_a_ladder_is_climbed_at_the_minute(jobs_queue: Queue) -> None:
    start = jobs_queue.clock.now
    jobs_queue.http.reply("https://mail.example/*", 503)
    await jobs_queue.enqueue("shop.receipt", {"order": 7}, max_attempts=4)
    ran = await jobs_queue.drain_all()
    assert ran.outcomes == [("shop.receipt", "retry")] * 3 + [("shop.receipt", "dead")]
    waits = [later - earlier for earlier, later in pairwise(one.job.claimed_at for one in ran)]
    assert [round(wait) for wait in waits] == [15, 30, 60]
    assert jobs_queue.clock.now - start == timedelta(seconds=105)


async def test_a_jitter_that_a_test_sets_counts() -> None:
    config = "[kinds.'shop.broken']\njitter = 0.5\nretry = ['1h']"
    async with testing.queue(handlers=[handlers], config=config) as queue:
        await queue.enqueue("shop.broken")
        retry_in_s = (await queue.drain()).one().retry_in_s
        assert retry_in_s is not None
        assert 1800 <= retry_in_s <= 5400
        assert retry_in_s != 3600


async def test_a_snooze_charges_nothing(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.later")
    ran = await jobs_queue.drain_all()
    assert ran.outcomes == [("shop.later", "snooze"), ("shop.later", "done")]
    await jobs_queue.assert_done("shop.later", attempt=1)


async def test_time_may_run_out_for_a_row(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when", run_at="2h", expires_at=jobs_queue.clock.now + timedelta(hours=1))
    await jobs_queue.clock.advance("90m")
    assert (await jobs_queue.drain()).outcomes == []
    await jobs_queue.assert_dead("shop.when", reason="expired")


async def test_a_pause_with_an_end_ends_by_it(jobs_queue: Queue) -> None:
    until = jobs_queue.clock.now + timedelta(hours=1)
    await jobs_queue.pool.execute(
        "insert into job_holds (gate, cause, until) values ('kind:shop.when', 'pause', $1)", until
    )
    await jobs_queue.enqueue("shop.when")
    assert (await jobs_queue.drain()).outcomes == []
    await jobs_queue.clock.advance("1h")
    assert (await jobs_queue.drain()).outcomes == [("shop.when", "done")]


async def test_a_drain_of_all_goes_so_far_and_no_further(jobs_queue: Queue) -> None:
    start = jobs_queue.clock.now
    for hours in (1, 2, 3):
        await jobs_queue.enqueue("shop.when", run_at=f"{hours}h")
    assert len(await jobs_queue.drain_all(within="2h30m")) == 2
    assert jobs_queue.clock.now == start + timedelta(hours=2.5)
    await jobs_queue.assert_enqueued("shop.when", count=1)


async def test_limits_go_by_it_too() -> None:
    config = "[limits.slow]\nkind = 'shop.when'\nrate = '60/m'\nburst = 1"
    async with testing.queue(handlers=[handlers], config=config) as queue:
        start = queue.clock.now
        for _ in range(4):
            await queue.enqueue("shop.when")
        assert len(await queue.drain()) == 1
        assert len(await queue.drain_all()) == 3
        assert queue.clock.now - start == pytest.approx(timedelta(seconds=3), abs=timedelta(milliseconds=10))


async def test_a_limits_burst_starts_at_once_and_the_rest_as_its_tokens_grow() -> None:
    config = "[limits.fast]\nkind = 'shop.when'\nrate = '10/s'"
    async with testing.queue(handlers=[handlers], config=config) as queue:
        start = queue.clock.now
        for _ in range(45):
            await queue.enqueue("shop.when")
        assert len(await queue.drain()) == 10
        assert len(await queue.drain()) == 0
        await queue.clock.advance("1s")
        assert len(await queue.drain()) == 10
        assert len(await queue.drain_all()) == 25
        assert queue.clock.now - start == pytest.approx(timedelta(seconds=3.5), abs=timedelta(milliseconds=10))


async def test_places_are_taken_again_in_the_same_drain() -> None:
    async with testing.queue(handlers=[handlers], config="[limits.two]\nkind = 'shop.when'\nconcurrency = 2") as queue:
        for _ in range(7):
            await queue.enqueue("shop.when")
        assert len(await queue.drain()) == 7
        assert await queue.pool.fetchval("select sum(held) from job_limit_holds") is None, "and go with the worker"
