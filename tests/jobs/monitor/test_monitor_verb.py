"""Monitors in a database: what checks leave there, and that people are told exactly once, whatever dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from jobs.model import Done
from jobs.testing import Queue, queue
from tests.jobs.catalogue.house import killed_everywhere, rehearsed
from tests.jobs.webhook.server import OK, Request, Server, responds, says

CONFIG = """
[monitor]
allow_addresses = ["127.0.0.0/8"]
tell = ["ops@shop.example"]
[jobs.shop]
verb = "monitor"
target = "{target}"
expires = "0"
patience = "60s"
confirm = "{confirm}"
timeout = "2m"
"""

TOLD = """
select event, org_id, payload ->> 'code' as code, (payload ->> 'lasted_s') is not null as lasted from webhook_events
where event like 'jobsd.monitor%' order by id
"""
WRITTEN = """
select args ->> 'subject' as subject, args -> 'to' as recipients from jobs
where kind = 'email' order by id
"""


class Shop(Server):
    """Well, or not."""

    def __init__(self) -> None:
        super().__init__(self._answers)
        self.status = 200

    async def _answers(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await (says(OK) if self.status == 200 else responds(self.status))(request, writer)


@asynccontextmanager
async def watched(confirm: str = "0") -> AsyncIterator[tuple[Queue, Shop, str]]:
    async with Shop() as shop:
        config = CONFIG.format(target=shop.url("/"), confirm=confirm)
        async with queue(config=config, handlers=[]) as made:
            yield made, shop, config


async def look(queue: Queue, *statuses: int, shop: Shop) -> None:
    for status in statuses:
        shop.status = status
        await queue.enqueue("shop")
        ran = await queue.drain_all()
        assert ran.of("shop")[-1].outcome == "done", ran


async def told(queue: Queue) -> list[str]:
    return [row["event"].removeprefix("jobsd.monitor_") for row in await queue.pool.fetch(TOLD)]


@pytest.mark.req("JD-04")
async def test_an_incident_is_told_of_when_it_begins_and_when_it_is_over_and_not_between() -> None:
    async with watched() as (queue, shop, _config):
        await look(queue, 200, 503, 503, shop=shop)
        assert await told(queue) == []
        await look(queue, 503, 503, 503, 200, 503, shop=shop)
        assert await told(queue) == ["down"]
        await look(queue, 200, 200, 200, shop=shop)
        assert await told(queue) == ["down", "up"]
        events = await queue.pool.fetch(TOLD)
        assert [(row["org_id"], row["code"], row["lasted"]) for row in events] == [
            (None, "http_503", False),
            (None, "", True),
        ]
        mails = await queue.pool.fetch(WRITTEN)
        assert [row["subject"] for row in mails] == ["shop is down", "shop is well again"]
        assert {row["recipients"] for row in mails} == {'["ops@shop.example"]'}
        [row] = await queue.pool.fetch("select * from monitors")
        assert (row["state"], row["incidents"], row["began_at"], row["told"]) == ("up", 1, None, None)
        checks = await queue.pool.fetch("select outcome, code, state, notice from monitor_checks order by ended_at")
        assert [check["state"] for check in checks] == ["up"] * 3 + ["down"] * 6 + ["up"] * 2
        assert [check["notice"] for check in checks if check["notice"]] == ["down", "up"]
        assert {check["code"] for check in checks} == {"", "http_503"}


@pytest.mark.req("JD-04")
async def test_a_check_that_decides_nothing_is_made_again_soon_by_the_same_row() -> None:
    async with watched(confirm="30s") as (queue, shop, _config):
        await look(queue, 200, shop=shop)
        began_at = await queue.pool.fetchval("select now()")
        shop.status = 500
        await queue.enqueue("shop")
        ran = await queue.drain_all()
        assert [one.outcome for one in ran.of("shop")] == ["snooze", "snooze", "done"]
        assert await told(queue) == ["down"]
        assert await queue.pool.fetchval("select count(*) from monitor_checks") == 4
        assert await queue.pool.fetchval("select now()") - began_at < timedelta(minutes=5)
        shop.status = 200
        await queue.enqueue("shop")
        assert [one.outcome for one in (await queue.drain_all()).of("shop")] == ["snooze", "done"]
        assert await told(queue) == ["down", "up"]


@pytest.mark.req("JD-04", "BJ-27")
async def test_killed_in_any_pause_it_tells_once_all_the_same() -> None:
    async with watched() as (queue, shop, _config):

        async def seed() -> None:
            await queue.pool.execute("truncate monitors, monitor_checks, webhook_events; delete from jobs")
            await queue.pool.execute("delete from job_history")
            await look(queue, 200, 503, 503, shop=shop)
            shop.status = 503

        async def state() -> Any:
            [row] = await queue.pool.fetch("select state, told, incidents, failures from monitors")
            mails = await queue.pool.fetchval("select count(*) from jobs where kind = 'email'")
            return tuple(row), await told(queue), mails

        pauses = await killed_everywhere(queue, "shop", seed, state, step=5)
        assert pauses >= 5
        assert await state() == (("down", "down", 1, 3), ["down"], 1)


@pytest.mark.req("JD-04")
async def test_a_check_that_read_what_another_has_changed_is_kept_and_tells_nobody() -> None:
    line = {
        "job_id": 1, "attempt": 1, "monitor": "shop", "target": "tcp://a:1", "version": 0, "was": "up", "state": "down",
        "failures": 3, "troubles": 3, "answers": 0, "goods": 0, "told": "down", "outcome": "failed", "code": "timeout",
        "reason": "no end", "latency_ms": 1.0, "phases": {}, "notice": "down", "payload": {"monitor": "shop"},
        "mail": {"to": ["a@x.example"], "subject": "s", "text": "t"},
    }  # fmt: skip
    async with watched() as (queue, _shop, _config):
        say = "select monitor_checks_said($1::text::jsonb)"
        assert await queue.pool.fetchval(say, json.dumps([line | {"org_id": "acme"}])) == 1
        assert await queue.pool.fetchval(say, json.dumps([line])) == 0
        assert await queue.pool.fetchval(say, json.dumps([line | {"version": 7}])) == 0
        assert await queue.pool.fetchval("select count(*) from monitor_checks") == 3
        events = await queue.pool.fetch("select org_id from webhook_events order by id")
        assert [row["org_id"] for row in events] == [None, "acme"], "the operator's endpoints, and its organisation's"
        assert await queue.pool.fetchval("select count(*) from jobs where kind = 'email'") == 1
        assert [row[0] for row in await queue.pool.fetch("select state from monitor_checks order by notice")] == [
            *("down", "up", "up")
        ]


async def test_two_at_once_are_one_after_the_other_and_tell_once() -> None:
    async with watched() as (queue, shop, _config):
        await look(queue, 200, 503, 503, shop=shop)
        shop.status = 503
        for _ in range(4):
            await queue.enqueue("shop")
        await queue.drain_all()
        assert await told(queue) == ["down"]
        assert await queue.pool.fetchval("select version from monitors") == 7


@pytest.mark.req("JD-04")
async def test_checks_from_before_nobody_looked_for_a_day_do_not_count() -> None:
    """As when the daemon was away: its first check, before the network is up, must not be the third in a row."""
    async with watched(confirm="30s") as (queue, shop, _config):
        await look(queue, 200, shop=shop)
        shop.status = 503
        await queue.enqueue("shop")
        await queue.drain()
        await queue.clock.advance("30s")
        await queue.drain()
        await queue.pool.execute("delete from jobs")  # and then the daemon was away
        assert await queue.pool.fetchval("select failures from monitors") == 2
        await queue.clock.advance("1d")
        await queue.enqueue("shop")
        assert [one.outcome for one in await queue.drain()] == ["snooze"]
        assert await told(queue) == []
        shop.status = 200
        await queue.drain_all()
        assert (await told(queue), await queue.pool.fetchval("select began_at from monitors")) == ([], None)


@pytest.mark.req("JD-04")
async def test_an_incident_lasts_from_its_first_bad_check_also_over_a_day_without_checks() -> None:
    async with watched(confirm="30s") as (queue, shop, _config):
        await look(queue, 200, shop=shop)
        began_at = await queue.clock.advance("5m")
        shop.status = 503
        await queue.enqueue("shop")
        await queue.drain_all()
        await queue.clock.advance("1d")
        shop.status = 200
        await queue.enqueue("shop")
        await queue.drain_all()
        assert await told(queue) == ["down", "up"]
        said = await queue.pool.fetchval("select payload from webhook_events order by id desc limit 1")
        assert json.loads(said)["lasted_s"] == round((queue.clock.now - began_at).total_seconds())
        assert {row[0] for row in await queue.pool.fetch("select priority from jobs where kind = 'email'")} == {1}


async def test_the_end_of_a_certificate_is_known_while_it_is_down_and_not_after_a_good_check_without_one() -> None:
    async with watched() as (queue, shop, _config):
        await look(queue, 200, shop=shop)
        await queue.pool.execute("update monitors set expires_at = '2100-01-01'")
        await look(queue, 503, shop=shop)
        assert await queue.pool.fetchval("select expires_at from monitors") is not None
        await look(queue, 200, shop=shop)
        assert await queue.pool.fetchval("select expires_at from monitors") is None


async def test_a_rehearsal_looks_and_writes_nothing() -> None:
    async with watched() as (queue, shop, config):
        shop.status = 500
        said = await rehearsed(queue, config, "shop")
        assert isinstance(said, Done)
        assert (said.result["outcome"], said.result["code"], said.result["state"]) == ("failed", "http_500", "new")
        assert await queue.pool.fetchval("select count(*) from monitors") == 0


async def test_what_nobody_looks_at_any_more_is_forgotten() -> None:
    async with watched() as (queue, shop, _config):
        await look(queue, 200, shop=shop)
        import sql

        forget = sql.load("monitors.sql")["forget"]
        assert await queue.pool.execute(forget, 3600.0, 10) == "DELETE 0"
        await queue.pool.execute("update monitors set checked_at = checked_at - interval '2 hours'")
        assert await queue.pool.execute(forget, 3600.0, 10) == "DELETE 1"
