"""A login of one organisation can neither see nor touch another's rows, whatever it sends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from daemon.embedded import Embedded
from daemon.manifest import manifest
from tests.sql.logins import as_login, roles_in

pytestmark = pytest.mark.req("OR-13", "JP-08")

ROWS = """
insert into jobs (kind, org_id, args, unique_key, idempotency_key)
select 'note', org, jsonb_build_object('of', org), org || ':u', org || ':i' from unnest(array['acme', 'globex']) as org;
insert into jobs (kind, args) values ('note', '{"of": "nobody"}');
insert into job_history (id, kind, args, queue, org_id, priority, run_at, created_at, state, attempt, crashes,
    finished_at)
select 900 + n, 'note', '{}', 'default', org, 2, now(), now(), 'done', 1, 0, now()
from unnest(array['acme', 'globex']) with ordinality as t (org, n);
insert into job_attempts (job_id, attempt, kind, queue, org_id, ended_at, outcome)
select 901, 1, 'note', 'default', org, now(), 'retry' from unnest(array['acme', 'globex']) as org;
insert into webhook_deliveries (job_id, attempt, org_id, url, outcome)
select 901, 1, org, 'https://' || org, 'ok' from unnest(array['acme', 'globex']) as org;
insert into email_deliveries (job_id, attempt, org_id, recipient, outcome)
select 901, 1, org, 'ann@' || org, 'delivered' from unnest(array['acme', 'globex']) as org;
insert into notification_deliveries (job_id, attempt, org_id, channel, recipient, outcome)
select 901, 1, org, 'push', org, 'delivered' from unnest(array['acme', 'globex']) as org;
insert into webhook_endpoints (org_id, name, url, events)
select org, 'main', 'https://' || org, '{other}' from unnest(array['acme', 'globex']) as org;
insert into webhook_secrets (endpoint_id, secret) select id, 'globex' from webhook_endpoints where org_id = 'globex';
insert into webhook_events (org_id, event, payload)
select org, 'a', to_json(org) from unnest(array['acme', 'globex']) as org;
insert into domain_checks (job_id, attempt, org_id, domain, verdict, records)
select 901, 1, org, org, 'match', '[]' from unnest(array['acme', 'globex']) as org;
insert into monitor_checks (job_id, attempt, org_id, monitor, target, outcome, state)
select 901, 1, org, org, 'tcp://' || org, 'ok', 'up' from unnest(array['acme', 'globex']) as org;
insert into monitors (name, org_id, target, version, outcome)
select org, org, 'tcp://' || org, 1, 'ok' from unnest(array['acme', 'globex']) as org;
insert into job_orgs select org from unnest(array['acme', 'globex']) as org;
insert into job_audit (actor, action, subject) values ('ann', 'cancel', 'globex');
insert into job_holds (gate, cause) values ('org:globex', 'pause'), ('queue:globex', 'pause');
insert into job_limits (name, key) values ('per_org', 'globex');
analyze;
"""

PRODUCER = {
    "select": "select id from jobs where org_id = 'globex'",
    "select by key": "select id, unique_key from jobs where kind = 'note' and unique_key like 'globex%'",
    "select through the view": "select id from job_status where org_id = 'globex' or org_id is null",
    "insert for another": "insert into jobs (kind, org_id) values ('note', 'globex')",
    "insert for nobody": "insert into jobs (kind) values ('note')",
    "insert with another's": "insert into jobs (kind, org_id) values ('note', 'acme'), ('note', 'globex')",
    "insert through the intake": "insert into job_intake (kind, org_id) values ('note', 'globex')",
    "insert of an engine column": "insert into jobs (kind, org_id, state) values ('note', 'acme', 'running')",
    "insert of an id": "insert into jobs (id, kind, org_id) overriding system value values (1, 'note', 'acme')",
    "another's unique key": "insert into jobs (kind, org_id, unique_key) values ('note', 'acme', 'globex:u')",
    "another's idempotency key": "insert into jobs (kind, org_id, idempotency_key) values ('note', 'acme', 'globex:n')",
    "another's order": "insert into jobs (kind, org_id, ordering_key) values ('note', 'acme', 'globex:o')",
    "update": "update jobs set priority = 1 where org_id = 'globex'",
    "update of the organisation": "update jobs set org_id = 'acme'",
    "delete": "delete from jobs where org_id = 'globex'",
    "truncate": "truncate jobs",
    "copy out": "copy jobs to stdout",
    "copy in": "copy jobs (kind, org_id) from stdin",
    "upsert": (
        "insert into jobs (kind, org_id, unique_key) values ('note', 'globex', 'globex:u') "
        "on conflict (kind, unique_key) where unique_key is not null do update set org_id = 'acme'"
    ),
    "upsert of what is there": (
        "insert into jobs (kind, org_id, unique_key) values ('note', 'globex', 'globex:u') "
        "on conflict (kind, unique_key) where unique_key is not null do nothing"
    ),
    "select for update": "select id from jobs for update",
    "merge": (
        "merge into jobs using (values ('globex')) as o (name) on jobs.org_id = o.name "
        "when matched then delete when not matched then insert (kind, org_id) values ('note', 'acme')"
    ),
    "history": "select id from job_history",
    "a partition of it": "select id from job_history_default",
    "attempts": "select job_id from job_attempts",
    "the webhooks' log": "select job_id from webhook_deliveries",
    "the mails' log": "select job_id from email_deliveries",
    "the log of pushes": "select job_id from notification_deliveries",
    "monitors": "select name from monitors",
    "what they found": "select job_id from monitor_checks",
    "events": "select id from webhook_events",
    "an event for another": "insert into webhook_events (org_id, event, payload) values ('globex', 'a', '1')",
    "endpoints": "select id from webhook_endpoints",
    "another's endpoint": "update webhook_endpoints set url = 'https://acme' where org_id = 'globex'",
    "secrets": "select secret from webhook_secrets",
    "a secret of its own": "select webhook_rotate_secret(2)",
    "another's endpoint by name": (
        "insert into jobs (kind, org_id, args) values ('webhook', 'globex', '{\"endpoint\": \"main\", \"payload\": 1}')"
    ),
    "keys": "select key from job_keys",
    "who belongs where": "select * from job_org_members",
    "join another": "insert into job_org_members values ('acme_app', 'globex')",
    "leave": "delete from job_org_members where role = 'acme_app'::regrole",
    "the audit": "insert into job_audit (actor, action, subject) values ('me', 'nothing', 'happened')",
    "a trigger": "create trigger mine after insert on jobs execute function suppress_redundant_updates_trigger()",
    "a rule": "create rule mine as on insert to jobs do also select 1",
    "a policy": "create policy mine on jobs using (true)",
    "no policies": "alter table jobs disable row level security",
    "a function in the schema": "create function peek() returns int language sql as 'select 1'",
    "a table in the schema": "create table mine (n int)",
    "a partition of its own": (
        "create table mine partition of job_attempts for values from ('2001-01-01') to ('2002-01-01')"
    ),
    "the owner": "set role jobsd_owner",
    "the daemon": "set role jobsd_daemon",
    "another login": "set role globex_app",
    "another session": "set session authorization globex_app",
    "no row security": "set row_security = off; select id from jobs",
    "what replicas leave out": "set session_replication_role = replica",
    "the partitions": "select job_partitions_drop('job_history', '0', 10)",
    "more partitions": "select job_partitions_make('job_history', 30)",
    "statistics": "select most_common_vals::text from pg_stats where tablename like 'job%' and attname = 'org_id'",
    "statistics of old": "select stavalues1::text from pg_statistic where starelid = 'jobs'::regclass",
}


@pytest.fixture(scope="module")
async def house(embedded_server: Embedded, template: str) -> AsyncIterator[str]:
    """One database for all statements: none of them changes anything."""
    name = "isolation"
    admin = await asyncpg.connect(embedded_server.dsn("postgres"))
    await admin.execute(f"create database {name} template {template}")
    try:
        async with roles_in(embedded_server.dsn(name)):
            conn = await asyncpg.connect(embedded_server.dsn(name))
            await conn.execute(ROWS)
            await conn.close()
            yield embedded_server.dsn(name)
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


@pytest.fixture
async def acme(house: str) -> AsyncIterator[asyncpg.Connection]:
    """A producer of organisation acme."""
    conn = await asyncpg.connect(as_login(house, "acme_app"), timeout=10)
    yield conn
    await conn.close()


class Inventory:
    """What is there, as the superuser sees it."""

    def __init__(self, conn: asyncpg.Connection, tables: Sequence[str]) -> None:
        self._conn = conn
        rows = (f"(select coalesce(string_agg(t::text, '|' order by t::text), '') from {name} as t)" for name in tables)
        self._rows = f"select array[{', '.join(rows)}]"

    async def taken(self) -> list[str]:
        """All rows of all tables, and who has which rights."""
        rights = (
            "select string_agg(relname || relacl::text || relrowsecurity, ',' order by oid) from pg_class "
            "where relnamespace = 'public'::regnamespace"
        )
        return [await self._conn.fetchval(self._rows), await self._conn.fetchval(rights)]

    async def foreign(self, rows: list[asyncpg.Record]) -> bool:
        """Whether any of these ids is of a row that is not acme's."""
        statement = "select count(*) from job_status where id = any ($1::bigint[]) and org_id is distinct from 'acme'"
        count: int = await self._conn.fetchval(statement, [row[0] for row in rows])
        return count > 0


