"""What webhooks of other systems are known to get wrong: real daemons, and receivers that misbehave so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import asyncpg
import pytest

from daemon.breaker import budget
from daemon.work_settings import LaneSettings
from jobs.values import duration
from tests.jobs.webhook.server import Answer, Request, Server, responds, stays_silent
from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet, empty, ended, insert, until, until_sql
from tests.life.test_endpoints_fleet import CONFIG, emit

pytestmark = pytest.mark.req("BJ-15", "OR-15")

QUEUE = "[queues.default]\nconcurrency = 100\n"


async def endpoint(pool: asyncpg.Pool, url: str, name: str = "main", **columns: object) -> int:
    columns = {"name": name, "url": url, "signing": [], **columns}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    found: int = await pool.fetchval(
        f"insert into webhook_endpoints ({', '.join(columns)}) values ({places}) returning id", *columns.values()
    )
    return found


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


@asynccontextmanager
async def nobody() -> AsyncIterator[str]:
    """A URL where nobody listens."""
    async with Server(responds(204)) as server:
        url = server.url()
    yield url


async def test_while_receivers_think_nothing_is_held_in_postgres_and_their_connections_are_used_again(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    release = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await responds(204)(request, writer)

    await fleet.start("a", CONFIG + QUEUE, DATABASE__POOL_SIZE="3")
    async with Server(answer) as server:
        ids = await insert(pool, "webhook", 60, {"url": server.url(), "payload": {"n": 1}})
        await until(lambda: len(server.requests) == 60, lambda: f"{len(server.requests)} of 60 are under way")
        async with pool.acquire() as conn, conn.transaction():
            free = await conn.fetch("select id from jobs where id = any ($1::bigint[]) for update skip locked", ids)
            assert len(free) == 60, "no row is locked while its receiver thinks"
        open_ones = "select count(*) from pg_stat_activity where datname = current_database() and {}"
        assert await pool.fetchval(open_ones.format("state like 'idle in transaction%'")) == 0
        release.set()
        await ended(pool, ids)
        opened = server.connections
        assert opened <= 60
        for _ in range(3):
            await ended(pool, await insert(pool, "webhook", 20, {"url": server.url(), "payload": {"n": 1}}))
        assert len(server.requests) == 120
        assert server.connections == opened, "nobody makes a connection for each delivery"


async def test_a_daemon_that_stops_in_the_middle_says_so_and_the_message_comes_again_under_its_id(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    daemon = await fleet.start("a", CONFIG, DAEMON__DRAIN_TIMEOUT="100ms")
    async with Server(stays_silent) as server:
        (id_,) = await insert(pool, "webhook", 1, {"url": server.url(), "payload": {"n": 1}})
        await server.arrived.wait()
        assert await daemon.stop() == 0
        row = await pool.fetchrow("select state, attempt from jobs where id = $1", id_)
        assert row is not None
        assert tuple(row) == ("ready", 1), "the receiver may have acted on it"
        said = await pool.fetchrow("select outcome, code, request_bytes from webhook_deliveries")
        assert said is not None
        assert tuple(said) == ("unknown", "interrupted", len('{"n": 1}'))
        server.answer = responds(204)
        await pool.execute("update jobs set run_at = now(), gate = '' where id = $1", id_)
        await fleet.start("b", CONFIG)
        await ended(pool, [id_])
    assert [request.headers["webhook-id"] for request in server.requests] == [f"msg_{id_}"] * 2
    assert len({request.body for request in server.requests}) == 1


async def test_a_410_may_be_ignored(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start("a", CONFIG)
    async with Server(responds(410)) as server:
        await endpoint(pool, server.url(), gone="ignore", profile="quick")
        await emit(pool, 2)
        await until(lambda: len(server.requests) >= 4, lambda: "each is tried again")
        server.answer = responds(204)
        await empty(pool)
    assert await pool.fetchval("select state = 'enabled' and gone_at is null from webhook_endpoints")
    assert await pool.fetchval("select count(*) from job_history where state = 'done'") == 2


@pytest.mark.parametrize(("status", "asked", "at_least_s"), [(429, "999999999", 86_000), (503, "3600", 3_500)])
async def test_a_receiver_that_asks_for_time_is_left_alone_with_all_of_its_messages_and_never_for_ever(
    status: int, asked: str, at_least_s: int, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    config = CONFIG.partition("[lanes")[0]
    async with Server(responds(status, f"retry-after: {asked}")) as busy, Server(responds(204)) as well:
        await fleet.start("a", config)
        of = await endpoint(pool, busy.url(), "busy", profile="quick")
        await endpoint(pool, well.url(), "well")
        await emit(pool, 100)
        await until(lambda: len(well.requests) >= 100, lambda: f"{len(well.requests)} of the others'")
        await until_sql(pool, "select count(*) = 100 from jobs where gate in ('later', $1)", f"lane:endpoint:{of}")
        assert len(busy.requests) <= LaneSettings().start, "those that were under way when it said so"
    hold = await pool.fetchrow("select cause, date_part('epoch', until - now()) as left_s from job_holds")
    assert hold is not None
    assert hold["cause"] == "retry_after"
    assert at_least_s <= hold["left_s"] <= 86_400


async def test_a_proxy_that_is_away_charges_nobody(fleet: Fleet, pool: asyncpg.Pool) -> None:
    async with nobody() as proxy:
        config = CONFIG.replace("allow_http = true", f'proxy = "{proxy.removesuffix("/hook")}"')
        await fleet.start("a", config)
        of = await endpoint(pool, "https://shop.example:8443/", profile="quick")
        await emit(pool, 5)
        await until_sql(pool, "select count(*) = 5 from webhook_deliveries where code = 'proxy_unreachable'")
        await until_sql(pool, "select count(*) = 5 from jobs where state = 'ready' and run_at > now()")
    assert await pool.fetchval("select array_agg(distinct attempt) from jobs") == [0]
    assert await pool.fetchval("select count(*) from job_holds where gate = $1", f"lane:endpoint:{of}") == 0
    assert await pool.fetchval("select failing_since is null from webhook_endpoints")


@pytest.mark.parametrize("how", ["refuses", "hangs", "fails"])
async def test_one_endpoint_that_is_dead_costs_those_beside_it_on_its_host_nothing(
    how: str, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    lanes = LaneSettings(open=duration("1s"), open_max=duration("4s"), probe_timeout=duration("6s"))
    held = '[lanes."*"]\nopen = "1s"\nopen_max = "4s"\nprobe_timeout = "6s"\n'
    config = CONFIG.partition("[lanes")[0] + held
    config += '[webhook.profiles.stubborn]\nretry = ["200ms", "200ms", "200ms", "200ms", "1h"]\njitter = 0\n'
    ways: dict[str, Answer] = {"hangs": stays_silent, "fails": responds(500)}
    async with nobody() as gone, Server(ways.get(how, responds(500))) as ill, Server(responds(204)) as well:
        await fleet.start("a", config)
        began = monotonic()
        dead = await endpoint(pool, gone if how == "refuses" else ill.url(), "dead", profile="stubborn")
        await pool.execute("update webhook_endpoints set timeout = '500 ms'")
        await endpoint(pool, well.url(), "well")
        await emit(pool, 300)
        await until(lambda: len(well.requests) >= 300, lambda: f"{len(well.requests)} of the others'")
        await until_sql(pool, "select count(*) = 1 from job_holds where gate = $1", f"lane:endpoint:{dead}")
        tried = "select count(*) from webhook_deliveries where endpoint_id = $1"
        await until_sql(pool, f"select ({tried}) > 0", dead)
        assert await pool.fetchval(tried, dead) <= budget(lanes, monotonic() - began, daemons=1)
    words = await pool.fetch("select distinct outcome, code from webhook_deliveries where endpoint_id = $1", dead)
    expected = {
        "refuses": ("retry", "connection_refused"),
        "hangs": ("unknown", "timeout"),
        "fails": ("retry", "http_500"),
    }
    assert [tuple(row) for row in words] == [expected[how]]


async def test_a_dead_letter_that_is_retried_is_the_same_message(
    fleet: Fleet, pool: asyncpg.Pool, terminal: Terminal
) -> None:
    payload = '{"amount": 1.10, "name": "\\u00e9é", "big": 12345678901234567890123}'
    await fleet.start("a", CONFIG.replace("[webhook]", "[webhook]\npermanent_statuses = [404]"))
    async with Server(responds(404)) as server:
        await endpoint(pool, server.url())
        await pool.execute("insert into webhook_events (event, payload) values ('a.b', $1::text::json)", payload)
        await insert(pool, "webhook", 1, {"url": server.url(), "payload": {"b": 1, "a": 1.5}})
        await until_sql(pool, "select count(*) = 2 from job_history where state = 'dead'")
        server.answer = responds(204)
        await terminal.ok("dead", "retry", *(row["id"] for row in await pool.fetch("select id from job_history")))
        await until(lambda: len(server.requests) == 4, lambda: "they come again")
        await empty(pool)
    sent = Counter((request.headers["webhook-id"], request.body) for request in server.requests)
    assert sorted(sent.values()) == [2, 2]
    assert payload.encode() in {body for _id, body in sent}
