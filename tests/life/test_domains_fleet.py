"""Registered domains with real daemons: one insert is enough, and a kill loses nothing and repeats nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.jobs.dns.internet import Internet
from tests.life.fleet import Fleet, until_sql

pytestmark = pytest.mark.req("BJ-20")

TOKEN = "abcdefghijklmnopqrstuvwxyz234567"
REGISTER = "insert into domains (org_id, domain, token) values ('acme', 'shop.test', $1) returning id"
BY_HAND = """insert into jobs (kind, org_id, args) values ('domain_check', 'acme', '{"domain": "shop.test"}')"""
IN_STATE = "select true from domains where state = $1"


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


def config(internet: Internet, timeout: str = "20s") -> str:
    resolvers = ", ".join(f'"{server.place}"' for server in internet.resolvers)
    return f"""
    [dns]
    resolvers = [{resolvers}]
    roots = ["{internet.root.servers[0].address}"]
    authority_port = {internet.port}
    allow_addresses = ["127.0.0.0/8"]
    timeout = "{timeout}"
    [dns.domains]
    first_steps = []
    step = "1s"
    check_gap = "0"
    """


async def test_one_insert_is_enough_and_the_plan_looks_again(
    fleet: Fleet, pool: asyncpg.Pool, internet: Internet
) -> None:
    """Its first check comes before its owner has published anything; the next is the plan's."""
    shop = await internet.zone("shop.test")
    daemon = await fleet.start("a", config(internet))
    await pool.execute(REGISTER, TOKEN)
    await until_sql(pool, "select true from domain_checks where verdict = 'absent'")
    shop.add(f'_jobsd-challenge.shop.test TXT "token={TOKEN}"')
    await until_sql(pool, IN_STATE, "verified")
    shop.remove("_jobsd-challenge.shop.test", "TXT")
    await pool.execute(BY_HAND)
    await until_sql(pool, IN_STATE, "degraded")
    assert await pool.fetchval("select count(*) from webhook_events where org_id = 'acme'") == 1
    [changed] = [line for line in await daemon.said("domain_changed", 2) if line["state"] == "verified"]
    assert (changed["domain"], changed["organization_id"], changed["state_before"]) == ("shop.test", "acme", "pending")


async def test_a_check_whose_daemon_is_killed_is_made_once_more_and_told_once(
    fleet: Fleet, pool: asyncpg.Pool, internet: Internet
) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f'_jobsd-challenge.shop.test TXT "token={TOKEN}"')
    shop.fault("silent", type="TXT")
    first = await fleet.start("a", config(internet, "60s"))
    await pool.execute(REGISTER, TOKEN)
    await shop.servers[0].asked_so_often(1)
    await first.perish(pool)
    shop.heal()
    await fleet.start("b", config(internet))
    await until_sql(pool, IN_STATE, "verified")
    told = await pool.fetch("select event from webhook_events where org_id = 'acme'")
    assert [event for (event,) in told] == ["domain.verified"]
    assert await pool.fetchval("select checks from domains") == 1
