"""Assertions say what was there instead."""

from __future__ import annotations

import pytest

from jobs import Cancelled
from jobs.testing import Queue
from tests.jobs.testing.shop.handlers import Order


async def test_a_row_is_found_by_part_of_its_args_and_by_its_columns(jobs_queue: Queue) -> None:
    job = await jobs_queue.enqueue(
        "shop.mail", {"to": {"name": "Jo", "city": "Ulm"}, "n": 1}, org_id="acme", priority=1
    )
    row = await jobs_queue.assert_enqueued("shop.mail", {"to": {"city": "Ulm"}}, org_id="acme", priority=1, count=1)
    assert (row.id, row.state, row.columns["org_id"]) == (job, "ready", "acme")
    await jobs_queue.assert_enqueued(job)
    await jobs_queue.assert_not_enqueued("shop.mail", {"n": 2})
    await jobs_queue.assert_not_enqueued("shop.charge")


async def test_args_may_be_given_as_the_handlers_own_type(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.charge", Order(order=7))
    await jobs_queue.assert_enqueued("shop.charge", Order(order=7))


async def test_the_message_shows_the_nearest_rows(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.charge", {"order": 8}, org_id="acme")
    await jobs_queue.enqueue("shop.when")
    with pytest.raises(AssertionError) as caught:
        await jobs_queue.assert_enqueued("shop.charge", {"order": 7}, org_id="other")
    assert str(caught.value) == (
        "no waiting row of kind 'shop.charge', args {'order': 7}, org_id='other'; the nearest are:\n"
        "  #1 shop.charge ready, attempt 0, args {'order': 8}\n"
        "      args.order is 8, not 7; org_id is 'acme', not 'other'\n"
        "  #2 shop.when ready, attempt 0, args {}\n"
        "      its kind is 'shop.when'; args.order is not there; org_id is None, not 'other'"
    )


async def test_the_message_says_when_there_is_nothing(jobs_queue: Queue) -> None:
    with pytest.raises(AssertionError, match=r"no waiting row of kind 'shop\.charge'; there are no rows at all"):
        await jobs_queue.assert_enqueued("shop.charge")


async def test_how_many_counts_where_it_is_said(jobs_queue: Queue) -> None:
    for _ in range(7):
        await jobs_queue.enqueue("shop.when")
    await jobs_queue.assert_enqueued("shop.when", count=7)
    with pytest.raises(AssertionError, match=r"(?s)^7, not 2, waiting row.*fits.*and 2 more$"):
        await jobs_queue.assert_enqueued("shop.when", count=2)


async def test_what_waits_is_shown_where_nothing_should(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when", run_at="1h")
    with pytest.raises(AssertionError, match=r"waiting:\n  #1 shop\.when scheduled, attempt 0, args \{\}, due "):
        await jobs_queue.assert_not_enqueued()


async def test_each_way_to_end_has_its_assertion(jobs_queue: Queue) -> None:
    for status in (200, 404, 500):
        jobs_queue.http.reply("*", status)
        await jobs_queue.enqueue("shop.receipt", {"order": status})
        await jobs_queue.drain()
    jobs_queue.fail("shop.charge", Cancelled("no more"))
    await jobs_queue.enqueue("shop.charge", {"order": 7})
    await jobs_queue.enqueue("shop.charge", {"order": 404})
    await jobs_queue.drain()
    await jobs_queue.assert_done("shop.receipt", {"order": 200})
    await jobs_queue.assert_cancelled("shop.receipt", {"order": 404}, reason="nobody wants it")
    await jobs_queue.assert_retrying("shop.receipt", {"order": 500}, code="http", attempt=1)
    await jobs_queue.assert_cancelled("shop.charge", {"order": 7})
    await jobs_queue.assert_dead("shop.charge", {"order": 404}, code="order_gone")
    with pytest.raises(
        AssertionError, match=r"#5 shop\.charge dead, attempt 1, .*, order_gone: no such order\n +it is dead"
    ):
        await jobs_queue.assert_done("shop.charge", {"order": 404})


async def test_a_row_that_was_never_tried_is_not_being_retried(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when")
    with pytest.raises(AssertionError, match=r"no ready or scheduled row of kind 'shop\.when'"):
        await jobs_queue.assert_retrying("shop.when")


async def test_a_column_that_is_not_there_is_a_mistake_of_the_test(jobs_queue: Queue) -> None:
    await jobs_queue.enqueue("shop.when")
    with pytest.raises(TypeError, match="no column 'colour'"):
        await jobs_queue.assert_enqueued("shop.when", colour="red")
