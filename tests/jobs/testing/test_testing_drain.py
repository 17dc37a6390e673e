"""A drain runs what is due now, with the real engine, and says what came of it."""

from __future__ import annotations

import asyncio

import pytest

from jobs import testing
from jobs.testing import NotEnqueued, Queue, StillBusy
from tests.jobs.testing.shop import handlers


async def test_a_job_runs_and_so_does_what_it_enqueues(jobs_queue: Queue) -> None:
    charge = await jobs_queue.enqueue("shop.charge", {"order": 7})
    ran = await jobs_queue.drain()
    assert ran.outcomes == [("shop.charge", "done"), ("shop.receipt", "done")]
    assert ran.of("shop.charge").one().result == {"cents": 1999}
    assert ran[0].id == charge
    assert ran[0].duration_s > 0
    row = await jobs_queue.assert_done(charge, result={"cents": 1999})
    assert (row.attempt, row.finished_at) == (1, jobs_queue.clock.now)
    await jobs_queue.assert_not_enqueued()


async def test_nothing_is_due(jobs_queue: Queue) -> None:
    assert (await jobs_queue.drain()).outcomes == []


async def test_jobs_run_by_class_then_by_age_over_all_queues(jobs_queue: Queue) -> None:
    for queue, priority in (("b", 3), ("a", 3), ("b", 1), ("a", 2), ("b", 1)):
        await jobs_queue.enqueue("shop.when", queue=queue, priority=priority)
    ran = await jobs_queue.drain()
    assert [one.job.priority for one in ran.of("shop.when") if one.job.queue == "b"] == [1, 1, 3]
    assert [one.job.priority for one in ran if one.job.queue == "a"] == [2, 3]


async def test_rows_of_a_producer_in_a_transaction_of_its_own(jobs_queue: Queue) -> None:
    async with jobs_queue.pool.acquire() as conn, conn.transaction():
        await conn.execute("insert into orders values (9, 100)")
        await conn.execute("insert into jobs (kind, args) values ('shop.charge', '{\"order\": 9}')")
        assert (await jobs_queue.drain()).outcomes == []
    await jobs_queue.assert_enqueued("shop.charge", {"order": 9}, org_id=None)
    assert (await jobs_queue.drain(max_jobs=1)).one().result == {"cents": 100}


async def test_a_drain_stops_after_so_many_and_leaves_the_others_untouched(jobs_queue: Queue) -> None:
    for queue in ("a", "b", "c"):
        await jobs_queue.enqueue("shop.when", queue=queue)
    assert len(await jobs_queue.drain(max_jobs=1)) == 1
    assert [(row.state, row.attempt) for row in await jobs_queue.jobs()] == [("ready", 0), ("ready", 0)]
    assert len(await jobs_queue.drain()) == 2


async def test_a_drain_stops_where_it_is_told_to(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.charge", {"order": 7})
    ran = await jobs_queue.drain(until=lambda ran: ran.kind == "shop.charge")
    assert ran.outcomes == [("shop.charge", "done")]
    await jobs_queue.assert_enqueued("shop.receipt", {"order": 7}, attempt=0)


async def test_what_until_raises_is_the_tests_own(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when")
    with pytest.raises(ZeroDivisionError):
        await jobs_queue.drain(until=lambda ran: bool(1 / 0))
    await jobs_queue.assert_done("shop.when")


async def test_a_mistake_in_a_handler_is_a_retry_with_the_error_beside_it(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.broken")
    ran = (await jobs_queue.drain()).one()
    assert (ran.outcome, ran.code) == ("retry", "exception")
    assert isinstance(ran.error, KeyError)
    await jobs_queue.assert_retrying("shop.broken", attempt=1, code="exception")


async def test_a_mistake_is_raised_where_it_should_be(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.broken")
    await jobs_queue.enqueue("shop.when")
    with pytest.raises(KeyError, match="a mistake"):
        await jobs_queue.drain(raise_errors=True)
    await jobs_queue.assert_retrying("shop.broken")
    await jobs_queue.assert_enqueued("shop.when", attempt=0)


async def test_an_outcome_of_the_handlers_choice_is_no_mistake(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.charge", {"order": 404})
    assert (await jobs_queue.drain(raise_errors=True)).one().error is None
    await jobs_queue.assert_dead("shop.charge", code="order_gone", reason="no such order")


async def test_args_that_do_not_fit_are_dead_without_a_call(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.charge", {"ordr": 7})
    assert (await jobs_queue.drain()).one().code == "invalid_args"


async def test_a_job_that_enqueues_itself_without_end_is_found(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.again")
    assert len(await jobs_queue.drain(max_jobs=3)) == 3
    with pytest.raises(StillBusy, match="20 attempts were made"):
        await jobs_queue.drain_all(max_jobs=20)


async def test_kinds_that_are_not_served_wait(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("email", {"to": "a@b.example", "subject": "x", "text": "y"})
    assert (await jobs_queue.drain_all()).outcomes == []
    await jobs_queue.assert_enqueued("email", {"subject": "x"}, gate="kind:email")


async def test_only_the_kinds_of_the_handlers_given_are_served() -> None:
    async with testing.queue(handlers=[handlers.receipt]) as queue:
        await queue.enqueue("shop.receipt", {"order": 7})
        await queue.enqueue("shop.when")
        assert (await queue.drain()).outcomes == [("shop.receipt", "done")]
    async with testing.queue(handlers=[handlers]) as queue:
        await queue.enqueue("shop.when")
        assert (await queue.drain()).outcomes == [("shop.when", "done")]


async def test_jobs_run_beside_each_other_where_a_test_wants_it() -> None:
    async with testing.queue(handlers=[handlers], concurrency=3) as queue:
        handlers.MEETING = asyncio.Barrier(3)
        for _ in range(3):
            await queue.enqueue("shop.meet")
        assert (await queue.drain()).outcomes == [("shop.meet", "done")] * 3


async def test_keys_and_orders_hold_as_they_do_in_production(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when", unique_key="u")
    with pytest.raises(NotEnqueued):
        await jobs_queue.enqueue("shop.when", unique_key="u")
    first = await jobs_queue.enqueue("shop.later", {"now": True}, ordering_key="k", priority=4)
    second = await jobs_queue.enqueue("shop.later", {"now": True}, ordering_key="k", priority=1)
    ran = await jobs_queue.drain()
    assert [one.id for one in ran.of("shop.later")] == [first, second]


async def test_a_column_that_does_not_exist_is_refused(jobs_queue: Queue) -> None:
    with pytest.raises(Exception, match='"colour" of relation "jobs" does not exist'):
        await jobs_queue.enqueue("shop.when", colour="red")


async def test_tests_do_not_see_each_others_rows(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when")
    async with testing.queue(handlers=[handlers]) as other:
        assert await other.jobs() == []
    assert len(await jobs_queue.jobs()) == 1


async def test_what_handlers_log_goes_to_where_test_runners_look(
    jobs_queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await jobs_queue.enqueue("shop.broken")
    await jobs_queue.drain()
    assert "job_failed" in caplog.text
    assert "a mistake" in caplog.text
