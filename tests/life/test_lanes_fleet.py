"""A dead destination costs the others nothing, itself no more than its budget, and gets everything once it is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import asyncpg
import pytest
from aiohttp import web

from daemon.breaker import budget
from daemon.work_settings import LaneSettings
from jobs.values import duration
from tests.life.fleet import LONG, Fleet, Member, each_ended_once, ended, insert, until, until_sql
from tests.life.served import served

WELL, DEAD = "127.0.0.1", "127.0.0.2"
LANES = LaneSettings(open=duration("1s"), open_max=duration("4s"), probe_timeout=duration("6s"))
CONFIG = """
[webhook]
allow_http = true
allow_addresses = ["127.0.0.0/8"]
allow_ports = ["1024-65535"]
timeout = "4s"
[kinds.webhook]
attempts = 100
backoff = "fixed"
delay = "500ms"
[lanes."*"]
open = "1s"
open_max = "4s"
probe_timeout = "6s"
"""


class Sink:
    """A server on one address of the loopback, that may be silent."""

    def __init__(self) -> None:
        self.port = 0
        self.silent = False
        self.asked = 0
        self._calm = asyncio.Event()

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        if self.silent:
            await self._calm.wait()
        return web.Response(status=204)

    @asynccontextmanager
    async def listening(self, address: str, port: int = 0) -> AsyncIterator[Sink]:
        app = web.Application()
        app.router.add_post("/", self.answer)
        async with served(app, address, port) as self.port:
            try:
                yield self
            finally:
                self._calm.set()


async def webhooks(pool: asyncpg.Pool, address: str, port: int, count: int) -> list[int]:
    return await insert(pool, "webhook", count, {"url": f"http://{address}:{port}/", "payload": {"n": 1}})


async def tried(pool: asyncpg.Pool, address: str) -> int:
    """Attempts that ended, by the log of deliveries."""
    return int(await pool.fetchval("select count(*) from webhook_deliveries where url like $1", f"http://{address}:%"))


async def prober(pool: asyncpg.Pool, fleet: Fleet) -> Member:
    name = await pool.fetchval(
        "select name from job_workers where id = (select (detail ->> 'probe')::bigint from job_holds)"
    )
    return next(member for member in fleet.members if member.name == name)


@pytest.mark.req("BJ-15")
async def test_a_dead_destination_beside_a_living_one(fleet: Fleet, pool: asyncpg.Pool) -> None:
    rows = 2000 if LONG else 500
    async with Sink().listening(DEAD) as gone:
        port = gone.port  # free from now on: it refuses
    async with Sink().listening(WELL) as sink:
        for name in "ab":
            await fleet.start(name, CONFIG)
        began = monotonic()
        for_dead = await webhooks(pool, DEAD, port, rows)
        for_well = await webhooks(pool, WELL, sink.port, rows)
        await ended(pool, for_well)
        assert rows <= sink.asked <= await tried(pool, WELL)  # more, where an answer came too late on a busy machine
        await until_sql(pool, "select count(*) = 0 from jobs where gate = '' and state = 'ready' and run_at <= now()")
        attempts = await tried(pool, DEAD)
        assert 5 <= attempts <= budget(LANES, monotonic() - began, daemons=2)
        assert await pool.fetchval("select count(*) from jobs where attempt = 0") >= rows - attempts
        hold = await pool.fetchrow("select gate, cause, reason from job_holds")
        assert hold is not None
        assert (hold["gate"], hold["cause"]) == (f"lane:{DEAD}", "breaker")

        silent = Sink()
        silent.silent = True
        async with silent.listening(DEAD, port):
            await until(lambda: silent.asked, lambda: "a probe hangs")
            victim = await prober(pool, fleet)
            await victim.perish(pool)
            asked = silent.asked
            await until(lambda: silent.asked > asked, lambda: "the other daemon probes")
            assert await tried(pool, DEAD) <= budget(LANES, monotonic() - began, daemons=2)

        back = Sink()
        async with back.listening(DEAD, port):
            again = await webhooks(pool, DEAD, port, 50)
            await ended(pool, [*for_dead, *again])
    await each_ended_once(pool, [*for_well, *for_dead, *again])
    assert await pool.fetchval("select count(*) from job_holds") == 0
    assert await pool.fetchval("select count(*) from job_history where state <> 'done'") == 0


async def test_a_destination_that_asks_for_time_is_given_it_by_all(fleet: Fleet, pool: asyncpg.Pool) -> None:
    sink, busy = Sink(), [True]

    async def busy_first(_request: web.Request) -> web.Response:
        sink.asked += 1
        return web.Response(status=429, headers={"retry-after": "2"}) if busy[0] else web.Response(status=204)

    sink.answer = busy_first  # type: ignore[method-assign]
    async with sink.listening(DEAD):
        for name in "ab":
            await fleet.start(name, CONFIG)
        ids = await webhooks(pool, DEAD, sink.port, 300)
        await until_sql(pool, "select exists (select from job_holds where cause = 'retry_after' and until > now())")
        assert sink.asked <= 2 * LANES.start
        busy[0] = False
        await ended(pool, ids)
    assert sink.asked <= 300 + 2 * LANES.start + 2, "each once, but for those that were told to wait"
    worst = await pool.fetchval("select max(attempt) from job_history")
    assert worst <= 4
    assert json.loads(await pool.fetchval("select to_json(array_agg(distinct lane)) from job_history")) == [DEAD]
