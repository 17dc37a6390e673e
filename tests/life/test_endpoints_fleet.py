"""What an endpoint says of itself holds over all daemons: state, rate, concurrency, ladder, order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from tests.life.fleet import LONG, PATIENCE_S, Fleet, empty, until, until_sql
from tests.life.served import served

pytestmark = pytest.mark.req("BJ-15", "OR-15")

CONFIG = """
[webhook]
allow_http = true
allow_addresses = ["127.0.0.0/8"]
allow_ports = ["1024-65535"]
timeout = "5s"
[webhook.profiles.quick]
retry = ["100ms", "100ms"]
jitter = 0
[webhook.profiles.slow]
retry = ["1h"]
[lanes."*"]
enabled = false
"""


LET_THROUGH = 25 if LONG else 20
"""Of a burst of 25, at least: a token that a busy machine is too late for is gone, and at 1/h no other comes."""


class Sink:
    """Answers, and remembers what came and how much of it at once."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[float, str, Any]] = []
        self.status = 204
        self.delay_s = 0.0
        self.now = self.most = 0
        self.done = 0
        self.crowd: list[tuple[int, int]] = []
        """At each arrival: how many are here, and how many had left."""
        self.refuse: set[int] = set()

    async def answer(self, request: web.Request) -> web.Response:
        self.now += 1
        self.most = max(self.most, self.now)
        self.crowd.append((self.now, self.done))
        try:
            body = await request.json()
            self.got.append((monotonic(), request.headers["webhook-id"], body))
            await asyncio.sleep(self.delay_s)  # a receiver that takes its time
            refused = isinstance(body, dict) and body.get("n") in self.refuse
            return web.Response(status=500 if refused else self.status)
        finally:
            self.now -= 1
            self.done += 1

    @property
    def numbers(self) -> list[int]:
        return [body["n"] for _at, _id, body in self.got]


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with listening() as sink:
        yield sink


@asynccontextmanager
async def listening() -> AsyncIterator[Sink]:
    sink, app = Sink(), web.Application()
    app.router.add_post("/", sink.answer)
    async with served(app) as port:
        sink.url = f"http://127.0.0.1:{port}/"
        yield sink


async def endpoint(pool: asyncpg.Pool, sink: Sink, name: str = "main", **columns: Any) -> int:
    columns = {"name": name, "url": sink.url, "signing": [], **columns}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    found: int = await pool.fetchval(
        f"insert into webhook_endpoints ({', '.join(columns)}) values ({places}) returning id", *columns.values()
    )
    return found


async def emit(pool: asyncpg.Pool, count: int, *, ordering_key: str | None = None) -> None:
    await pool.execute(
        "insert into webhook_events (event, payload, ordering_key) "
        "select 'a.b', json_build_object('n', n), $2 from generate_series(1, $1::int) as n",
        count,
        ordering_key,
    )


