"""What attempts say of endpoints disables those that are gone or only fail, and no others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest

from jobs.email.message import EmailArgs, compose
from jobs.email.settings import EmailSettings
from tests.sql.rows import Pool
from tests.sql.test_webhook_events import endpoint, holds

pytestmark = pytest.mark.req("BJ-15", "OR-15")

FIVE_DAYS = 432_000.0


async def say(pool: Pool, of: int, *, patience_s: float | None = FIVE_DAYS, **said: Any) -> str | None:
    """What became of it."""
    base = {"id": of, "ok": False, "failures": 0, "messages": [], "plea": None, "message": None}
    rows = await pool.fetch(
        "select * from webhook_endpoints_said($1::text::jsonb, $2::float8 * interval '1 second')",
        json.dumps([base | said]),
        patience_s,
    )
    return rows[0]["told_what"] if rows else None


async def fail(pool: Pool, of: int, count: int = 20, messages: int = 3, **said: Any) -> str | None:
    return await say(pool, of, failures=count, messages=[f"m{n}" for n in range(messages)], **said)


async def failing_for(pool: Pool, of: int, hours: float) -> None:
    await pool.execute(
        "update webhook_endpoints set failing_since = now() - $2 * interval '1 hour' where id = $1", of, hours
    )


async def state(pool: Pool, of: int) -> str:
    found: str = await pool.fetchval("select state from webhook_endpoints where id = $1", of)
    return found


async def test_one_that_only_fails_is_warned_of_twice_and_then_disabled_and_its_rows_are_held(pool: Pool) -> None:
    of = await endpoint(pool, org_id="acme")
    assert await fail(pool, of) is None
    told = []
    for hours in (23, 24.1, 25, 71, 72.1, 73, 119, 120.1):
        await failing_for(pool, of, hours)
        await pool.execute(
            "update webhook_endpoints set warned_at = failing_since + interval '24.05 hours' "
            "where warned_at is not null and failing_since < now() - interval '24.2 hours' "
            "and failing_since > now() - interval '72 hours'"
        )
        told.append(await fail(pool, of, 1))
    assert told == [None, "warned", None, None, "warned", None, None, "disabled"]
    row = await pool.fetchrow("select disabled_by, disabled_reason, disabled_at from webhook_endpoints")
    assert row is not None
    assert row["disabled_by"] == "jobsd"
    assert row["disabled_reason"].startswith("nothing but failures since 20")
    assert [hold[:3] for hold in await holds(pool)] == [(f"lane:endpoint:{of}", "disabled", "jobsd")]
    assert await fail(pool, of) is None, "what it says afterwards is nothing new"


@pytest.mark.parametrize(("attempts", "messages", "disabled"), [(19, 3, False), (500, 2, False), (20, 3, True)])
async def test_a_few_failures_or_those_of_a_message_or_two_disable_nothing(
    attempts: int, messages: int, disabled: bool, pool: Pool
) -> None:
    of = await endpoint(pool)
    await fail(pool, of, attempts - 1, messages)
    await failing_for(pool, of, 1000)
    await fail(pool, of, 1, messages)
    assert await state(pool, of) == ("disabled" if disabled else "enabled")


async def test_one_success_ends_it_and_what_failed_after_it_begins_anew(pool: Pool) -> None:
    of = await endpoint(pool)
    await fail(pool, of)
    await failing_for(pool, of, 1000)
    assert await fail(pool, of, 2, 1, ok=True) is None
    row = await pool.fetchrow(
        "select failures, failed_messages, failing_since > now() - interval '1 minute' from webhook_endpoints"
    )
    assert row is not None
    assert tuple(row) == (2, ["m0"], True)
    await say(pool, of, ok=True)
    assert await pool.fetchval("select failing_since from webhook_endpoints") is None


async def test_without_a_limit_to_patience_nothing_is_disabled(pool: Pool) -> None:
    of = await endpoint(pool)
    await fail(pool, of)
    await failing_for(pool, of, 100_000)
    assert await fail(pool, of, patience_s=None) is None
    assert await state(pool, of) == "enabled"


@pytest.mark.parametrize("plea", [None, "gone", "disable"])
async def test_for_an_hour_after_somebody_enabled_it_it_stays_so(plea: str | None, pool: Pool) -> None:
    of = await endpoint(pool, gone="immediate")
    await pool.execute("update webhook_endpoints set state = 'disabled'")
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    assert await pool.fetchval("select failures from webhook_endpoints") == 0
    await fail(pool, of)
    await failing_for(pool, of, 1000)
    assert await fail(pool, of, plea=plea, message="m") != "disabled"
    await pool.execute("update webhook_endpoints set enabled_at = now() - interval '61 minutes'")
    assert await fail(pool, of, plea=plea, message="m") == "disabled"


@pytest.mark.parametrize(("gone", "after"), [("immediate", "disabled"), ("ignore", "enabled"), ("confirm", "enabled")])
async def test_a_410_disables_at_once_where_that_is_wanted(gone: str, after: str, pool: Pool) -> None:
    of = await endpoint(pool, gone=gone)
    await fail(pool, of, 1, plea="gone", message="m1")
    assert await state(pool, of) == after


async def test_a_410_is_confirmed_by_another_message_ten_minutes_later(pool: Pool) -> None:
    of = await endpoint(pool)

    async def gone(message: str) -> str | None:
        return await fail(pool, of, 1, plea="gone", message=message)

    assert await gone("m1") is None
    assert await gone("m2") is None, "too soon"
    await pool.execute("update webhook_endpoints set gone_at = now() - interval '11 minutes'")
    assert await gone("m1") is None, "the same message"
    assert await gone("m2") == "disabled"
    assert "410" in await pool.fetchval("select disabled_reason from webhook_endpoints")


async def test_a_410_is_forgotten_when_something_goes_well(pool: Pool) -> None:
    of = await endpoint(pool)
    await fail(pool, of, 1, plea="gone", message="m1")
    await pool.execute("update webhook_endpoints set gone_at = now() - interval '11 minutes'")
    await say(pool, of, ok=True)
    assert await fail(pool, of, 1, plea="gone", message="m2") is None
    assert await state(pool, of) == "enabled"


async def test_another_url_is_another_receiver(pool: Pool) -> None:
    of = await endpoint(pool)
    await fail(pool, of, 1, plea="gone", message="m1")
    at = await pool.fetchval("select updated_at from webhook_endpoints")
    await fail(pool, of, 1)
    assert await pool.fetchval("select updated_at from webhook_endpoints") == at, "nobody has changed it"
    await pool.execute("update webhook_endpoints set url = 'https://new.example/'")
    row = await pool.fetchrow("select failures, failing_since, gone_at from webhook_endpoints where id = $1", of)
    assert row is not None
    assert tuple(row) == (0, None, None)


async def test_who_should_know_is_told_in_the_same_transaction(pool: Pool) -> None:
    of = await endpoint(pool, "shop", org_id="acme", gone="immediate", contact="ann@shop.example")
    told = [
        await endpoint(pool, name, org_id=org, events=["jobsd.*"]) for name, org in (("ops", None), ("own", "acme"))
    ]
    for org in (None, "acme", "globex"):
        await endpoint(pool, "all", org_id=org)
    await endpoint(pool, "other", org_id="globex", events=["jobsd.*", "jobsd.endpoint_disabled"])
    await fail(pool, of)
    await failing_for(pool, of, 25)
    assert await fail(pool, of, 1) == "warned"
    assert await fail(pool, of, 1, plea="gone", message="m1") == "disabled"
    rows = await pool.fetch(
        "select j.lane, e.org_id, e.event, e.payload::text as payload from jobs j "
        "join webhook_events e on e.id = (j.args ->> 'event_id')::bigint order by j.id"
    )
    ops, own = (f"endpoint:{one}" for one in told)
    warned, disabled = "jobsd.endpoint_warned", "jobsd.endpoint_disabled"
    assert [(row["lane"], row["org_id"], row["event"]) for row in rows] == [
        (ops, None, warned),
        (own, "acme", warned),
        (ops, None, disabled),
        (own, "acme", disabled),
    ]
    said = [json.loads(row["payload"]) for row in rows]
    assert {(one["endpoint"], one["name"], one["org_id"]) for one in said} == {(of, "shop", "acme")}
    assert said[0]["reason"].startswith("nothing but failures since 20")
    assert said[-1]["reason"] == "it answered 410, that it is gone"
    mails = [json.loads(row[0]) for row in await pool.fetch("select args from jobs where kind = 'email' order by id")]
    assert [(mail["to"], mail["subject"]) for mail in mails] == [
        ("ann@shop.example", "Webhook endpoint shop only fails"),
        ("ann@shop.example", "Webhook endpoint shop is disabled"),
    ]
    assert "5 days after it began" in mails[0]["text"]
    assert "410" in mails[1]["text"]
    for mail in mails:
        settings = EmailSettings(from_="jobsd@shop.example")
        compose(msgspec.convert(mail, EmailArgs), settings, identity="1", now=datetime.now(UTC))


@pytest.mark.parametrize(
    "contact", ["", "ann", "ann@shop.example, bob@shop.example", "Ann <ann@shop.example>", "a@b\n.c"]
)
async def test_a_contact_is_one_address(contact: str, pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="contact"):
        await endpoint(pool, contact=contact)