@pytest.fixture(scope="module")
async def inventory(house: str) -> AsyncIterator[Inventory]:
    conn = await asyncpg.connect(house)
    tables = await conn.fetch(
        "select relname from pg_class where relname = any ($1) and relkind in ('r', 'p') "
        "and relnamespace = 'public'::regnamespace order by relname",
        list(manifest().tables),
    )
    yield Inventory(conn, [row[0] for row in tables])
    await conn.close()


REFUSED = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.InvalidParameterValueError,
    asyncpg.ForeignKeyViolationError,  # there is no such endpoint
)


@pytest.mark.parametrize("statement", PRODUCER.values(), ids=PRODUCER)
async def test_a_producer_reaches_nothing_of_another_organisation(
    statement: str, acme: asyncpg.Connection, inventory: Inventory
) -> None:
    if statement.startswith("merge") and acme.get_server_version() < (15,):
        pytest.skip("no merge yet")
    before = await inventory.taken()
    with suppress(*REFUSED):
        rows = await _sent(acme, statement)
        assert statement.startswith(("select", "set row_security", "delete from job_org")), "it was carried out"
        assert not await inventory.foreign(rows)
    assert await inventory.taken() == before


async def _sent(conn: asyncpg.Connection, statement: str) -> list[asyncpg.Record]:
    """What comes back."""
    if statement == "copy jobs to stdout":
        await conn.copy_from_table("jobs", output=Path(os.devnull))
        return []
    if statement.startswith("copy"):
        await conn.copy_records_to_table("jobs", records=[("note", "globex")], columns=["kind", "org_id"])
        return []
    *first, last = statement.split("; ")
    for step in first:
        await conn.execute(step)
    return await conn.fetch(last)


