"""Rights follow the manifest: as far as whoever migrates may give them, and for ever after."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from daemon import roles as judge
from daemon.manifest import OWNER, Right, manifest, parse
from daemon.migrate import migrate
from daemon.role_store import plan, put_right, seen
from daemon.statements import search_path
from tests.sql.logins import as_login, drop_roles, roles_in
from tests.sql.rows import Pool

ALL = tuple(manifest().roles)


@pytest.fixture
async def roles(database: str) -> AsyncIterator[str]:
    async with roles_in(database):
        yield database


async def differences(pool: Pool) -> list[str]:
    async with pool.acquire() as conn:
        return [change.statement for change in await plan(conn)]


async def test_every_object_of_the_schema_is_in_the_manifest(pool: Pool) -> None:
    tables = await pool.fetch(
        "select relname from pg_class c where relnamespace = 'public'::regnamespace "
        "and relkind in ('r', 'p', 'v', 'S') and not relispartition "
        "and not exists (select from pg_depend where objid = c.oid and deptype = 'i' and refobjsubid > 0)"
    )
    functions = await pool.fetch("select proname from pg_proc where pronamespace = 'public'::regnamespace")
    domains = await pool.fetch(
        "select typname from pg_type where typnamespace = 'public'::regnamespace and typtype = 'd'"
    )
    assert {row[0] for row in tables} - {*manifest().tables} == set()
    assert {row[0] for row in functions} - manifest().functions.keys() == set()
    assert {row[0] for row in domains} - {*manifest().domains} == set()


async def test_every_table_with_rows_of_organisations_is_guarded(pool: Pool) -> None:
    tables = await pool.fetch(
        "select relname, relrowsecurity from pg_class c where relnamespace = 'public'::regnamespace "
        "and relkind in ('r', 'p') and not relispartition"
    )
    assert [row["relname"] for row in tables if not row["relrowsecurity"]] == []


async def test_functions_with_their_owners_rights_have_a_pinned_path_and_no_caller_too_many(pool: Pool) -> None:
    rows = await pool.fetch(
        "select proname, proconfig::text, has_function_privilege('public', oid, 'execute') as anyone from pg_proc "
        "where pronamespace = 'public'::regnamespace and prosecdef"
    )
    assert len(rows) >= 5
    assert [row["proname"] for row in rows if "pg_temp" not in row["proconfig"]] == []
    callable_by_all = {name for name, function in manifest().functions.items() if "public" in function.callers}
    assert {row["proname"] for row in rows if row["anyone"]} <= callable_by_all


async def test_whoever_may_insert_without_roles_still_may(pool: Pool, database: str) -> None:
    await pool.execute("create role plain_app login; grant insert, select (id) on jobs to plain_app")
    try:
        conn = await asyncpg.connect(as_login(database, "plain_app"))
        assert await conn.fetchval("insert into jobs (kind, org_id) values ('note', 'acme') returning id")
        await conn.close()
    finally:
        await drop_roles(database, "plain_app")


async def test_roles_are_made_when_they_are_asked_for(database: str, pool: Pool) -> None:
    count = "select count(*) from pg_roles where rolname like 'jobsd\\_%'"
    await migrate(database)
    assert await pool.fetchval(count) == 0
    async with roles_in(database):
        assert await pool.fetchval(count + " and not rolcanlogin") == len(ALL)
        assert await differences(pool) == []
        owners = (
            "select distinct pg_get_userbyid(relowner)::text from pg_class where relnamespace = 'public'::regnamespace"
        )
        assert [row[0] for row in await pool.fetch(owners)] == [OWNER]
        await migrate(database)
        assert await differences(pool) == []


async def test_roles_that_are_there_are_granted_what_they_need(database: str, pool: Pool) -> None:
    await pool.execute("create role jobsd_reader nologin; create role jobsd_owner nologin")
    try:
        await migrate(database)
        assert await pool.fetchval("select has_table_privilege('jobsd_reader', 'jobs', 'select')")
        assert not await pool.fetchval("select has_table_privilege('jobsd_reader', 'jobs', 'insert')")
        owner = "select pg_get_userbyid(relowner)::text from pg_class where oid = 'jobs'::regclass"
        assert await pool.fetchval(owner) == "postgres"  # a daemon that logs in as the owner must not lose its tables
    finally:
        await drop_roles(database, *ALL)


async def test_a_migrator_who_may_make_no_roles_migrates_all_the_same(database: str, pool: Pool) -> None:
    await pool.execute("create role migrator login; create schema fresh authorization migrator")
    dsn = as_login(database, "migrator")
    try:
        await migrate(dsn, "fresh", roles=True)
        conn = await asyncpg.connect(dsn, server_settings={"search_path": search_path("fresh")})
        outcome = await put_right(conn, create=True, own=True)
        assert {change.place for change, _said in outcome.left} == {f"role {role}" for role in ALL}
        assert all("permission denied" in said for _change, said in outcome.left)
        guarded = "select relrowsecurity from pg_class where oid = 'fresh.jobs'::regclass"
        assert await conn.fetchval(guarded)
        await conn.execute("insert into jobs (kind) values ('note')")
        await conn.close()
    finally:
        await drop_roles(database, "migrator")


async def test_who_may_make_roles_needs_to_be_no_superuser(database: str, pool: Pool) -> None:
    await pool.execute("create role migrator login createrole; create schema fresh authorization migrator")
    dsn = as_login(database, "migrator")
    try:
        await migrate(dsn, "fresh", roles=True)
        conn = await asyncpg.connect(dsn, server_settings={"search_path": search_path("fresh")})
        assert await plan(conn) == []
        await conn.close()
        await migrate(dsn, "fresh", roles=True)
    finally:
        await drop_roles(database, *ALL, "migrator")


async def test_two_schemas_have_rights_of_their_own(database: str, pool: Pool) -> None:
    try:
        await migrate(database, "one", roles=True)
        await migrate(database, 'T"wo', roles=True)
        await pool.execute("create role acme_app login; grant jobsd_producer to acme_app")
        await pool.execute("insert into one.job_org_members values ('acme_app', 'acme')")
        conn = await asyncpg.connect(as_login(database, "acme_app"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("insert into one.jobs (kind, org_id) values ('note', 'globex')")
        await conn.execute("insert into \"T\"\"wo\".jobs (kind, org_id) values ('note', 'globex')")
        await conn.close()
    finally:
        await drop_roles(database, "acme_app", *ALL)


async def test_what_is_given_to_others_is_shown_and_left(roles: str, pool: Pool) -> None:
    await pool.execute("create role own_app login; grant insert, update on jobs to own_app")
    try:
        assert await differences(pool) == []
        async with pool.acquire() as conn:
            assert judge.strangers(manifest(), await seen(conn, manifest())) == {"own_app": ["jobs"]}
    finally:
        await drop_roles(roles, "own_app")


async def test_partitions_are_made_and_dropped_by_who_owns_nothing(roles: str, pool: Pool) -> None:
    conn = await asyncpg.connect(as_login(roles, "jobsd_serve"))
    made = [row[0] for row in await conn.fetch("select job_partitions_make('job_history', 9)")]
    assert len(made) >= 5
    assert (
        await pool.fetchval("select pg_get_userbyid(relowner)::text from pg_class where relname = $1", made[-1])
        == OWNER
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await conn.execute(f"drop table {made[-1]}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await conn.fetch(f"select from {made[-1]}")
    assert await conn.fetch("select job_partitions_drop('job_history', '-400 days', 100)")
    assert await differences(pool) == []
    await conn.close()


async def test_stray_rows_are_told_without_a_right_to_read_them(roles: str, pool: Pool) -> None:
    await pool.execute(
        "insert into job_attempts (job_id, attempt, kind, queue, ended_at, outcome) "
        "values (1, 1, 'a', 'q', '2001-01-01', 'retry')"
    )
    conn = await asyncpg.connect(as_login(roles, "jobsd_bob"))
    assert [row[0] for row in await conn.fetch("select parent from job_strays(1)")] == ["job_attempts"]
    await conn.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [('jobsd_nobody = ["select"]', "is no role"), ('jobsd_reader = ["select id"]', "is no right")],
)
def test_a_manifest_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    head = '[roles]\njobsd_reader = "r"\n[policies]\n[functions]\n[settings]\n[domains]\nnames = []\n'
    server = "[server]\noldest = 14\nnewest = 18\nsafe = {}\n"
    assert parse(head + server + '[tables.t]\njobsd_reader = ["select (a, b)"]').rights == {
        Right("jobsd_reader", "t", "select", "a"),
        Right("jobsd_reader", "t", "select", "b"),
    }
    with pytest.raises(ValueError, match=says):
        parse(f"{head}{server}[tables.t]\n{text}")
