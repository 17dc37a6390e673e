"""Faults on demand: what a handler meets in a bad year, in one test."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from jobs import Dead, Retry, testing
from jobs.testing import Queue
from tests.jobs.testing.shop import handlers


async def charges(queue: Queue) -> list[Any]:
    return [row[0] for row in await queue.pool.fetch("select order_id from charges order by 1")]


async def payments(queue: Queue) -> Any:
    return await queue.pool.fetchval("select count(*) from payments")


async def test_a_handler_fails_so_many_times(jobs_queue: Queue) -> None:
    jobs_queue.fail("shop.charge", Retry("no bank", code="bank"), times=2)
    await jobs_queue.enqueue("shop.charge", {"order": 7})
    ran = (await jobs_queue.drain_all()).of("shop.charge")
    assert [(one.outcome, one.code, one.retry_in_s) for one in ran] == [
        ("retry", "bank", 60.0),
        ("retry", "bank", 300.0),
        ("done", None, None),
    ]


async def test_it_fails_with_whatever_is_wanted(jobs_queue: Queue) -> None:
    jobs_queue.fail("shop.charge", asyncpg.DeadlockDetectedError("x"))
    jobs_queue.fail("shop.charge", Dead("closed", code="closed"))
    for _ in range(2):
        await jobs_queue.enqueue("shop.charge", {"order": 7})
    first, second = await jobs_queue.drain()
    assert isinstance(first.error, asyncpg.DeadlockDetectedError)
    assert (second.outcome, second.code) == ("dead", "closed")
    assert await charges(jobs_queue) == []


@pytest.mark.parametrize(("at", "calls"), [("start", 1), ("end", 2), (1, 1), (2, 2)])
async def test_a_worker_dies_and_another_does_the_job(jobs_queue: Queue, at: Any, calls: int) -> None:
    jobs_queue.crash_next("shop.receipt", at=at)
    job = await jobs_queue.enqueue("shop.receipt", {"order": 7})
    ran = await jobs_queue.drain()
    assert ran.outcomes == [("shop.receipt", "crashed"), ("shop.receipt", "done")]
    assert len(jobs_queue.http.requests) == calls
    row = await jobs_queue.assert_done(job, crashes=1, attempt=2)
    crashes = await jobs_queue.pool.fetch("select attempt, outcome from job_attempts where job_id = $1", row.id)
    assert [tuple(crash) for crash in crashes] == [(1, "crashed")]


async def test_a_death_in_the_middle_commits_nothing(jobs_queue: Queue) -> None:
    handlers.CALLS.clear()
    pause = 0
    while "paid" not in handlers.CALLS[:-1]:
        handlers.CALLS.clear()
        pause += 1
        jobs_queue.crash_next("shop.tidy", at=pause)
        await jobs_queue.enqueue("shop.tidy")
        assert (await jobs_queue.drain(max_jobs=1)).outcomes == [("shop.tidy", "crashed")]
        assert await payments(jobs_queue) == pause - 1
        assert "gone" not in handlers.CALLS
        cut_in, handlers.CALLS[:] = [*handlers.CALLS], []
        assert (await jobs_queue.drain()).outcomes == [("shop.tidy", "done")]
        assert await payments(jobs_queue) == pause
        handlers.CALLS[:] = cut_in
    assert pause > 2


async def test_a_pause_that_does_not_come_is_no_crash(jobs_queue: Queue) -> None:
    jobs_queue.crash_next("shop.when", at=1000)
    await jobs_queue.enqueue("shop.when")
    assert (await jobs_queue.drain()).outcomes == [("shop.when", "done")]


async def test_a_row_that_kills_three_workers_is_dead(jobs_queue: Queue) -> None:
    jobs_queue.crash_next("shop.receipt", times=3)
    job = await jobs_queue.enqueue("shop.receipt", {"order": 7})
    assert (await jobs_queue.drain()).outcomes == [("shop.receipt", "crashed")] * 3
    await jobs_queue.assert_dead(job, crashes=3, reason="crashed")


async def test_those_beside_it_die_too() -> None:
    async with testing.queue(handlers=[handlers], concurrency=2) as queue:
        queue.crash_next("shop.receipt", at="start")
        await queue.enqueue("shop.hang", priority=1)
        await queue.enqueue("shop.receipt", {"order": 7})
        ran = await queue.drain(max_jobs=2)
        assert sorted(ran.outcomes) == [("shop.hang", "crashed"), ("shop.receipt", "crashed")]
        assert [(row.crashes, row.state) for row in await queue.jobs()] == [(1, "ready")] * 2


async def test_a_commit_whose_answer_is_lost_counts_once(jobs_queue: Queue) -> None:
    jobs_queue.lose_answer()
    job = await jobs_queue.enqueue("shop.when")
    assert (await jobs_queue.drain()).outcomes == [("shop.when", "done")]
    await jobs_queue.assert_done(job, attempt=1)
    assert len(await jobs_queue.history()) == 1


@pytest.mark.parametrize("at", [None, 1, 2, 1000])
async def test_a_job_may_run_twice(jobs_queue: Queue, at: int | None) -> None:
    jobs_queue.duplicate("shop.receipt", at=at)
    await jobs_queue.enqueue("shop.receipt", {"order": 7})
    assert (await jobs_queue.drain()).outcomes == [("shop.receipt", "done")]
    assert [sent.json for sent in jobs_queue.http.requests] == [{"order": 7}, {"order": 7}]


async def test_what_must_happen_once_is_checked_in_every_pause(jobs_queue: Queue) -> None:
    tried = await jobs_queue.check_idempotent("shop.charge", {"order": 7}, state=lambda: charges(jobs_queue))
    assert tried.state == [7]
    assert tried.pauses >= 4
    assert await charges(jobs_queue) == []
    await jobs_queue.assert_not_enqueued()


async def test_looking_before_acting_is_found_out(jobs_queue: Queue) -> None:
    with pytest.raises(
        AssertionError, match=r"'shop\.charge_twice' run a second time while the first stands still in pause"
    ):
        await jobs_queue.check_idempotent("shop.charge_twice", {"order": 7}, state=lambda: payments(jobs_queue))


async def test_two_commits_that_belong_together_are_found_out(jobs_queue: Queue) -> None:
    with pytest.raises(AssertionError, match=r"'shop.half' killed in pause \d+, and run again"):
        await jobs_queue.check_idempotent("shop.half", {"order": 7}, state=lambda: payments(jobs_queue))


async def test_a_check_begins_where_the_test_stands(jobs_queue: Queue) -> None:
    await jobs_queue.pool.execute("insert into orders values (10, 1)")
    await jobs_queue.clock.advance("1h")
    before = jobs_queue.clock.now
    await jobs_queue.check_idempotent("shop.charge", {"order": 10}, state=lambda: charges(jobs_queue), points=2)
    assert await jobs_queue.pool.fetchval("select now()") == before == jobs_queue.clock.now


async def test_a_job_that_is_not_done_at_once_cannot_be_checked(jobs_queue: Queue) -> None:
    with pytest.raises(AssertionError, match="is not done at its first attempt"):
        await jobs_queue.check_idempotent("shop.broken", state=lambda: payments(jobs_queue))