@pytest.mark.parametrize("login", ["acme_reader", "acme_operator"])
async def test_readers_and_operators_of_an_organisation_see_its_rows_and_no_others(login: str, house: str) -> None:
    conn = await asyncpg.connect(as_login(house, login))
    readable = await conn.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v') "
        "and has_table_privilege(oid, 'select')"
    )
    seen = {name: [row[0] for row in await conn.fetch(f"select t::text from {name} as t")] for (name,) in readable}
    await conn.close()
    assert {"jobs", "job_history", "job_attempts", "webhook_deliveries", "job_status"} <= seen.keys()
    assert [row for rows in seen.values() for row in rows if "globex" in row or "nobody" in row] == []
    own = ["jobs", "job_history", "job_attempts", "webhook_deliveries", "email_deliveries", "domain_checks", "job_orgs"]
    own += ["notification_deliveries", "monitors", "monitor_checks"]
    own += ["webhook_endpoints", "webhook_events"]
    assert [table for table in own if not seen[table]] == []


@pytest.mark.parametrize(
    "statement",
    [
        "delete from jobs where kind = 'note' and org_id is distinct from 'acme'",
        "update jobs set run_at = now() where org_id is distinct from 'acme'",
        "delete from job_history where org_id = 'globex'",
        "select id from jobs where org_id is distinct from 'acme' for update",
        "update job_orgs set weight = 9 where org_id = 'globex'",
        "delete from job_holds",
        "insert into job_orgs values ('initech')",
        "update webhook_endpoints set url = 'https://acme' where org_id = 'globex'",
        "update webhook_endpoints set org_id = 'globex'",
        "delete from webhook_endpoints where org_id = 'globex'",
        "update webhook_secrets set expires_at = now() where endpoint_id = 2",
        "insert into webhook_secrets (endpoint_id, secret) values (2, 'mine')",
        "insert into webhook_events (org_id, event, payload) values ('globex', 'a', '1')",
        "insert into job_holds (gate, cause) values ('org:globex', 'pause')",
        "insert into jobs (kind, org_id) values ('note', 'globex')",
        "update job_orgs set org_id = 'globex2'",
        "delete from job_audit",
        "update job_audit set actor = 'somebody else'",
    ],
)
async def test_an_operator_of_an_organisation_changes_nothing_of_another(
    statement: str, house: str, inventory: Inventory
) -> None:
    before = await inventory.taken()
    conn = await asyncpg.connect(as_login(house, "acme_operator"))
    try:
        rows = await conn.fetch(statement + ("" if statement.endswith("update") else " returning 1"))
        assert rows == []
    except (asyncpg.InsufficientPrivilegeError, asyncpg.CheckViolationError):
        pass
    finally:
        await conn.close()
    assert await inventory.taken() == before


