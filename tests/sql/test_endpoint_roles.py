"""Who keeps the endpoints of an organisation sees and changes those of that one, and reads no secret."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from daemon.embedded import Embedded
from tests.sql.logins import as_login, template_with_roles
from tests.sql.rows import Pool
from tests.sql.test_webhook_events import emit, endpoint, holds

pytestmark = pytest.mark.req("BJ-15", "OR-13")


@pytest.fixture(scope="module")
async def template(embedded_server: Embedded, admin: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The databases of this module have the roles, which are made once."""
    async with template_with_roles(embedded_server, admin, template) as name:
        yield name


@pytest.fixture
async def theirs(pool: Pool) -> int:
    """The endpoint of globex, with a secret, an event and an attempt."""
    of = await endpoint(pool, org_id="globex")
    await pool.execute("select webhook_rotate_secret($1)", of)
    for org in ("globex", "acme"):
        await emit(pool, org_id=org)
        await pool.execute(
            "insert into webhook_deliveries (job_id, attempt, org_id, url, outcome, address) "
            "values (1, 1, $1, 'https://a.example', 'ok', '10.0.0.7')",
            org,
        )
    return of


@pytest.fixture(params=["acme_hooks", "acme_operator", "a gateway"])
async def acme(
    request: pytest.FixtureRequest, theirs: int, database: str, admin: asyncpg.Connection
) -> AsyncIterator[asyncpg.Connection]:
    """A login of acme, or one of several organisations that has taken on its role."""
    gateway = request.param == "a gateway"
    if gateway:
        await admin.execute("grant acme_hooks, globex_hooks to shop_hooks")
    conn = await asyncpg.connect(as_login(database, "shop_hooks" if gateway else request.param))
    if gateway:
        await conn.execute("set role acme_hooks")
    yield conn
    await conn.close()
    if gateway:
        await admin.execute("revoke acme_hooks, globex_hooks from shop_hooks")


async def test_all_there_is_to_do_is_done_for_its_own(acme: asyncpg.Connection, pool: Pool) -> None:
    of = await endpoint(acme, "own", org_id="acme", events=["invoice.*"])
    first = await acme.fetchval("select webhook_rotate_secret($1)", of)
    assert first != await acme.fetchval("select webhook_rotate_secret($1, null, '1 hour')", of)
    await acme.execute("update webhook_endpoints set url = 'https://new.example/', rate = '5/s' where name = 'own'")
    await acme.execute("update webhook_endpoints set state = 'disabled', disabled_by = 'ann' where name = 'own'")
    assert await holds(pool) == [(f"lane:endpoint:{of}", "disabled", "ann", None)]
    await acme.execute("update webhook_endpoints set state = 'enabled'")
    assert await holds(pool) == []
    secrets = await acme.fetch("select endpoint_id, org_id, expires_at from webhook_secrets order by id")
    assert [(row["endpoint_id"], row["org_id"], row["expires_at"] is None) for row in secrets] == [
        (of, "acme", False),
        (of, "acme", True),
    ]
    await acme.execute("update webhook_secrets set expires_at = now() where expires_at is not null")
    assert await acme.fetchval("select count(*) from webhook_events") == 1
    assert await acme.fetchval("select count(outcome) from webhook_deliveries") == 1
    await acme.execute("delete from webhook_endpoints where name = 'own'")
    assert await pool.fetchval("select count(*) from webhook_secrets where org_id = 'acme'") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "insert into webhook_endpoints (org_id, name, url) values ('globex', 'mine', 'https://a.example/')",
        "insert into webhook_endpoints (name, url) values ('mine', 'https://a.example/')",
        "update webhook_endpoints set url = 'https://a.example/'",
        "update webhook_endpoints set state = 'disabled'",
        "update webhook_endpoints set org_id = 'acme'",
        "delete from webhook_endpoints",
        "update webhook_secrets set expires_at = now()",
        "insert into webhook_secrets (endpoint_id, secret) select {theirs}, 'mine'",
        "select webhook_rotate_secret({theirs})",
        "select webhook_rotate_secret({theirs}, 'mine', '0')",
        "select secret from webhook_secrets",
        "delete from webhook_secrets",
        "update webhook_deliveries set outcome = 'ok'",
    ],
)
async def test_nothing_is_done_to_those_of_others(
    statement: str, acme: asyncpg.Connection, theirs: int, pool: Pool
) -> None:
    before = await _all(pool)
    with suppress(asyncpg.InsufficientPrivilegeError, asyncpg.ForeignKeyViolationError):
        assert await acme.execute(statement.format(theirs=theirs)) in ("UPDATE 0", "DELETE 0")
    assert await _all(pool) == before
    assert await acme.fetch("select id from webhook_endpoints") == []
    assert await acme.fetch("select id from webhook_secrets") == []
    assert {row[0] for row in await acme.fetch("select org_id from webhook_events")} == {"acme"}
    assert {row[0] for row in await acme.fetch("select org_id from webhook_deliveries")} == {"acme"}


