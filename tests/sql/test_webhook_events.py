"""An event is one job for each endpoint of its organisation that wants it, in the producer's own transaction."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.sql.logins import as_login, roles_in
from tests.sql.plans import explain
from tests.sql.rows import Pool

pytestmark = pytest.mark.req("BJ-15", "OR-01")


async def endpoint(pool: Any, name: str = "main", **columns: Any) -> int:
    columns = {"name": name, "url": "https://example.com/", **columns}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    found: int = await pool.fetchval(
        f"insert into webhook_endpoints ({', '.join(columns)}) values ({places}) returning id", *columns.values()
    )
    return found


async def emit(pool: Any, event: str = "invoice.paid", **columns: Any) -> int | None:
    columns = {"event": event, **columns}
    if "body" not in columns:
        columns.setdefault("payload", '{"n": 1}')
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    found: int | None = await pool.fetchval(
        f"insert into webhook_events ({', '.join(columns)}) values ({places}) returning id", *columns.values()
    )
    return found


async def fanned(pool: Pool) -> list[tuple[int, int]]:
    """(endpoint, event) of every job there is."""
    rows = await pool.fetch("select args from jobs order by id")
    found = [json.loads(row[0]) for row in rows]
    return [(args["endpoint"], args["event_id"]) for args in found]


async def test_an_event_may_be_asked_for_by_each_of_its_beginnings(pool: Pool) -> None:
    named = await pool.fetch("select webhook_patterns(unnest(array['a', 'a.b.c', 'jobsd.x', '', null]))")
    assert [row[0] for row in named] == [
        ["*", "a"],
        ["*", "a.b.c", "a.*", "a.b.*"],
        ["jobsd.x", "jobsd.*"],
        ["*", ""],
        ["*", None],
    ]


@pytest.mark.parametrize(
    ("patterns", "event", "wanted"),
    [
        (["*"], "invoice.paid", True),
        (["invoice.*"], "invoice.paid", True),
        (["invoice.*"], "invoice.paid.late", True),
        (["invoice.paid.*"], "invoice.paid", False),
        (["invoice.*"], "invoice", False),
        (["invoice.*"], "invoices.paid", False),
        (["invoice.paid"], "invoice.paid", True),
        (["invoice.paid"], "invoice.paid.late", False),
        (["user.made", "invoice.*"], "invoice.paid", True),
        (["Invoice.paid"], "invoice.paid", False),
    ],
)
async def test_an_endpoint_gets_what_its_patterns_name(
    patterns: list[str], event: str, wanted: bool, pool: Pool
) -> None:
    of = await endpoint(pool, events=patterns)
    event_id = await emit(pool, event)
    assert await fanned(pool) == ([(of, event_id)] if wanted else [])


@pytest.mark.parametrize("pattern", ["", "invoice.*.paid", "*.paid", "a b", "invoice.", ".a", "a,b", "**"])
async def test_a_pattern_that_could_never_match_is_refused(pattern: str, pool: Pool) -> None:
    if pattern == "a,b":  # would be read as two, so it is two
        return
    with pytest.raises(asyncpg.CheckViolationError, match="events_are_patterns"):
        await endpoint(pool, events=[pattern])


async def test_a_job_of_an_event_carries_all_that_the_event_says(pool: Pool) -> None:
    of = await endpoint(pool, ordering="block", org_id="acme")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event_id = await emit(
        pool,
        org_id="acme",
        ordering_key="cart-7",
        queue="webhooks",
        priority=1,
        correlation_id="c1",
        traceparent=trace,
        actor_id="ann",
        project_id="p1",
    )
    row = await pool.fetchrow(
        "select kind, lane, org_id, ordering_key, queue, priority, correlation_id, traceparent, actor_id, project_id, "
        "args::text as args from jobs"
    )
    assert row is not None
    assert dict(row) == {
        "kind": "webhook",
        "lane": f"endpoint:{of}",
        "org_id": "acme",
        "ordering_key": f"endpoint:{of}:cart-7",
        "queue": "webhooks",
        "priority": 1,
        "correlation_id": "c1",
        "traceparent": trace,
        "actor_id": "ann",
        "project_id": "p1",
        "args": json.dumps({"endpoint": of, "event_id": event_id}),
    }


async def test_an_event_of_the_future_is_a_job_of_the_future(pool: Pool) -> None:
    await endpoint(pool)
    await pool.execute(
        "insert into webhook_events (event, payload, run_at, expires_at) "
        "values ('a', '1', now() + interval '1 hour', now() + interval '2 hours')"
    )
    assert await pool.fetchval("select gate = 'later' and expires_at = run_at + interval '1 hour' from jobs")


async def test_an_endpoint_without_ordering_takes_no_keys(pool: Pool) -> None:
    await endpoint(pool)
    await emit(pool, ordering_key="cart-7")
    assert await pool.fetchval("select ordering_key from jobs") is None


async def test_what_is_rolled_back_leaves_nothing(pool: Pool) -> None:
    await endpoint(pool)
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await emit(conn, idempotency_key="k")
        assert await conn.fetchval("select count(*) from jobs") == 1
        await transaction.rollback()
    assert await pool.fetchval("select count(*) from jobs") == 0
    assert await pool.fetchval("select count(*) from webhook_events") == 0
    assert await emit(pool, idempotency_key="k") is not None


async def test_the_fan_out_is_one_statement(pool: Pool) -> None:
    for n in range(5):
        await endpoint(pool, f"e{n}")
    await pool.execute("create table inserts (n int)")
    await pool.execute(
        "create function counted() returns trigger language plpgsql as "
        "$$ begin insert into inserts values (1); return null; end $$"
    )
    await pool.execute("create trigger counted after insert on jobs for each statement execute function counted()")
    await pool.execute(
        "insert into webhook_events (event, payload) select 'e.' || n, '{}' from generate_series(1, 100) as n"
    )
    assert await pool.fetchval("select count(*) from jobs") == 500
    assert await pool.fetchval("select count(*) from inserts") == 1


async def test_organisations_get_their_own_events_and_no_others(pool: Pool) -> None:
    of = {org: await endpoint(pool, org_id=org) for org in ("acme", "globex", None)}
    ids = {org: await emit(pool, org_id=org) for org in of}
    assert await fanned(pool) == [(of[org], ids[org]) for org in of]


async def test_a_second_event_with_the_same_key_adds_nothing(pool: Pool) -> None:
    await endpoint(pool, org_id="acme")
    await endpoint(pool, org_id="globex")
    assert await emit(pool, org_id="acme", idempotency_key="k") is not None
    assert await emit(pool, org_id="acme", idempotency_key="k") is None
    assert await emit(pool, org_id="globex", idempotency_key="k") is not None  # keys are an organisation's own
    assert await pool.fetchval("select count(*) from jobs") == 2
    assert await pool.fetchval("select count(*) from webhook_events") == 2


async def test_of_two_clients_with_one_key_the_second_waits_and_adds_nothing(pool: Pool) -> None:
    await endpoint(pool)
    async with pool.acquire() as first, pool.acquire() as second:
        transaction = first.transaction()
        await transaction.start()
        await emit(first, idempotency_key="k")
        waiting = asyncio.ensure_future(emit(second, idempotency_key="k"))
        await asyncio.wait({waiting}, timeout=0.2)
        assert not waiting.done()
        await transaction.commit()
        assert await waiting is None
    assert await pool.fetchval("select count(*) from jobs") == 1


async def test_a_payload_is_kept_as_it_was_written(pool: Pool) -> None:
    written = '{ "b":1.10, "a" : 1e2,"a":"\\u00e9" }'
    event_id = await emit(pool, payload=written)
    assert await pool.fetchval("select payload::text from webhook_events where id = $1", event_id) == written


@pytest.mark.parametrize(
    "columns",
    [
        {"payload": None},
        {"body": b"x", "payload": "1"},
        {"body": b"x" * 262145},
        {"payload": json.dumps("x" * 262145)},
        {"event": "a b"},
        {"event": "a..b"},
        {"event": "x" * 129},
        {"event": "*"},
    ],
)
async def test_an_event_that_cannot_be_sent_is_refused(columns: dict[str, Any], pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await emit(pool, **columns)


async def test_events_go_to_the_partition_of_their_day(pool: Pool) -> None:
    event_id = await emit(pool)
    place = "select tableoid::regclass::text = 'webhook_events_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')"
    assert await pool.fetchval(f"{place} from webhook_events where id = $1", event_id)
    assert await pool.fetchval("select sum(strays) from job_strays(10)") is None


async def test_strays_move_to_their_day_and_are_not_sent_again(pool: Pool) -> None:
    await endpoint(pool)
    await pool.execute(
        "insert into webhook_events (event, payload, created_at, idempotency_key) "
        "values ('a', '1', now() - interval '2 days', 'k')"
    )
    await pool.execute("select job_partitions_make('webhook_events', 3)")
    assert await pool.fetchval("select count(*) from webhook_events_default") == 0
    assert await pool.fetchval("select count(*) from webhook_events") == 1
    assert await pool.fetchval("select count(*) from jobs") == 1


# --- a job that is an event -------------------------------------------------------------------------------------------


async def job(pool: Any, args: dict[str, Any], **columns: Any) -> int | None:
    columns = {"kind": "webhook", "args": json.dumps(args), **columns}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    found: int | None = await pool.fetchval(
        f"insert into jobs ({', '.join(columns)}) values ({places}) returning id", *columns.values()
    )
    return found


async def test_a_webhook_job_with_an_event_alone_is_one(pool: Pool) -> None:
    of = [await endpoint(pool, name, org_id="acme") for name in ("a", "b")]
    given = {"event": "invoice.paid", "payload": {"n": 1}}
    assert await job(pool, given, org_id="acme", idempotency_key="k", queue="webhooks", correlation_id="c") is None
    assert await job(pool, given, org_id="acme", idempotency_key="k") is None
    row = await pool.fetchrow("select id, event, payload::text, org_id, queue, correlation_id from webhook_events")
    assert row is not None
    assert tuple(row)[1:] == ("invoice.paid", '{"n": 1}', "acme", "webhooks", "c")
    assert await fanned(pool) == [(one, row["id"]) for one in of]


async def test_a_webhook_job_that_names_a_url_or_an_endpoint_stays_a_job(pool: Pool) -> None:
    of = await endpoint(pool)
    await job(pool, {"url": "https://example.com/", "event": "a", "payload": 1})
    await job(pool, {"endpoint": of, "event": "a", "payload": 1})
    assert await pool.fetchval("select count(*) from jobs") == 2
    assert await pool.fetchval("select count(*) from webhook_events") == 0


@pytest.mark.parametrize(
    ("more", "columns"),
    [
        ({"headers": {}}, {}),
        ({}, {"unique_key": "u"}),
        ({}, {"lane": "x"}),
        ({}, {"max_attempts": 3}),
        ({}, {"unique_key": "u", "on_duplicate": "replace"}),
    ],
)
async def test_what_an_event_has_no_place_for_is_refused_and_not_lost(
    more: dict[str, Any], columns: dict[str, Any], pool: Pool
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="is an event"):
        await job(pool, {"event": "a", "payload": 1, **more}, **columns)


async def test_an_endpoint_may_be_named(pool: Pool) -> None:
    await endpoint(pool, "main", org_id="globex")
    of = await endpoint(pool, "main", org_id="acme")
    await job(pool, {"endpoint": "main", "payload": 1}, org_id="acme")
    assert json.loads(await pool.fetchval("select args from jobs"))["endpoint"] == of
    with pytest.raises(asyncpg.ForeignKeyViolationError, match='no endpoint "main"'):
        await job(pool, {"endpoint": "main", "payload": 1})


# --- disabled ---------------------------------------------------------------------------------------------------------


async def holds(pool: Pool) -> list[tuple[str, str, str | None, str | None]]:
    return [tuple(row) for row in await pool.fetch("select gate, cause, actor, reason from job_holds order by gate")]


async def test_a_disabled_endpoint_gets_its_rows_and_its_lane_is_held(pool: Pool) -> None:
    of = await endpoint(pool)
    await pool.execute(
        "update webhook_endpoints set state = 'disabled', disabled_by = 'ann', disabled_reason = 'moved' where id = $1",
        of,
    )
    assert await holds(pool) == [(f"lane:endpoint:{of}", "disabled", "ann", "moved")]
    event_id = await emit(pool)
    assert await fanned(pool) == [(of, event_id)]
    await pool.execute("update webhook_endpoints set state = 'enabled' where id = $1", of)
    assert await holds(pool) == []
    row = await pool.fetchrow("select disabled_at, disabled_by, disabled_reason, enabled_at from webhook_endpoints")
    assert row is not None
    assert tuple(row)[:3] == (None, None, None)
    assert row["enabled_at"] is not None


async def test_an_endpoint_that_is_deleted_leaves_no_hold_and_no_secret(pool: Pool) -> None:
    of = await endpoint(pool, state="disabled")
    await pool.execute("select webhook_rotate_secret($1)", of)
    assert len(await holds(pool)) == 1
    await pool.execute("delete from webhook_endpoints")
    assert await holds(pool) == []
    assert await pool.fetchval("select count(*) from webhook_secrets") == 0


@pytest.mark.parametrize("cause", ["pause", "breaker"])
async def test_enabling_ends_no_other_hold(cause: str, pool: Pool) -> None:
    of = await endpoint(pool, state="disabled")
    await pool.execute("insert into job_holds (gate, cause) values ($1, $2)", f"lane:endpoint:{of}", cause)
    await pool.execute("update webhook_endpoints set state = 'enabled'")
    assert [hold[1] for hold in await holds(pool)] == [cause]


# --- secrets ----------------------------------------------------------------------------------------------------------


async def live(pool: Pool) -> list[str]:
    return [
        row[0]
        for row in await pool.fetch(
            "select secret from webhook_secrets where expires_at is null or expires_at > now() order by id desc"
        )
    ]


async def test_a_rotated_secret_is_new_and_the_old_one_has_a_day(pool: Pool) -> None:
    of = await endpoint(pool)
    first = await pool.fetchval("select webhook_rotate_secret($1)", of)
    second = await pool.fetchval("select webhook_rotate_secret($1)", of)
    assert first != second
    assert first.startswith("whsec_")
    assert len(first) == len("whsec_") + 44  # base64 of 32 bytes
    assert await live(pool) == [second, first]
    grace = "select date_part('epoch', expires_at - now()) from webhook_secrets where expires_at is not null"
    assert 86_390 < await pool.fetchval(grace) <= 86_400


async def test_a_grace_of_nothing_ends_the_old_one_at_once_and_a_shorter_one_is_not_lengthened(pool: Pool) -> None:
    of = await endpoint(pool)
    for given, grace in (("one", "24 hours"), ("two", "1 hour"), ("three", "7 days")):
        await pool.execute(f"select webhook_rotate_secret($1, $2, '{grace}')", of, given)
    ends = "select date_part('epoch', expires_at - created_at)::int from webhook_secrets where secret = 'one'"
    assert await pool.fetchval(ends) == 3600
    await pool.execute("select webhook_rotate_secret($1, 'four', '0')", of)
    assert await live(pool) == ["four"]


@pytest.mark.parametrize("grace", ["-1 second", "8 days", None])
async def test_a_grace_that_makes_no_sense_is_refused(grace: str | None, pool: Pool) -> None:
    of = await endpoint(pool)
    with pytest.raises(asyncpg.CheckViolationError, match="grace"):
        await pool.execute("select webhook_rotate_secret($1, null, $2::text::interval)", of, grace)


async def test_ten_secrets_at_most_are_live(pool: Pool) -> None:
    of = await endpoint(pool)
    for n in range(13):
        await pool.execute("select webhook_rotate_secret($1, $2, '7 days')", of, f"s{n}")
    assert await live(pool) == [f"s{n}" for n in range(12, 2, -1)]


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def roles(database: str) -> AsyncIterator[str]:
    async with roles_in(database):
        yield database


@pytest.mark.req("OR-13")
async def test_a_producer_of_an_organisation_emits_its_own_events_and_sees_no_endpoint(roles: str, pool: Pool) -> None:
    acme, globex = [await endpoint(pool, org_id=org) for org in ("acme", "globex")]
    await endpoint(pool)
    await pool.execute("select webhook_rotate_secret(id) from webhook_endpoints")
    await emit(pool, org_id="globex", idempotency_key="k")
    await pool.execute("delete from jobs")
    conn = await asyncpg.connect(as_login(roles, "acme_app"))
    try:
        event_id = await emit(conn, org_id="acme")
        assert await job(conn, {"event": "a", "payload": 1}, org_id="acme") is None
        assert await job(conn, {"endpoint": "main", "payload": 1}, org_id="acme") is not None
        for org in ("globex", None):
            for key in ({}, {"idempotency_key": "k"}):  # whether the key is taken is not to be learned
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await emit(conn, org_id=org, **key)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await job(conn, {"event": "a", "payload": 1}, org_id=org)
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await job(conn, {"endpoint": "main", "payload": 1}, org_id=org)
        for statement in (
            "select * from webhook_endpoints",
            "select * from webhook_secrets",
            "select payload from webhook_events",
            "update webhook_endpoints set url = 'https://evil.example/'",
            f"select webhook_rotate_secret({acme})",
            "insert into webhook_events (org_id, event, payload, created_at) values ('acme', 'a', '1', now())",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
    finally:
        await conn.close()
    rows = await pool.fetch("select lane, org_id from jobs order by id")
    assert {tuple(row) for row in rows} == {(f"endpoint:{acme}", "acme"), (None, "acme")}
    assert (acme, event_id) in {
        (args["endpoint"], args.get("event_id"))
        for args in (json.loads(row[0]) for row in await pool.fetch("select args from jobs"))
    }
    assert globex not in {json.loads(row[0])["endpoint"] for row in await pool.fetch("select args from jobs")}


@pytest.mark.req("OR-13")
async def test_an_operator_of_an_organisation_manages_its_endpoints_and_reads_no_secret(roles: str, pool: Pool) -> None:
    other = await endpoint(pool, org_id="globex")
    conn = await asyncpg.connect(as_login(roles, "acme_operator"))
    try:
        of = await endpoint(conn, org_id="acme")
        assert (await conn.fetchval("select webhook_rotate_secret($1)", of)).startswith("whsec_")
        await conn.execute("update webhook_endpoints set state = 'disabled'")
        assert await conn.fetchval("select count(*) from webhook_endpoints") == 1
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await conn.fetchval("select webhook_rotate_secret($1)", other)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("select secret from webhook_secrets")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await endpoint(conn, org_id="globex", name="mine")
    finally:
        await conn.close()
    assert await holds(pool) == [(f"lane:endpoint:{of}", "disabled", "acme_operator", None)]


# --- speed ------------------------------------------------------------------------------------------------------------


async def test_a_thousand_events_for_a_hundred_endpoints_are_one_join_over_their_organisation(
    pool: Pool, database: str
) -> None:
    await pool.execute(
        "insert into webhook_endpoints (org_id, name, url, events) "
        "select 'o' || n % 100, 'e' || n, 'https://example.com/', array['a.*', 'never.' || n] "
        "from generate_series(1, 10000) as n"
    )
    await pool.execute("analyze webhook_endpoints")
    count = 1000 if os.environ.get("JOBSD_LONG") else 200
    began = time.perf_counter()
    await pool.execute(
        "insert into webhook_events (org_id, event, payload) select 'o7', 'a.b', '{}' from generate_series(1, $1)",
        count,
    )
    took_s = time.perf_counter() - began
    assert await pool.fetchval("select count(*) from jobs") == 100 * count
    assert took_s < 60  # seconds where nothing else runs; a join of all with all would take minutes
    body = await pool.fetchval("select prosrc from pg_proc where proname = 'webhook_fan_out'")
    select = body[body.index("select 'webhook'") : body.index("order by event.id")]
    conn = await asyncpg.connect(database)
    try:
        await conn.execute(
            "create temporary table arrived as "
            f"select event.* from webhook_events as event, generate_series(1, {1000 // count}); analyze arrived"
        )
        for (setting,) in await conn.fetch("select unnest(proconfig) from pg_proc where proname = 'webhook_fan_out'"):
            name, _, value = setting.partition("=")
            await conn.execute("select set_config($1, $2, false) where $1 <> 'search_path'", name, value)
        plan = await explain(conn, select, (), "force_custom_plan")
    finally:
        await conn.close()
    assert "webhook_endpoints_name" in plan.indexes
    assert not plan.scanned("webhook_endpoints")


# --- lanes ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("OR-13", "OR-15")
@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("noop", {}),
        ("noop", {"endpoint": 1}),
        ("webhook", {"url": "https://example.com/", "payload": 1}),
        ("webhook", {"url": "https://example.com/", "endpoint": 1, "payload": 1}),
        ("webhook", {"endpoint": 11, "payload": 1}),
        ("webhook", {"payload": 1}),
    ],
)
async def test_the_lane_of_an_endpoint_is_not_given_to_a_row_that_does_not_go_there(
    kind: str, args: dict[str, Any], pool: Pool
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="endpoint:1 is that of rows to this endpoint alone"):
        await pool.execute("insert into jobs (kind, args, lane) values ($1, $2, 'endpoint:1')", kind, json.dumps(args))


async def test_the_lane_of_an_endpoint_may_be_said_of_a_row_that_goes_there(pool: Pool) -> None:
    of = await endpoint(pool)
    for named in (of, "main"):
        await job(pool, {"endpoint": named, "payload": 1}, lane=f"endpoint:{of}")
    assert await pool.fetchval("select count(*) from jobs where lane = $1", f"endpoint:{of}") == 2


@pytest.mark.req("OR-13")
async def test_a_producer_of_an_organisation_cannot_stand_in_the_lane_of_anothers_endpoint(
    roles: str, pool: Pool
) -> None:
    theirs, own = [await endpoint(pool, org_id=org) for org in ("globex", "acme")]
    conn = await asyncpg.connect(as_login(roles, "acme_app"))
    try:
        with pytest.raises(asyncpg.ForeignKeyViolationError, match=f"no endpoint {theirs} for this row"):
            await job(conn, {"endpoint": theirs, "payload": 1}, org_id="acme")
        nobodys: list[Any] = [10**9, 10**30, 1.5, None, {}]  # a dead letter that says so
        for of in (own, *nobodys):
            assert await job(conn, {"endpoint": of, "payload": 1}, org_id="acme") is not None
    finally:
        await conn.close()
