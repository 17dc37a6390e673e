"""Endpoints that fail, against real daemons: told of, disabled, left alone for an hour; and changes that are obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import asyncpg
import pytest

from jobs.webhook.endpoints import STALE_S
from tests.life.fleet import SLACK, Fleet, empty, until, until_sql
from tests.life.test_endpoints_fleet import CONFIG, Sink, emit, endpoint, listening

pytestmark = pytest.mark.req("BJ-15", "OR-15")

LANES = CONFIG.replace("enabled = false", "start = 1")


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with listening() as sink:
        yield sink


async def failing_for(pool: asyncpg.Pool, of: int, hours: int) -> None:
    """As if it had begun to fail so long ago."""
    change = "update webhook_endpoints set failing_since = now() - $2 * interval '1 hour' where id = $1"
    await pool.execute(change, of, hours)


async def emit_until(pool: asyncpg.Pool, query: str) -> None:
    """What daemons know of an endpoint may be two seconds old, so it takes more than one event until they tell."""

    async def true() -> bool:
        await emit(pool, 1)
        await asyncio.sleep(0.1)
        return bool(await pool.fetchval(query))

    await until(true, lambda: query)


async def test_one_that_only_fails_is_told_of_after_a_day_and_after_three_and_disabled_after_five(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    daemon = await fleet.start("a", CONFIG)
    sink.status = 500
    of = await endpoint(pool, sink, "shop", profile="quick", events=["a.*"], contact="ann@shop.example")
    async with listening() as ops:
        told_of = await endpoint(pool, ops, "ops", events=["jobsd.*"])
        await emit(pool, 8)  # 24 attempts
        await until_sql(pool, "select failures >= 20 from webhook_endpoints where id = $1", of)
        for hours, warnings in ((25, 1), (73, 2)):
            await failing_for(pool, of, hours)
            if hours == 73:  # the first warning was a day after it began
                await pool.execute("update webhook_endpoints set warned_at = failing_since + interval '25 hours'")
            await emit_until(pool, f"select count(*) = {warnings} from webhook_events where event like 'jobsd.%'")
            await daemon.said("endpoint_warned", warnings)
        await failing_for(pool, of, 121)
        await emit_until(pool, f"select state = 'disabled' from webhook_endpoints where id = {of}")
        (line,) = await daemon.said("endpoint_disabled")
        await until(lambda: len(ops.got) == 3, lambda: f"{len(ops.got)} notices came")
    assert (line["endpoint_id"], line["name"]) == (of, "shop")
    assert line["reason"].startswith("nothing but failures since 20")
    said = await pool.fetch("select event from webhook_events where event like 'jobsd.%' order by id")
    assert [row[0] for row in said] == ["jobsd.endpoint_warned"] * 2 + ["jobsd.endpoint_disabled"]
    assert await pool.fetchval("select count(*) from job_status where kind = 'email'") == 3
    assert len(daemon.events("endpoint_warned")) == 2
    assert await pool.fetchval("select state from webhook_endpoints where id = $1", told_of) == "enabled"


async def test_for_an_hour_after_it_was_enabled_only_people_disable_it(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    await fleet.start("a", CONFIG)
    of = await endpoint(pool, sink, gone="immediate")
    sink.status = 410
    await emit(pool, 1)
    await until_sql(pool, "select state = 'disabled' from webhook_endpoints where id = $1", of)
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    before = len(sink.got)
    await emit(pool, 5)
    await until(lambda: len(sink.got) == before + 5, lambda: f"{len(sink.got)} came")
    await until_sql(pool, "select failures >= 5 from webhook_endpoints")
    assert await pool.fetchval("select state from webhook_endpoints") == "enabled"
    await pool.execute("update webhook_endpoints set enabled_at = now() - interval '61 minutes'")
    await emit(pool, 1)
    await until_sql(pool, "select state = 'disabled' from webhook_endpoints where id = $1", of)


async def test_what_waited_while_it_was_disabled_comes_in_a_trickle_and_none_is_lost(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    """Each daemon begins with one, and has one more under way for each that went well."""
    for name in "ab":
        await fleet.start(name, LANES)
    of = await endpoint(pool, sink, state="disabled")
    sink.delay_s = 0.02
    await emit(pool, 200)
    await until_sql(pool, "select count(*) = 200 from jobs where gate = $1", f"lane:endpoint:{of}")
    assert sink.got == []
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    await empty(pool)
    assert [(here, left) for here, left in sink.crowd if here > 2 + left] == []
    assert len({message for _at, message, _body in sink.got}) == len(sink.got) == 200


async def test_what_must_not_be_late_does_not_wait_for_an_endpoint_longer_than_it_may(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    await fleet.start("a", CONFIG)
    of = await endpoint(pool, sink, state="disabled")
    await pool.execute(
        "insert into webhook_events (event, payload, expires_at) select 'a', '{\"n\": 1}', now() + n * interval '1 s' "
        "from unnest(array[2, 3600]) as n"
    )
    await until_sql(pool, "select count(*) = 1 from job_history")
    await until_sql(pool, "select count(*) = 1 from jobs where gate = $1", f"lane:endpoint:{of}")
    ends = await pool.fetch("select state, reason from job_history")
    assert [row["state"] for row in ends] == ["dead"]
    assert "expire" in ends[0]["reason"]
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    await empty(pool)
    assert len(sink.got) == 1


async def test_a_change_is_obeyed_within_two_seconds_by_every_daemon(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    for name in "ab":
        await fleet.start(name, CONFIG)
    of = await endpoint(pool, sink)
    async with listening() as new:
        for _ in range(20):
            await emit(pool, 2)
            await asyncio.sleep(0.02)
        await until(lambda: len(sink.got) == 40, lambda: f"{len(sink.got)} came")
        await pool.execute("update webhook_endpoints set url = $2 where id = $1", of, new.url)
        changed = monotonic()
        sent = 40
        while monotonic() < changed + STALE_S + 1:
            await emit(pool, 2)
            sent += 2
            await asyncio.sleep(0.02)
        await until(lambda: len(sink.got) + len(new.got) == sent, lambda: f"{len(new.got)} came to the new place")
        await empty(pool)
        assert new.got
    late = [at - changed for at, _id, _body in sink.got if at > changed + STALE_S]
    assert max(late, default=0.0) < STALE_S + 0.1 * SLACK


async def test_what_a_daemon_has_seen_of_endpoints_is_written_when_it_stops(
    fleet: Fleet, pool: asyncpg.Pool, sink: Sink
) -> None:
    daemon = await fleet.start("a", CONFIG)
    of = await endpoint(pool, sink, profile="slow")
    sink.status = 500
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute("select from webhook_endpoints where id = $1 for update", of)  # nobody writes there now
        await emit(pool, 3)
        await until_sql(pool, "select count(*) = 3 from webhook_deliveries")
        daemon.signal(15)
        await daemon.said("daemon_draining")
        await transaction.rollback()
    assert await daemon.ended() == 0
    assert await pool.fetchval("select failures from webhook_endpoints where id = $1", of) >= 3
