"""The sample application: made and dropped without a trace, filled alike by the same seed, and fit for its jobs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from daemon.embedded import Embedded
from daemon.exits import Exit
from daemon.sample import SHARES, TABLES, Filling, drop, fill, install, size_bytes
from tests.sql.logins import drop_roles
from tests.sql.sampled import NOW, contents, sampled

SIZE = 20_000

OBJECTS = """
select coalesce(string_agg(n.nspname || '.' || c.relname || c.relkind::text || coalesce(c.relacl::text, ''), ' '
    order by n.nspname, c.relname), '')
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname !~ '^pg_|^information_schema$'"""
FOREIGN_KEYS = """
select conname, confdeltype::text as action,
       conrelid::regclass::text as child, confrelid::regclass::text as parent,
       (select array_agg(attname::text) from pg_attribute where attrelid = conrelid and attnum = any (conkey))
           as columns,
       (select array_agg(attname::text) from pg_attribute where attrelid = confrelid and attnum = any (confkey))
           as keys,
       exists (select from pg_index where indrelid = conrelid and indkey[0] = conkey[1]) as has_index
from pg_constraint where contype = 'f' and connamespace = 'app'::regnamespace"""
TIMES = """
select c.relname::text as table, a.attname::text as column
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'app'::regnamespace and c.relkind = 'r' and a.atttypid = 'timestamptz'::regtype
  and a.attname not in ('expires_at', 'ends_at', 'computed_at', 'crossed_at')"""
RIGHTS = """
select c.relname::text as table, p as privilege
from pg_class c,
    unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as p
