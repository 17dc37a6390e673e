"""Text messages through real daemons: nobody gets one twice, whoever is killed, and a provider's rate holds for all."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic

import asyncpg
import pytest
from aiohttp import web

from tests.life.fleet import Fleet, each_ended_once, ended, until
from tests.life.served import served

pytestmark = pytest.mark.req("JP-03", "OR-01")

ROWS = 100
RATE, BURST = 50, 10

CONFIG = """
[webhook]
allow_http = true
allow_addresses = ["127.0.0.0/8"]
allow_ports = ["1024-65535"]
[sms.providers.main]
url = "http://127.0.0.1:{port}/send"
form = {{ to = "{{to}}", text = "{{text}}" }}
rate = "{rate}/s"
burst = {burst}
[lanes."*"]
start = 20
"""


class Provider:
    """Sends what it is given, and then takes its time to say so."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.first = self.last = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.last = monotonic()
        self.first = self.first or self.last
        form = await request.post()
        self.sent[str(form["to"])] += 1
        await asyncio.sleep(0.1)  # so that a kill meets messages that are sent, and whose answer is lost
        return web.json_response({"id": "1"})


async def test_of_two_daemons_one_is_killed_and_no_number_gets_two(fleet: Fleet, pool: asyncpg.Pool) -> None:
    provider, app = Provider(), web.Application()
    app.router.add_post("/send", provider.answer)
    async with served(app) as port:
        config = CONFIG.format(port=port, rate=RATE, burst=BURST)
        victim = await fleet.start("a", config, DAEMON__CRASH_LIMIT="100")
        await fleet.start("b", config, DAEMON__CRASH_LIMIT="100")
        rows = await pool.fetch(
            """insert into jobs (kind, args)
               select 'sms', jsonb_build_object('to', '+4477009' || 10000 + n, 'text', 'Hi')
               from generate_series(1, $1::int) as n returning id""",
            ROWS,
        )
        ids = [row[0] for row in rows]
        await until(lambda: provider.sent.total() > ROWS // 4, lambda: f"{provider.sent.total()} sent")
        await victim.perish(pool)
        history = await ended(pool, ids)
    await each_ended_once(pool, ids)
    assert set(provider.sent.values()) == {1}, "nobody gets two"
    lost = [row["id"] for row in history if row["state"] == "dead"]
    assert {row["state"] for row in history} <= {"done", "dead"}
    assert len(lost) + len(provider.sent) >= ROWS, "whoever got none is among those that are told of"
    told = await pool.fetch("select job_id, outcome, code from notification_deliveries where outcome <> 'delivered'")
    assert {(row["outcome"], row["code"]) for row in told} <= {("unknown", "lost")}
    assert sorted(row["job_id"] for row in told) == sorted(lost)
    assert provider.last - provider.first > (len(provider.sent) - 2 * BURST) / RATE, "over both daemons"
