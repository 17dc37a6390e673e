"""Push messages through real daemons: none lost when one is killed, and applications hear which browsers are gone."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from tests.jobs.push.browser import Browser, sender
from tests.jobs.push.pushes import KEY, PUBLIC, SUBJECT
from tests.life.fleet import Fleet, each_ended_once, ended, until
from tests.life.served import served
from tests.life.test_endpoints_fleet import endpoint, listening

pytestmark = pytest.mark.req("JP-03", "OR-01")

ROWS = 200

CONFIG = """
[webhook]
allow_http = true
allow_addresses = ["127.0.0.0/8"]
allow_ports = ["1024-65535"]
[push]
private_key = "secret://vapid"
subject = "mailto:ops@shop.example"
[lanes."*"]
start = 20
[kinds.push]
retry = ["100ms", "100ms", "100ms"]
"""


class Service:
    """A push service that reads what it is sent, as only the browser could."""

    def __init__(self) -> None:
        self.browser = Browser()
        self.origin = ""
        self.got: Counter[int] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        if request.match_info["who"] == "gone":
            return web.Response(status=410)
        await asyncio.sleep(0.03)  # a service that takes its time, so that a kill meets messages under way
        assert sender(request.headers, self.origin, PUBLIC)["sub"] == SUBJECT
        self.got[json.loads(self.browser.read(await request.read()))["n"]] += 1
        return web.Response(status=201, headers={"location": "/m/1"})


async def insert(pool: asyncpg.Pool, service: Service, path: str, count: int) -> list[int]:
    subscription = json.dumps(service.browser.subscription(f"{service.origin}/s/{path}"))
    rows = await pool.fetch(
        """insert into jobs (kind, org_id, args)
           select 'push', 'acme',
                  jsonb_build_object('subscription', $1::text::jsonb, 'payload', json_build_object('n', n))
           from generate_series(1, $2::int) as n returning id""",
        subscription,
        count,
    )
    return [row[0] for row in rows]


async def deliveries(socket: Path) -> dict[str, float]:
    """What a daemon's metrics say of push messages, by class and code."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as http,
        http.get("http://jobsd/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    start = 'jobsd_deliveries_total{channel="push",'
    return {line[len(start) :].partition("}")[0]: float(line.split()[-1]) for line in lines if line.startswith(start)}


async def test_of_two_daemons_one_is_killed_and_every_message_is_read_by_its_browser(
    fleet: Fleet, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    service, app, socket = Service(), web.Application(), tmp_path / "admin"
    app.router.add_post("/s/{who}", service.answer)
    env = {"SECRET_VAPID": KEY, "DAEMON__CRASH_LIMIT": "100"}
    async with served(app) as port, listening() as keeper:
        service.origin = f"http://127.0.0.1:{port}"
        await endpoint(pool, keeper, "subscriptions", org_id="acme", events=["jobsd.push_gone"])
        victim = await fleet.start("a", CONFIG, **env)
        await fleet.start("b", CONFIG, ADMIN__LISTEN=f"unix:{socket}", **env)
        ids = await insert(pool, service, "here", ROWS)
        await until(lambda: service.got.total() > ROWS // 4, lambda: f"{service.got.total()} read")
        await victim.perish(pool)
        gone = await insert(pool, service, "gone", 2)
        ids += gone
        rows = await ended(pool, ids)
        await until(lambda: len(keeper.got) == 2, lambda: f"{keeper.got}")
        told = await deliveries(socket)
    await each_ended_once(pool, ids)
    assert {row["id"] for row in rows if row["state"] != "done"} == set(gone)
    assert sorted(service.got) == list(range(1, ROWS + 1))
    again = {n: count for n, count in service.got.items() if count > 1}
    assert len(again) <= await pool.fetchval("select count(*) from job_history where crashes > 0"), "who was under way"
    assert told['class="hard",code="gone"'] == 2.0
    assert 0 < told['class="delivered",code="http_201"'] < ROWS
    for _at, _id, event in keeper.got:
        assert event["endpoint"] == f"{service.origin}/s/gone"
        assert (event["status"], event["org_id"]) == (410, "acme")
        assert event["job_id"] in gone
    log = await pool.fetch(
        "select distinct outcome, code, service, recipient from notification_deliveries order by code"
    )
    assert [(row["outcome"], row["code"], row["service"]) for row in log] == [
        ("hard", "gone", "127.0.0.1"),
        ("delivered", "http_201", "127.0.0.1"),
    ]
    named = "select left(encode(sha256($1::text::bytea), 'hex'), 32)"
    assert log[0]["recipient"] == await pool.fetchval(named, f"{service.origin}/s/gone")