where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'v')
  and has_table_privilege('jobsd_daemon', c.oid, p)"""
DUE = {
    "sessions, absolute": "select expires_at < @ from app.sessions",
    "sessions, idle": "select last_seen_at < @ - interval '14 days' from app.sessions where expires_at > @",
    "magic links": "select expires_at < @ from app.magic_links",
    "aliases": "select expires_at < @ from app.aliases where active and expires_at is not null",
    "tokens": "select expires_at < @ from app.destination_tokens",
    "destinations": "select created_at < @ - interval '30 days' from app.destinations where verified_at is null",
    "notices of destinations": "select removal_warned_at is null from app.destinations "
    "where verified_at is null and created_at < @ - interval '30 days'",
    "messages": "select received_at < @ - interval '90 days' from app.messages",
    "retentions": "select message_retention is null from app.accounts",
    "snapshots": "select headers is null from app.header_snapshots",
    "failed mail": "select failed_at < @ - interval '7 days' from app.failed_emails",
    "forwards": "select first_failed_at < @ - interval '7 days' from app.failed_forwards",
    "held mail": "select held_at < @ - interval '30 days' from app.overflow_hold",
    "warnings": "select warned_at is null from app.overflow_hold where held_at < @ - interval '30 days'",
    "spam": "select quarantined_at < @ - interval '30 days' from app.spam_quarantine",
    "late traffic": "select recorded_at - happened_at > interval '1 hour' from app.bandwidth",
    "cycles": "select ends_at < @ from app.billing_cycles",
    "audit": "select at < @ - interval '365 days' from app.audit_log where not critical",
    "critical audit": "select at < @ - interval '2555 days' from app.audit_log where critical",
    "exports": "select expires_at < @ from app.exports where state = 'ready'",
    "accounts": "select deleted_at is null from app.accounts",
}
"""Rows on both sides of what each job goes by; @ is now."""


@pytest.fixture(scope="module")
async def filled(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    async with sampled(embedded_server, template, "sample_filled", Filling(SIZE, now=NOW)) as conn:
        yield conn


async def test_it_comes_and_goes_without_a_trace_and_twice_is_once(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as conn:
        before = await conn.fetchval(OBJECTS)
        assert await install(conn)
        assert not await install(conn)
        assert await size_bytes(conn)
        assert await drop(conn)
        assert not await drop(conn)
        assert await size_bytes(conn) is None
        assert await conn.fetchval(OBJECTS) == before


async def test_two_who_install_it_at_once_install_it_once(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as one, pool.acquire() as other:

        async def made(conn: asyncpg.pool.PoolConnectionProxy) -> bool:
            is_new = await install(conn)
            await conn.execute("select pg_advisory_unlock_all()")
            return is_new

        assert sorted(await asyncio.gather(made(one), made(other))) == [False, True]


async def test_a_schema_of_that_name_that_is_somebodys_own_is_left_alone(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as conn:
        await conn.execute("create schema app; create table app.accounts (id int); insert into app.accounts values (7)")
        for order in (install(conn), drop(conn), fill(conn, Filling(10), again=True)):
            with pytest.raises(Exit, match="not the sample"):
                await order
        assert await conn.fetchval("select id from app.accounts") == 7


async def test_what_others_built_in_it_or_on_it_keeps_it_whole(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as conn:
        await install(conn)
        for made, dropped in (
            ("create table app.mine (id int)", "drop table app.mine"),
            ("create view mine as select * from app.accounts", "drop view mine"),
        ):
            await conn.execute(made)
            with pytest.raises(Exit, match="nothing was dropped"):
                await drop(conn)
            assert await conn.fetchval("select count(*) from app.audit_log") == 0
            await conn.execute(dropped)
        assert await drop(conn)


async def test_the_sample_of_another_version_is_said_to_be_one(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as conn:
        await install(conn)
        await conn.execute("comment on schema app is 'Sample application of jobsd, 0123456789ab'")
        with pytest.raises(Exit, match="another version's; run: jobsd sample drop"):
            await install(conn)
        assert await drop(conn)


async def test_every_row_points_to_one_that_is_there(filled: asyncpg.Connection) -> None:
    """Rows are inserted without being looked up."""
    for key in await filled.fetch(FOREIGN_KEYS):
        (column,), (of,) = key["columns"], key["keys"]
        lost = await filled.fetchval(
            f"select count(*) from {key['child']} c left join {key['parent']} p on p.{of} = c.{column} "
            f"where c.{column} is not null and p.{of} is null"
        )
        assert lost == 0, key["conname"]


async def test_every_foreign_key_has_an_index_and_none_takes_many_rows_along(filled: asyncpg.Connection) -> None:
    keys = await filled.fetch(FOREIGN_KEYS)
    assert [key["conname"] for key in keys if not key["has_index"]] == []
    few = {"app.destination_tokens", "app.alias_destinations"}
    assert {key["child"] for key in keys if key["action"] == "c"} == few


async def test_the_same_seed_makes_the_same_rows_however_they_are_made(
    embedded_server: Embedded, template: str, monkeypatch: pytest.MonkeyPatch, filled: asyncpg.Connection
) -> None:
    async with sampled(embedded_server, template, "sample_again") as conn:
        monkeypatch.setattr("daemon.sample.CHUNK", 777)
        await fill(conn, Filling(SIZE, now=NOW))
        moving = {"deletion_requests"}  # it numbers itself
        first, second = await contents(filled), await contents(conn)
        assert {t: first[t] for t in first.keys() - moving} == {t: second[t] for t in second.keys() - moving}
        with pytest.raises(Exit, match="--again"):
            await fill(conn, Filling(SIZE, now=NOW))
        await fill(conn, Filling(SIZE, seed=2, now=NOW), again=True)
        other = await contents(conn)
        assert {table for table in SHARES if other[table] == first[table]} <= {"organisations"}


async def test_new_rows_go_on_after_those_that_were_made(filled: asyncpg.Connection) -> None:
    async with filled.transaction():
        highest = await filled.fetchval("select max(id) from app.messages")
        new = await filled.fetchval(
            "insert into app.messages (account_id, direction, state, sender, recipient, size_bytes) "
            "select id, 'in', 'held', '', '', 0 from app.accounts limit 1 returning id"
        )
        assert new == highest + 1
        await filled.execute("delete from app.messages where id = $1", new)


@pytest.mark.parametrize("rows", DUE)
async def test_rows_lie_on_both_sides_of_what_jobs_go_by(filled: asyncpg.Connection, rows: str) -> None:
    found = await filled.fetch(DUE[rows].replace("@", f"'{NOW}'::timestamptz"))
    assert {row[0] for row in found} == {True, False}


async def test_nothing_comes_from_the_future(filled: asyncpg.Connection) -> None:
    times = await filled.fetch(TIMES)
    for time in times:
        late = await filled.fetchval(f"select max({time['column']}) from app.{time['table']}")
        assert late is None or late <= NOW, time


async def test_a_few_accounts_and_organisations_have_most_of_it(filled: asyncpg.Connection) -> None:
    for of in ("account_id from app.messages", "account_id from app.bandwidth", "org_id from app.accounts"):
        column = of.partition(" ")[0]
        counts = [
            row[0]
            for row in await filled.fetch(f"select count(*) from (select {of}) t group by {column} order by 1 desc")
        ]
        tenth = sum(counts[: max(1, len(counts) // 10)])
        assert 0.2 < tenth / sum(counts) < 0.7, of


async def test_the_size_is_about_what_was_asked_for(filled: asyncpg.Connection) -> None:
    rows = sum([await filled.fetchval(f"select count(*) from app.{table}") for table in TABLES])
    assert 0.9 * SIZE < rows < 1.1 * SIZE
    assert await filled.fetchval("select reltuples from pg_class where oid = 'app.messages'::regclass") > 0  # analyzed


@pytest.mark.parametrize("only", SHARES)
async def test_one_table_can_be_filled_alone(filled: asyncpg.Connection, only: str) -> None:
    transaction = filled.transaction()
    await transaction.start()
    try:
        made = await fill(filled, Filling(600, now=NOW, only=only), again=True)
        assert made[only] > 0 if only in ("alias_destinations", "deletion_requests") else made[only] == 600
        assert only in ("messages", "header_snapshots") or "messages" not in made
        assert "plans" in made if only in ("subscriptions", "billing_cycles") else "plans" not in made
    finally:
        await transaction.rollback()


async def test_a_table_that_is_not_filled_cannot_be_asked_for(filled: asyncpg.Connection) -> None:
    with pytest.raises(Exit, match="--only mesages: the sample fills organisations, "):
        await fill(filled, Filling(10, only="mesages"))


async def test_whoever_may_not_skip_the_look_at_keys_fills_it_too(embedded_server: Embedded, template: str) -> None:
    async with sampled(embedded_server, template, "sample_plain") as conn:
        await conn.execute("create role sample_plain")
        try:
            await conn.execute("alter schema app owner to sample_plain")
            for table in TABLES:
                await conn.execute(f"alter table app.{table} owner to sample_plain")
            await conn.execute("set role sample_plain")
            made = await fill(conn, Filling(2000, now=NOW), again=True)
            assert made["messages"] == 400
        finally:
            await conn.execute("reset role")
            await conn.execute("drop owned by sample_plain cascade; drop role sample_plain")


@pytest.mark.req("AS-09")
async def test_the_daemons_role_may_do_its_jobs_there_and_no_more(database: str, pool: asyncpg.Pool) -> None:
    async with pool.acquire() as conn:
        await conn.execute("create role jobsd_daemon; create role jobsd_producer")
        try:
            await install(conn)
            rights = {(row["table"], row["privilege"]) for row in await conn.fetch(RIGHTS)}
            assert {table for table, privilege in rights if privilege == "select"} == {*TABLES, "usage_cycles"}
            assert {privilege for _, privilege in rights} == {"select", "insert", "update", "delete"}
            kept = set(TABLES) - {table for table, privilege in rights if privilege == "delete"}
            assert kept == {"plans", "organisations", "deletion_requests"}
            changed = {table for table, privilege in rights if privilege in ("insert", "update")}
            assert not changed & {*kept, "usage_cycles"}
            may = "select has_column_privilege('jobsd_daemon', 'app.deletion_requests', $1, 'update')"
            assert await conn.fetchval(may, "completed_at")
            assert not await conn.fetchval(may, "requested_at")
            assert not await conn.fetchval("select has_schema_privilege('jobsd_daemon', 'app', 'create')")
            assert not await conn.fetchval("select has_schema_privilege('jobsd_producer', 'app', 'usage')")
        finally:
            await drop_roles(database, "jobsd_daemon", "jobsd_producer")


async def test_each_table_says_what_it_is_for(filled: asyncpg.Connection) -> None:
    said = await filled.fetch(
        "select relname::text, obj_description(oid, 'pg_class') from pg_class "
        "where relnamespace = 'app'::regnamespace and relkind in ('r', 'v')"
    )
    assert [name for name, text in said if not text] == []
    named = set(re.findall(r"BJ-\d\d", " ".join(text for _, text in said)))
    assert named >= {f"BJ-{n:02}" for n in range(3, 21)}


async def test_ages_count_from_the_time_that_was_said(filled: asyncpg.Connection) -> None:
    newest = await filled.fetchval("select max(received_at) from app.messages")
    assert NOW - timedelta(hours=1) < newest <= NOW
