"""A stop loses nothing, charges nothing, and does not wait for ever."""

from __future__ import annotations

import asyncio
import signal
from time import monotonic

import asyncpg
import pytest

from tests.life.fleet import SLACK, Fleet, each_ended_once, empty, ended, insert


async def running(pool: asyncpg.Pool) -> int:
    count: int = await pool.fetchval("select count(*) from jobs where state = 'running'")
    return count


async def test_a_stop_lets_running_jobs_end_and_takes_no_more(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(QUEUES__DEFAULT__CONCURRENCY="20")
    ids = await insert(pool, "note", 200, {"seconds": 0.3})
    await fleet.noted("start", 20)
    assert await daemon.stop() == 0
    assert await running(pool) == 0
    assert not fleet.notes("cancelled")
    started = {note.id for note in fleet.notes("start")}
    finished = {row["id"] for row in await pool.fetch("select id from job_history where state = 'done'")}
    assert started == finished
    rest = await pool.fetch("select attempt, state, worker_id from jobs")
    assert len(rest) == len(ids) - len(started) > 0
    assert {(row["attempt"], row["state"], row["worker_id"]) for row in rest} == {(0, "ready", None)}
    assert await pool.fetchval("select count(*) from job_workers") == 0


async def test_jobs_that_do_not_end_in_time_go_back_and_are_charged_nothing(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(DAEMON__DRAIN_TIMEOUT="200ms")
    ids = await insert(pool, "note", 30, {"seconds": 600})
    await fleet.noted("start", 30)
    began = monotonic()
    assert await daemon.stop() == 0
    assert monotonic() - began < 0.2 + 1.0 * SLACK
    rows = await pool.fetch("select id, attempt, crashes, state, worker_id, fence from jobs order by id")
    assert [row["id"] for row in rows] == ids
    assert {tuple(row)[1:5] for row in rows} == {(0, 0, "ready", None)}
    assert len(fleet.notes("cancelled")) == 30
    assert daemon.events("daemon_stopped")[0]["handed_back"] == 30
    assert await pool.fetchval("select count(*) from job_attempts") == 0


async def test_a_second_signal_does_not_wait_for_jobs(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(DAEMON__DRAIN_TIMEOUT="1h")
    await insert(pool, "note", 5, {"seconds": 600})
    await fleet.noted("start", 5)
    daemon.signal(signal.SIGTERM)
    await daemon.said("daemon_draining")
    began = monotonic()
    assert await daemon.stop() == 0
    assert monotonic() - began < 1.0 * SLACK
    assert await pool.fetchval("select array_agg(distinct (state, attempt)::text) from jobs") == ["(ready,0)"]


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_handler_that_swallows_its_cancellation_holds_up_no_stop(
    fleet: Fleet, pool: asyncpg.Pool, signals: int
) -> None:
    daemon = await fleet.start(DAEMON__DRAIN_TIMEOUT="100ms" if signals == 1 else "1h")
    await insert(pool, "stubborn", 3, {"seconds": 600})
    await fleet.noted("start", 3)
    began = monotonic()
    for _ in range(signals - 1):
        daemon.signal(signal.SIGTERM)
        await daemon.said("daemon_draining")
        began = monotonic()
    assert await daemon.stop() == 0
    assert monotonic() - began < (1.5 if signals == 2 else 0.1 + 3.0 + 1.0) * SLACK
    assert await pool.fetchval("select array_agg(distinct (state, attempt, worker_id)::text) from jobs") == [
        "(ready,0,)"
    ]
    assert len(daemon.events("slot_leaked")) == 3


async def test_a_stop_during_the_start_ends_in_good_order(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """At any moment from the first line of the log on; earlier there is nothing yet to be put in order."""
    await insert(pool, "note", 50, {"seconds": 0.05})
    for delay_s in (0.0, 0.02, 0.05, 0.1):
        daemon = fleet.spawn(f"after {delay_s}")
        await daemon.said("daemon_starting")
        await asyncio.sleep(delay_s)
        assert await daemon.stop() == 0, daemon.tail()
        assert await running(pool) == 0
        assert await pool.fetchval("select count(*) from job_workers") == 0
    assert await pool.fetchval("select coalesce(max(attempt), 0) from jobs") == 0


async def test_stops_one_after_another_under_load_lose_nothing(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Daemons come and go while rows flow: what one hands back, the next runs, all at their first attempt."""
    ids = await insert(pool, "note", 1500, {"seconds": 0.02})
    slow = await insert(pool, "note", 5, {"seconds": 1.0})
    for number in range(3):
        daemon = await fleet.start(f"d{number}", DAEMON__DRAIN_TIMEOUT="50ms", QUEUES__DEFAULT__CONCURRENCY="50")
        await asyncio.sleep(0.1)
        assert await daemon.stop() == 0
        assert await running(pool) == 0
    await fleet.start("last")
    await empty(pool)
    await each_ended_once(pool, [*ids, *slow])
    assert {(row["state"], row["attempt"], row["crashes"]) for row in await ended(pool, [*ids, *slow])} == {
        ("done", 1, 0)
    }