async def _all(pool: Pool) -> list[str]:
    tables = ("webhook_endpoints", "webhook_secrets", "webhook_events", "webhook_deliveries", "job_holds")
    return [
        await pool.fetchval(f"select string_agg(t::text, '|' order by t::text) from {table} as t") for table in tables
    ]


async def test_a_page_for_customers_reads_no_address_no_secret_and_no_job(theirs: int, database: str) -> None:
    conn = await asyncpg.connect(as_login(database, "shop_hooks"))
    try:
        assert await conn.fetchval("select count(*) from webhook_endpoints") == 1
        assert await conn.fetchval("select count(url) from webhook_deliveries") == 2
        for statement in (
            "select address from webhook_deliveries",
            "select * from webhook_deliveries",
            "select secret from webhook_secrets",
            "select * from jobs",
            "select * from job_status",
            "insert into jobs (kind) values ('noop')",
            "insert into webhook_events (event, payload) values ('a', '1')",
            "update webhook_endpoints set failing_since = null",
            "select webhook_endpoints_said('[]', null)",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
    finally:
        await conn.close()


REFERENCES = [
    {"headers": json.dumps({"x-key": "secret://acme--crm"})},
    {"headers": json.dumps({"x-key": "secret://stripe"})},
    {"headers": json.dumps({"x-a": "1", "x-b": "secret://globex--crm"})},
    {"headers": json.dumps({"x-key": "secret://acme"})},
    {"client_certificate": "secret://acme--pem"},
    {"client_certificate": "secret://bank"},
]


@pytest.mark.parametrize("columns", REFERENCES, ids=str)
async def test_of_the_daemons_secrets_an_organisation_names_its_own(
    columns: dict[str, str], acme: asyncpg.Connection, pool: Pool
) -> None:
    of = await endpoint(acme, "own", org_id="acme")
    name, value = next(iter(columns.items()))
    change = f"update webhook_endpoints set {name} = $1 where id = $2"
    if "secret://acme--" in value:
        await endpoint(acme, "other", org_id="acme", **columns)
        await acme.execute(change, value, of)
        return
    with pytest.raises(asyncpg.CheckViolationError, match="not one of organisation acme"):
        await endpoint(acme, "other", org_id="acme", **columns)
    with pytest.raises(asyncpg.CheckViolationError, match="not one of organisation acme"):
        await acme.execute(change, value, of)
    await pool.execute(change, value, of)  # whoever works for all may
    await acme.execute("update webhook_endpoints set url = 'https://new.example/' where id = $1", of)


async def test_a_secret_that_signs_is_one_of_its_own_too(acme: asyncpg.Connection) -> None:
    of = await endpoint(acme, "own", org_id="acme")
    assert await acme.fetchval("select webhook_rotate_secret($1, 'secret://acme--hooks')", of)
    with pytest.raises(asyncpg.CheckViolationError, match="not one of organisation acme"):
        await acme.fetchval("select webhook_rotate_secret($1, 'secret://smtp')", of)


async def test_an_endpoint_stays_with_its_organisation(pool: Pool) -> None:
    of = await endpoint(pool, org_id="acme")
    with pytest.raises(asyncpg.CheckViolationError, match="stays with its organisation"):
        await pool.execute("update webhook_endpoints set org_id = 'globex' where id = $1", of)


async def test_the_last_organisation_of_such_a_login_is_not_taken_away(theirs: int, pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="acme_hooks would belong to every organisation"):
        await pool.execute("delete from job_org_members where role = 'acme_hooks'::regrole")