async def test_a_function_that_tells_its_rows_is_shown_no_others(acme: asyncpg.Connection) -> None:
    told: list[str] = []
    acme.add_log_listener(lambda _conn, message: told.append(message.message))
    await acme.execute(
        "create function pg_temp.tell(job_queue, text) returns boolean language plpgsql cost 0.0000001 as "
        "$$ begin raise notice 'row %', $2; return true; end $$"
    )
    await acme.fetch("select id from job_status where pg_temp.tell(queue::job_queue, org_id)")
    await acme.fetch("select id from jobs where pg_temp.tell('q', unique_key)")
    assert told  # it was asked, of its own rows
    assert [line for line in told if "globex" in line or line == "row <NULL>"] == []


async def test_temporary_objects_do_not_stand_in_for_what_the_functions_use(
    acme: asyncpg.Connection, inventory: Inventory
) -> None:
    before = await inventory.taken()
    await acme.execute(
        "create temp table job_org_members (role regrole, org_id text); "
        "create temp table job_own_orgs (orgs text[]); insert into job_own_orgs values (null); "
        "create temp table job_keys (kind text, key text, job_id bigint); "
        "create temp table pg_auth_members (roleid oid, member oid); "
        "create function pg_temp.quote_ident(name) returns text language sql as $$ select 'postgres' $$; "
        "set search_path = pg_temp, public"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await acme.execute("insert into jobs (kind, org_id) values ('note', 'globex')")
    assert [row[0] for row in await acme.fetch("select distinct org_id from public.job_status")] == ["acme"]
    assert await inventory.taken() == before


async def test_a_setting_is_no_organisation(acme: asyncpg.Connection) -> None:
    await acme.execute("set jobsd.org_id = 'globex'; set jobsd.orgs = '{globex}'")
    assert [row[0] for row in await acme.fetch("select distinct org_id from job_status")] == ["acme"]


async def test_the_right_to_become_a_group_frees_nobody_from_its_organisation(acme: asyncpg.Connection) -> None:
    await acme.execute("set role jobsd_producer")  # it has no organisation of its own
    assert [row[0] for row in await acme.fetch("select distinct org_id from job_status")] == ["acme"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await acme.execute("insert into jobs (kind, org_id) values ('note', 'globex')")


async def test_a_plan_that_was_made_for_one_role_is_not_used_for_another(house: str) -> None:
    conn = await asyncpg.connect(house)  # a superuser who takes on roles, as a gateway does
    rows = await conn.prepare("select distinct org_id from job_status where org_id is not null order by 1")
    ids = await conn.prepare("select id from jobs")
    seen = []
    for role in ("acme_app", "globex_app", "shop_app", "acme_app"):
        await conn.execute(f"set role {role}")
        seen.append(([row[0] for row in await rows.fetch()], len(await ids.fetch())))
    await conn.execute("reset role")
    await conn.close()
    assert seen == [(["acme"], 1), (["globex"], 1), (["acme", "globex"], 3), (["acme"], 1)]
