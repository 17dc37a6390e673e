"""Each endpoint gets what it bears, and rows that have failed before keep no first attempt of others waiting."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import asyncpg
import pytest
from aiohttp import web

from daemon.sources import for_retries
from tests.life.fleet import Fleet, empty, ended, insert, until, until_sql
from tests.life.served import served

pytestmark = pytest.mark.req("BJ-15", "OR-15")

SLOTS = 20
CONFIG = f"""
[webhook]
allow_http = true
allow_addresses = ["127.0.0.0/8"]
allow_ports = ["1024-65535"]
timeout = "4m"
[kinds.webhook]
attempts = 100
backoff = "fixed"
delay = "100ms"
[queues.default]
concurrency = {SLOTS}
[lanes."*"]
open = "500ms"
open_max = "1s"
"""
STRONG = """
[lanes."127.*"]
start = 1000
"""


class Sink:
    """Paths that hold what comes until they are told to answer, or until they have more than they bear."""

    def __init__(self) -> None:
        self.port = 0
        self.status = {"failing": 404}
        self.bears: dict[str, int] = {}
        self.pause_s: dict[str, float] = {}
        self.asks_for_s: dict[str, int] = {}
        self.got: list[tuple[str, float, int]] = []  # path, when, status
        self.under_way: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._holding: dict[str, asyncio.Queue[None]] = {}

    def hold(self, path: str) -> None:
        self._holding[path] = asyncio.Queue()

    def let_go(self, path: str, count: int) -> None:
        """So many of those that are held, or come later, are answered."""
        for _ in range(count):
            self._holding[path].put_nowait(None)

    async def answer(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        self.asked[path] += 1
        status, headers = self.status.get(path, 204), {}
        if self.under_way[path] >= self.bears.get(path, SLOTS):
            status = 503
        elif path in self.asks_for_s:
            status, headers = 429, {"retry-after": str(self.asks_for_s.pop(path))}
        else:
            self.under_way[path] += 1
            self.most[path] = max(self.most[path], self.under_way[path])
            try:
                if path in self._holding:
                    await self._holding[path].get()
                await asyncio.sleep(self.pause_s.get(path, 0.0))  # a receiver that takes its time
            finally:
                self.under_way[path] -= 1
        self.got.append((path, monotonic(), status))
        return web.Response(status=status, headers=headers)

    def statuses(self, path: str) -> Counter[int]:
        return Counter(status for of, _at, status in self.got if of == path)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with listening() as sink:
        yield sink


@asynccontextmanager
async def listening() -> AsyncIterator[Sink]:
    sink, app = Sink(), web.Application()
    app.router.add_post("/{path}", sink.answer)
    async with served(app, "0.0.0.0") as sink.port:
        try:
            yield sink
        finally:
            for path in sink._holding:
                sink.let_go(path, 10_000)


async def failed_once(pool: asyncpg.Pool, sink: Sink, hosts: int, each: int) -> None:
    """Rows of so many failing destinations whose next attempts are due."""
    for n in range(hosts):
        url = sink.url("failing", f"127.0.1.{n + 1}")
        ids = await insert(pool, "webhook", each, {"url": url, "payload": {"n": n}})
        await pool.execute("update jobs set attempt = 1, gate = 'later' where id = any ($1::bigint[])", ids)


async def healthy(pool: asyncpg.Pool, sink: Sink, count: int) -> list[int]:
    return await insert(pool, "webhook", count, {"url": sink.url("healthy"), "payload": {"n": 1}})


async def test_a_crowd_of_retries_keeps_no_first_attempt_of_others_waiting(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    sink.hold("failing")
    await failed_once(pool, sink, 20, 100)
    await fleet.start("a", CONFIG + STRONG)
    await until(
        lambda: sink.under_way["failing"] == SLOTS, lambda: "retries have all slots while nobody else wants any"
    )

    first = await healthy(pool, sink, 100)
    sink.let_go("failing", 2)
    await ended(pool, first)
    assert sink.asked["failing"] <= SLOTS + 1, "the slots that came free were those of first attempts"

    await until(lambda: sink.under_way["failing"] >= SLOTS - 2, lambda: "what they leave is used")
    assert sink.under_way["failing"] < SLOTS
    asked = sink.asked["failing"]
    await ended(pool, await healthy(pool, sink, 1))
    assert sink.asked["failing"] <= asked + 1, "nobody had to end for it"

    sink.hold("healthy")
    await healthy(pool, sink, 200)
    sink.let_go("failing", 1_000)
    bound = SLOTS - for_retries(SLOTS)
    await until(lambda: sink.under_way["healthy"] >= bound, lambda: f"{sink.under_way} of {SLOTS}")
    assert sink.under_way["failing"] <= for_retries(SLOTS)
    failed = sink.statuses("failing")[404]
    sink.let_go("healthy", 150)
    await until(lambda: sink.statuses("failing")[404] > failed, lambda: "retries have their turn among first attempts")


async def endpoints(pool: asyncpg.Pool, sink: Sink, *paths: str) -> list[int]:
    return [
        await pool.fetchval(
            "insert into webhook_endpoints (org_id, name, url, signing) values ('acme', $1, $2, '{}') returning id",
            path,
            sink.url(path),
        )
        for path in paths
    ]


async def happen(pool: asyncpg.Pool, count: int) -> None:
    await pool.execute(
        """insert into webhook_events (org_id, event, payload)
           select 'acme', 'made', '{"n": 1}' from generate_series(1, $1)""",
        count,
    )


async def test_an_endpoint_that_bears_little_gets_about_that_and_its_neighbour_on_the_same_host_all_at_once(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    sink.bears["weak"], sink.pause_s["weak"], sink.pause_s["strong"] = 3, 0.02, 0.02
    await endpoints(pool, sink, "weak", "strong")
    await fleet.start("a", CONFIG)
    await happen(pool, 150)
    await empty(pool)
    assert sink.statuses("strong") == {204: 150}
    weak = sink.statuses("weak")
    assert weak[204] == 150
    assert weak[503] <= 150, "without the law each delivery is refused several times"
    assert sink.most["strong"] > sink.most["weak"]
    assert (
        await pool.fetchval("select count(*) from webhook_deliveries where url like '%strong' and outcome <> 'ok'") == 0
    )


async def test_retry_after_holds_all_of_its_endpoint_and_nothing_of_another_on_the_same_host(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    sink.asks_for_s["busy"] = 2
    busy, _other = await endpoints(pool, sink, "busy", "other")
    await fleet.start("a", CONFIG)
    await happen(pool, 1)
    await until_sql(pool, "select array_agg(gate) = $1 from job_holds", [f"lane:endpoint:{busy}"])
    asked_at = next(at for path, at, status in sink.got if status == 429)
    await happen(pool, 50)
    await until(lambda: sink.statuses("other")[204] == 51, lambda: "the other endpoint goes on")
    await empty(pool)
    came = [at - asked_at for path, at, status in sink.got if path == "busy" and status == 204]
    assert len(came) == 51
    assert min(came) >= 2.0, "not one of its fifty others came before it had its two seconds"
    assert await pool.fetchval("select max(attempt) from job_history") == 2
