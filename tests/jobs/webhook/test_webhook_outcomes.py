"""Each answer a real server may give, and what one attempt makes of it: outcome, log, what is said of the host."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobs.model import Dead, Done, Failure, Retry
from tests.jobs.webhook.server import OK, Request, Server, responds, says
from tests.jobs.webhook.world import world

DAY_S = 86400.0


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_success(status: int) -> None:
    async with Server(responds(status)) as server, world() as w:
        assert isinstance(await w.deliver(server.url()), Done)
    assert (w.record["outcome"], w.record["code"], w.record["status"]) == ("ok", f"http_{status}", status)


@pytest.mark.parametrize(
    ("status", "is_ill"),
    [
        *((status, False) for status in (400, 401, 403, 404, 405, 408, 413, 415, 422, 425)),
        *((status, True) for status in (429, 500, 502, 503, 504, 599)),
    ],
)
async def test_any_other_answer_is_tried_again_and_says_whether_the_receiver_is_well(status: int, is_ill: bool) -> None:
    async with Server(responds(status)) as server, world() as w:
        outcome = await w.deliver(server.url())
    assert isinstance(outcome, Retry)
    assert outcome.lane_fault is is_ill
    assert (w.record["outcome"], w.record["code"]) == ("retry", f"http_{status}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_that_names_the_host(status: int) -> None:
    async with Server(responds(status, "location: https://new.example/hook")) as server, world() as w:
        outcome = await w.deliver(server.url())
        assert len(server.requests) == 1
    assert isinstance(outcome, Retry)
    assert outcome.reason == "redirect_not_followed: new.example"


async def test_410_ends_the_message() -> None:
    async with Server(responds(410)) as server, world() as w:
        outcome = await w.deliver(server.url())
    assert isinstance(outcome, Dead)
    assert outcome.lane_fault is False
    assert (w.record["outcome"], w.record["code"]) == ("dead", "http_410")


async def test_a_status_that_the_operator_calls_permanent_ends_the_message() -> None:
    async with Server(responds(404)) as server, world(permanent_statuses=(404, 422)) as w:
        assert isinstance(await w.deliver(server.url()), Dead)
        server.answer = responds(400)
        assert isinstance(await w.deliver(server.url()), Retry)


@pytest.mark.parametrize("wish", ["abort-message", "disable"])
async def test_a_receivers_wish_about_delivery_counts_only_where_the_operator_says_so(wish: str) -> None:
    async with Server(responds(400, f"webhook-delivery: {wish}")) as server:
        for obeys, kind in ((False, Retry), (True, Dead)):
            async with world(obey_delivery_header=obeys) as w:
                outcome = await w.deliver(server.url())
            assert isinstance(outcome, kind)
            assert w.record["code"] == (wish if obeys else "http_400")


def _date(from_now: timedelta) -> str:
    return (datetime.now(UTC) + from_now).strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        ("120", 120.0, 120.0),
        (timedelta(minutes=10), 300.0, 600.0),
        ("0", 1.0, 1.0),
        (timedelta(days=-1), 1.0, 1.0),
        ("999999999", DAY_S, DAY_S),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY_S, DAY_S),
    ],
)
async def test_a_pause_that_is_asked_for_is_the_hosts_and_lies_between_a_second_and_a_day(
    status: int, asked: str | timedelta, low: float, high: float
) -> None:
    value = asked if isinstance(asked, str) else _date(asked)
    async with Server(responds(status, f"retry-after: {value}")) as server, world() as w:
        outcome = await w.deliver(server.url())
    assert isinstance(outcome, Retry)
    assert outcome.after_s is not None
    assert low <= outcome.after_s <= high
    assert outcome.lane_after_s == outcome.after_s


@pytest.mark.parametrize("asked", ["soon", "-5", "1.5", "", "9" * 100])
async def test_a_pause_that_nobody_can_read_is_none(asked: str) -> None:
    async with Server(responds(503, f"retry-after: {asked}")) as server, world() as w:
        outcome = await w.deliver(server.url())
    assert isinstance(outcome, Failure)
    assert outcome.lane_after_s is None


async def test_a_dead_pooled_connection_that_was_reset_costs_no_attempt_either() -> None:
    """The second time it is a fresh connection: if that fails as well, the attempt has failed."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            await says(OK)(request, writer)
        else:
            writer.transport.abort()

    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
        outcome = await w.deliver(server.url())
        assert len(server.requests) == 3
    assert isinstance(outcome, Retry)
    assert w.record["outcome"] == "unknown"


async def test_a_pooled_connection_that_is_slow_and_then_dies_is_not_tried_twice() -> None:
    """What takes longer than a second may have reached the receiver's code."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            await says(OK)(request, writer)
        else:
            await asyncio.sleep(1.1)
            writer.close()

    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
        await w.deliver(server.url())
        assert len(server.requests) == 2
    assert (w.record["outcome"], w.record["code"]) == ("unknown", "connection_closed")