async def test_a_disabled_endpoints_rows_are_held_and_delivered_when_it_is_enabled(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    for name in "ab":
        await fleet.start(name, CONFIG.replace("enabled = false", ""))
    off = await endpoint(pool, sink, "off", state="disabled")
    async with listening() as other:
        await endpoint(pool, other, "on")
        await emit(pool, 300)
        await until(lambda: len(other.got) == 300, lambda: f"{len(other.got)} of the other's")
    await until_sql(pool, "select count(*) = 300 from jobs where gate = $1", f"lane:endpoint:{off}")
    assert sink.got == []
    assert await pool.fetchval("select max(attempt) from jobs where gate = $1", f"lane:endpoint:{off}") == 0
    sink.delay_s = 0.02
    await pool.execute("update webhook_endpoints set state = 'enabled' where id = $1", off)
    await empty(pool)
    assert sorted(sink.numbers) == list(range(1, 301)), "each once"
    assert await pool.fetchval("select max(attempt) from job_history") == 1
    first = [at for at, _id, _body in sink.got[:20]]
    assert first[3] - first[0] > 0.015, "one at a time at first, not all that had gathered"


async def test_rows_claimed_before_it_was_disabled_are_not_sent_after_it(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    await fleet.start("a", CONFIG)
    of = await endpoint(pool, sink)
    await emit(pool, 10)
    await empty(pool)
    await pool.execute("update webhook_endpoints set state = 'disabled'")
    await emit(pool, 10)
    await until_sql(pool, "select count(*) = 10 from jobs where gate = $1", f"lane:endpoint:{of}")
    assert len(sink.got) == 10


async def test_a_rate_holds_over_all_daemons_and_a_higher_one_counts_at_once(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    await endpoint(pool, sink, rate="20/s", burst=1)
    for name in "ab":
        await fleet.start(name, CONFIG)
    await emit(pool, 40)
    await empty(pool)
    times = [at for at, _id, _body in sink.got]
    assert times[-1] - times[0] >= 39 / 20 * 0.9
    await pool.execute("update webhook_endpoints set rate = '1/h'")
    await until(lambda: _slow_now(pool, sink), lambda: "the lower rate counts")
    await emit(pool, 50)
    await until_sql(pool, "select count(*) >= 50 from jobs where gate like 'limit:endpoint:%'")
    await pool.execute("update webhook_endpoints set rate = '1000/s', burst = 100")
    await empty(pool)


async def _slow_now(pool: asyncpg.Pool, sink: Sink) -> bool:
    """Whether a row that is inserted now waits."""
    before = len(sink.got)
    await emit(pool, 3)
    await asyncio.sleep(0.5)  # three rows of an unlimited endpoint are there in a tenth of it
    return len(sink.got) < before + 3


async def test_a_burst_is_let_through_at_once(fleet: Fleet, pool: asyncpg.Pool, sink: Sink) -> None:
    await endpoint(pool, sink, rate="1/h", burst=25)
    await fleet.start("a", CONFIG)
    await emit(pool, 40)

    async def others_wait() -> bool:
        waiting: int = await pool.fetchval("select count(*) from jobs where gate like 'limit:endpoint:%'")
        return len(sink.got) >= LET_THROUGH and len(sink.got) + waiting == 40

    await until(others_wait, lambda: f"{len(sink.got)} came")
    assert len(sink.got) <= 25


async def test_as_many_at_once_as_it_says_over_all_daemons(fleet: Fleet, pool: asyncpg.Pool, sink: Sink) -> None:
    sink.delay_s = 0.05
    await endpoint(pool, sink, concurrency=3)
    async with listening() as other:
        other.delay_s = 0.05
        await endpoint(pool, other, "free")
        for name in "ab":
            await fleet.start(name, CONFIG)
        await emit(pool, 60)
        await empty(pool)
        assert other.most > 3
    assert sink.most == 3
    assert len(sink.got) == 60


async def test_a_profile_says_when_and_how_often(fleet: Fleet, pool: asyncpg.Pool, sink: Sink) -> None:
    sink.status = 500
    of = {name: await endpoint(pool, sink, name, profile=name) for name in ("quick", "slow", "standard", "default")}
    await fleet.start("a", CONFIG)
    await emit(pool, 1)
    await until_sql(
        pool,
        "select count(*) = 1 from job_history where lane = $1 and attempt = 3 and state = 'dead'",
        f"endpoint:{of['quick']}",
    )
    waits = {
        name: await pool.fetchval(
            "select date_part('epoch', retry_at - ended_at) from job_attempts join jobs on jobs.id = job_id "
            "where lane = $1 order by ended_at limit 1",
            f"endpoint:{of[name]}",
        )
        for name in ("slow", "standard", "default")
    }
    assert 2800 <= waits["slow"] <= 4400
    assert 3.5 <= waits["standard"] <= 6.5
    assert 45 <= waits["default"] <= 75


@pytest.mark.parametrize("ordering", ["none", "block", "skip"])
async def test_order_is_kept_as_it_says(ordering: str, fleet: Fleet, pool: asyncpg.Pool, sink: Sink) -> None:
    sink.refuse = {1}
    sink.delay_s = 0.01
    await endpoint(pool, sink, ordering=ordering, profile="slow")
    await fleet.start("a", CONFIG)
    await emit(pool, 8, ordering_key="cart-7")
    if ordering == "block":
        await until_sql(pool, "select count(*) = 1 from job_attempts")
        await until_sql(pool, "select count(*) = 7 from jobs where gate = 'order'")
        assert sink.numbers == [1]
    else:
        await until(lambda: len(sink.got) == 8, lambda: f"{sink.numbers} came")
        assert (sink.most == 1) is (ordering == "skip")
        if ordering == "skip":
            assert sink.numbers == list(range(1, 9))


async def test_a_job_that_is_an_event_is_delivered(fleet: Fleet, pool: asyncpg.Pool, sink: Sink) -> None:
    await fleet.start("a", CONFIG)
    await endpoint(pool, sink, events=["invoice.*"])
    for event in ("invoice.paid", "user.made"):
        args = json.dumps({"event": event, "payload": {"n": 1}})
        await pool.execute("insert into jobs (kind, args) values ('webhook', $1)", args)
    await until(lambda: sink.got, lambda: "it comes")
    await empty(pool)
    assert sink.numbers == [1]
    row = await pool.fetchrow("select endpoint, endpoint_id, event, event_id, outcome from webhook_deliveries")
    assert row is not None
    assert tuple(row)[:3] == ("main", await pool.fetchval("select id from webhook_endpoints"), "invoice.paid")


@pytest.mark.parametrize("gone", ["immediate", "confirm"])
async def test_an_endpoint_that_says_it_is_gone_is_disabled_and_what_comes_then_is_held(
    gone: str, fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    await fleet.start("a", CONFIG)
    of = await endpoint(pool, sink, gone=gone)
    sink.status = 410
    await emit(pool, 1)
    if gone == "confirm":
        await until_sql(pool, "select gone_at is not null from webhook_endpoints")
        await pool.execute("update webhook_endpoints set gone_at = gone_at - interval '11 minutes'")
        await emit(pool, 1)
    await until_sql(pool, "select state = 'disabled' and disabled_by = 'jobsd' from webhook_endpoints")
    assert "410" in await pool.fetchval("select disabled_reason from webhook_endpoints")
    sent = len(sink.got)
    await emit(pool, 5)
    await until_sql(pool, "select count(*) = 5 from jobs where gate = $1", f"lane:endpoint:{of}")
    assert len(sink.got) == sent


async def test_an_endpoint_that_only_failed_for_days_is_disabled_and_comes_back_when_it_is_enabled(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    await fleet.start("a", CONFIG)
    await endpoint(pool, sink, profile="quick")
    sink.status = 500
    await emit(pool, 10)  # 30 attempts
    await until_sql(pool, "select failures >= 20 and cardinality(failed_messages) = 3 from webhook_endpoints")
    await pool.execute("update webhook_endpoints set failing_since = now() - interval '6 days'")
    async with asyncio.timeout(PATIENCE_S):
        while await pool.fetchval("select state from webhook_endpoints") == "enabled":
            await emit(pool, 1)
            await asyncio.sleep(0.1)  # what a daemon knows of an endpoint is two seconds old
    await emit(pool, 3)
    sink.status = 204
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    await empty(pool)
    async with asyncio.timeout(PATIENCE_S):  # a failure of before may be told of behind the successes
        while await pool.fetchval("select failing_since from webhook_endpoints") is not None:
            await emit(pool, 1)
            await empty(pool)


async def test_a_profile_that_a_daemon_does_not_have_is_told_of_once(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    daemon = await fleet.start("a", CONFIG)
    for name in "ab":
        await endpoint(pool, sink, name, profile="patient")
    await emit(pool, 5)
    await empty(pool)
    (line,) = await daemon.said("profile_unknown")
    assert line["name"] == "patient"
    assert line["lane"].startswith("endpoint:")
    assert len(sink.got) == 10
