"""What a producer of one organisation can do: everything a producer does, with its own rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from daemon.embedded import Embedded
from tests.sql.logins import as_login, template_with_roles
from tests.sql.plans import planned, seed
from tests.sql.rows import Pool

UNIQUE = "insert into jobs (kind, org_id, unique_key) values ('note', 'acme', 'acme:u') on conflict {} returning id"


@pytest.fixture(scope="module")
async def template(embedded_server: Embedded, admin: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The databases of this module have the roles, which are made once."""
    async with template_with_roles(embedded_server, admin, template) as name:
        yield name


@pytest.fixture
def roles(database: str) -> str:
    return database


@pytest.fixture
async def acme(roles: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(as_login(roles, "acme_app"))
    yield conn
    await conn.close()


@pytest.fixture
async def shop(roles: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's own back end, of no organisation."""
    conn = await asyncpg.connect(as_login(roles, "shop_app"))
    yield conn
    await conn.close()


@pytest.mark.req("OR-13", "AS-09")
async def test_it_inserts_and_sees_what_becomes_of_its_rows(acme: asyncpg.Connection, pool: Pool) -> None:
    first = await acme.fetchval("insert into jobs (kind, org_id) values ('note', 'acme') returning id")
    rows = await acme.fetch(
        "insert into jobs (kind, org_id, args) select 'note', 'acme', jsonb_build_object('n', n) "
        "from generate_series(1, 3) as n returning id"
    )
    await pool.execute("insert into jobs (kind, org_id) values ('note', 'globex')")
    await pool.execute(
        "insert into job_history (id, kind, args, queue, org_id, priority, run_at, created_at, state, attempt, "
        "crashes, finished_at) values (900, 'note', '{}', 'default', 'acme', 2, now(), now(), 'done', 1, 0, now())"
    )
    seen = [tuple(row) for row in await acme.fetch("select id, state from job_status order by id")]
    assert seen == [(first, "ready"), *((row["id"], "ready") for row in rows), (900, "done")]


async def test_its_keys_work_and_begin_with_its_name(acme: asyncpg.Connection) -> None:
    for target in ("do nothing", "(kind, unique_key) where unique_key is not null do nothing"):
        await acme.execute(UNIQUE.format(target))
        assert await acme.fetch(UNIQUE.format(target)) == []
    with pytest.raises(asyncpg.UniqueViolationError):
        await acme.execute("insert into jobs (kind, org_id, unique_key) values ('note', 'acme', 'acme:u')")
    once = "insert into jobs (kind, org_id, idempotency_key) values ('note', 'acme', 'acme:i') returning id"
    assert [len(await acme.fetch(once)) for _ in range(2)] == [1, 0]
    await acme.execute("insert into jobs (kind, org_id, ordering_key) values ('note', 'acme', 'acme:o')")


async def test_what_is_refused_tells_nothing_of_the_keys_that_are_there(acme: asyncpg.Connection, pool: Pool) -> None:
    await pool.execute("insert into jobs (kind, org_id, unique_key) values ('note', 'globex', 'globex:1')")
    said = []
    for key in ("globex:1", "globex:2"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
            await acme.execute(f"insert into jobs (kind, org_id, unique_key) values ('note', 'acme', '{key}')")
        said.append((str(refused.value), refused.value.detail))
    assert said[0] == said[1]


async def test_an_idempotency_key_of_another_organisation_is_neither_taken_nor_kept(
    acme: asyncpg.Connection, pool: Pool
) -> None:
    await pool.execute("insert into jobs (kind, org_id, idempotency_key) values ('note', 'globex', 'globex:1')")
    statement = "insert into jobs (kind, org_id, idempotency_key) values ('note', 'acme', $1) returning id"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await acme.fetch(statement, "globex:2")
    assert await acme.fetch(statement, "globex:1") == []
    assert [row[0] for row in await pool.fetch("select key from job_keys")] == ["globex:1"]


async def test_copy_goes_through_the_intake_with_the_tables_defaults(acme: asyncpg.Connection, pool: Pool) -> None:
    rows = [("note", "acme", json.dumps({"n": n})) for n in range(3)]
    await acme.copy_records_to_table("job_intake", records=rows, columns=["kind", "org_id", "args"])
    found = await pool.fetch(
        "select queue, priority, args ->> 'n' as n, run_at = created_at as now from jobs order by id"
    )
    assert [tuple(row) for row in found] == [("default", 2, str(n), True) for n in range(3)]


async def test_the_intake_takes_every_column_that_a_producer_may_name(roles: str, pool: Pool) -> None:
    columns = (
        "select array_agg(attname::text order by attname) from pg_attribute "
        "where attrelid = $1::text::regclass and attnum > 0 "
        "and has_column_privilege('jobsd_producer', attrelid, attnum, 'insert')"
    )
    assert await pool.fetchval(columns, "job_intake") == await pool.fetchval(columns, "jobs")


async def test_its_insert_wakes_the_daemons(acme: asyncpg.Connection, roles: str) -> None:
    heard = asyncio.Event()
    ear = await asyncpg.connect(roles)
    await ear.add_listener("jobsd:public", lambda *_: heard.set())
    await ear.execute(
        """insert into job_workers (name, version, kinds, queues, lease_until)
           values ('ear', '1', '{}', '{}', now() + interval '1 hour')"""
    )
    await acme.execute("insert into jobs (kind, org_id) values ('note', 'acme')")
    async with asyncio.timeout(120):
        await heard.wait()
    await ear.close()


async def test_the_back_end_works_for_all_organisations(shop: asyncpg.Connection) -> None:
    await shop.execute("insert into jobs (kind, org_id) values ('note', 'acme'), ('note', 'globex'), ('note', null)")
    await shop.execute("insert into jobs (kind, org_id, unique_key) values ('note', 'acme', 'any key')")
    assert await shop.fetchval("select count(*) from job_status") == 4
    for statement in ("update jobs set priority = 1", "delete from jobs", "select args from jobs", "truncate jobs"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shop.execute(statement)


async def test_a_membership_counts_at_once_also_for_statements_that_are_prepared(
    acme: asyncpg.Connection, shop: asyncpg.Connection, pool: Pool
) -> None:
    insert = "insert into jobs (kind, org_id) values ('note', $1)"
    of_acme, of_shop = await acme.prepare(insert), await shop.prepare(insert)
    for _ in range(6):  # until the plan is kept
        await of_acme.fetch("acme")
        await of_shop.fetch("globex")
    await pool.execute("insert into job_org_members values ('acme_app', 'initech'), ('shop_app', 'acme')")
    await of_acme.fetch("initech")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await of_shop.fetch("globex")
    await pool.execute("delete from job_org_members where role = 'acme_app'::regrole and org_id = 'acme'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await of_acme.fetch("acme")


async def test_the_organisations_of_a_group_are_those_of_its_members(shop: asyncpg.Connection, pool: Pool) -> None:
    statement = await shop.prepare("select distinct org_id from job_status order by 1")
    await pool.execute("insert into jobs (kind, org_id) values ('note', 'acme'), ('note', 'globex')")
    assert len(await statement.fetch()) == 2
    await pool.execute("grant globex_app to shop_app")
    try:
        assert [row[0] for row in await statement.fetch()] == ["globex"]
    finally:
        await pool.execute("revoke globex_app from shop_app")


async def test_a_gateway_is_as_narrow_as_the_role_it_takes_on(shop: asyncpg.Connection, pool: Pool) -> None:
    await pool.execute(
        "insert into jobs (kind, org_id) values ('note', 'acme'), ('note', 'globex'), ('note', 'initech')"
    )
    await pool.execute("grant globex_app, acme_app to shop_app")
    seen = []
    try:
        for role in ("acme_app", "globex_app", "none"):
            await shop.execute(f"set role {role}")
            seen.append([row[0] for row in await shop.fetch("select org_id from job_status order by 1")])
    finally:
        await pool.execute("revoke globex_app, acme_app from shop_app")
    assert seen == [["acme"], ["globex"], ["acme", "globex"]]


async def test_nobody_is_set_free_by_losing_an_organisation(roles: str, pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="acme_app would belong to every organisation"):
        await pool.execute("delete from job_org_members where role = 'acme_app'::regrole")
    with pytest.raises(asyncpg.CheckViolationError, match="delete rows instead"):
        await pool.execute("truncate job_org_members")
    async with pool.acquire() as conn, conn.transaction():  # to move is allowed, in either order
        await conn.execute("delete from job_org_members where role = 'acme_app'::regrole")
        await conn.execute("insert into job_org_members values ('acme_app', 'initech')")
    await pool.execute("revoke jobsd_producer from acme_app")
    try:
        await pool.execute("delete from job_org_members where role = 'acme_app'::regrole")
    finally:
        await pool.execute("grant jobsd_producer to acme_app")


async def test_a_role_keeps_its_organisation_under_another_name(roles: str, pool: Pool) -> None:
    await pool.execute("insert into jobs (kind, org_id) values ('note', 'acme'), ('note', 'globex')")
    await pool.execute("alter role acme_app rename to acme_new")
    try:
        conn = await asyncpg.connect(as_login(roles, "acme_new"))
        assert [row[0] for row in await conn.fetch("select org_id from job_status")] == ["acme"]
        await conn.close()
    finally:
        await pool.execute("alter role acme_new rename to acme_app")


async def test_policies_are_no_part_of_the_plans_of_those_who_belong_to_all(
    shop: asyncpg.Connection, acme: asyncpg.Connection, roles: str
) -> None:
    daemon = await asyncpg.connect(as_login(roles, "jobsd_serve"))
    select = "select id from jobs where id = 1"
    free, bound = await planned(daemon, select), await planned(acme, select)
    await daemon.close()
    assert [node.get("Filter") for node in free.nodes] == [None]
    assert "acme" in str([node.get("Filter") for node in bound.nodes])
    assert {"jobs_pkey"} <= free.indexes & bound.indexes


async def test_job_status_finds_an_id_by_its_index(acme: asyncpg.Connection, roles: str, pool: Pool) -> None:
    owner = await asyncpg.connect(roles)
    await seed(owner, 5_000, others=False)
    await owner.close()
    plan = await planned(acme, "select state from job_status where id = $1")
    today = await pool.fetchval("select tableoid::regclass::text from job_history limit 1")
    assert not plan.scanned("jobs")
    assert not plan.scanned(today)
    assert "jobs_pkey" in plan.indexes
