"""Migrations: each once, in order, whole or not at all, whoever else tries."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

import asyncpg
import pytest

import sql
from daemon import migrate as migrating
from daemon.embedded import Embedded
from daemon.migrate import SchemaError, compare, migrate, plan
from daemon.statements import search_path
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore
from sql import Migration
from tests.sql.rows import FROM_THE_FIRST, Pool, claim, until

NAMES = [step.name for step in sql.migrations()]
FIRST = sql.migrations()[:15]
FIRST_NAMES = NAMES[:15]
Only = Callable[[Sequence[Migration]], None]


@pytest.fixture
async def empty(embedded_server: Embedded, database: str, pool: Pool) -> str:
    """The DSN of a database in which a schema `fresh` can be made; `database` drops it."""
    return database


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Only:
    """Makes these steps all that there are."""
    return lambda steps: monkeypatch.setattr(sql, "migrations", lambda: tuple(steps))


@pytest.fixture
def few(only: Only) -> None:
    """For tests that any steps will do for: all of them take half a second."""
    only(FIRST)


async def test_every_step_is_applied_once(empty: str) -> None:
    assert [step.name for step in (await plan(empty, "fresh")).pending] == NAMES
    assert await migrate(empty, "fresh") == NAMES
    assert await migrate(empty, "fresh") == []
    assert await plan(empty, "fresh") == migrating.Plan((), len(NAMES))


async def test_steps_are_numbered_without_a_gap() -> None:
    numbers = [step.number for step in sql.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(step.script.startswith(("-- pre\n", "-- post\n")) for step in sql.migrations())


@pytest.mark.usefixtures("few")
async def test_two_at_once_apply_each_step_once(empty: str, pool: Pool) -> None:
    done = await asyncio.gather(*(migrate(empty, "fresh") for _ in range(3)))
    assert sorted(done, key=len) == [[], [], FIRST_NAMES]
    assert await pool.fetchval("select count(*) from fresh.job_migrations") == len(FIRST)


@pytest.mark.usefixtures("few")
async def test_the_second_waits_as_long_as_the_first_works(empty: str, pool: Pool) -> None:
    async with pool.acquire() as conn:
        await conn.execute(sql.load("migrate.sql")["lock"].replace("$1", "'fresh'"))
        second = asyncio.get_running_loop().create_task(migrate(empty, "fresh"))
        waiting = (
            "select query_start from pg_stat_activity where wait_event = 'advisory' and datname = current_database()"
        )
        await until(lambda: pool.fetchval(waiting), "the second stands in line")
        await conn.execute("select pg_advisory_unlock_all()")
    assert await second == FIRST_NAMES


@pytest.mark.usefixtures("few")
async def test_a_changed_step_is_refused_and_nothing_is_done(empty: str, pool: Pool) -> None:
    await migrate(empty, "fresh")
    await pool.execute("update fresh.job_migrations set checksum = 'other' where number = 2")
    await pool.execute("delete from fresh.job_migrations where number > 6")
    with pytest.raises(SchemaError, match=r"0002_history was changed after it was applied"):
        await migrate(empty, "fresh")
    with pytest.raises(SchemaError):
        await plan(empty, "fresh")
    assert await pool.fetchval("select max(number) from fresh.job_migrations") == 6


@pytest.mark.usefixtures("few")
async def test_a_database_that_is_ahead_is_refused(empty: str, pool: Pool) -> None:
    await migrate(empty, "fresh")
    await pool.execute("insert into fresh.job_migrations (number, name, checksum) values (9999, '9999_later', '')")
    with pytest.raises(SchemaError, match=r"9999_later.*newer jobsd"):
        await migrate(empty, "fresh")


async def test_a_step_that_fails_leaves_nothing_half_done(empty: str, pool: Pool, only: Only) -> None:
    broken = dataclasses.replace(FIRST[2], script="-- pre\ncreate table half (n int);\nselect 1 / 0;")
    only((*FIRST[:2], broken, *FIRST[3:]))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty, "fresh")
    assert await pool.fetchval("select max(number) from fresh.job_migrations") == 2
    assert await pool.fetchval("select to_regclass('fresh.half')") is None
    only(FIRST)
    assert await migrate(empty, "fresh") == FIRST_NAMES[2:]  # and goes on where it stood


async def test_a_killed_migration_leaves_nothing_half_done_and_frees_its_lock(
    empty: str, pool: Pool, only: Only
) -> None:
    slow = dataclasses.replace(FIRST[2], script="-- pre\ncreate table half (n int);\nselect pg_sleep(60);")
    only((*FIRST[:2], slow, *FIRST[3:]))
    victim = asyncio.get_running_loop().create_task(migrate(empty, "fresh"))
    sleeping = "select pid from pg_stat_activity where wait_event = 'PgSleep'"
    await pool.execute("select pg_terminate_backend($1)", await until(lambda: pool.fetchval(sleeping), "it sleeps"))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await victim
    assert await pool.fetchval("select to_regclass('fresh.half')") is None
    only(FIRST)
    assert await migrate(empty, "fresh") == FIRST_NAMES[2:]


async def test_steps_that_old_daemons_do_not_survive_wait_for_their_word(empty: str, only: Only) -> None:
    only((*FIRST, Migration(len(FIRST) + 1, "later", "-- post\ncreate table later (n int);")))
    assert await migrate(empty, "fresh", post=False) == FIRST_NAMES
    assert await migrate(empty, "fresh") == ["later"]


async def test_a_step_may_refuse_a_transaction(empty: str, pool: Pool, only: Only) -> None:
    index = "create index concurrently if not exists jobs_org on jobs (org_id)"
    only((*FIRST, Migration(len(FIRST) + 1, "later", f"-- pre\n-- no transaction\n{index};")))
    assert await migrate(empty, "fresh") == [*FIRST_NAMES, "later"]
    assert await pool.fetchval("select indisvalid from pg_index where indexrelid = 'fresh.jobs_org'::regclass")


async def test_a_migrator_need_not_be_allowed_to_create_schemas(empty: str, pool: Pool) -> None:
    role = f"migrator_{await pool.fetchval('select oid from pg_database where datname = current_database()')}"
    await pool.execute(f"create role {role} login; create schema fresh authorization {role}")
    try:
        assert await migrate(empty.replace("postgres@", f"{role}@", 1), "fresh") == NAMES
    finally:
        await pool.execute(f"drop owned by {role}; drop role {role}")


async def test_keys_of_rows_inserted_before_the_triggers_became_one_still_count(
    empty: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [step for step in sql.migrations() if step.number < 17]
    with monkeypatch.context() as older:
        older.setattr(sql, "migrations", lambda: steps)
        await migrate(empty, "fresh")
    insert = """insert into fresh.jobs (kind, idempotency_key, unique_key) values ('noop', $1, $2)
                on conflict do nothing returning id"""
    assert await pool.fetchval(insert, "first", "sync") is not None
    assert (await migrate(empty, "fresh"))[0] == "0017_insert"
    assert await pool.fetchval(insert, "first", "another") is None
    assert await pool.fetchval(insert, "second", "sync") is None
    assert await pool.fetchval(insert, "second", "another") is not None
    assert await pool.fetchval("select string_agg(key, ',' order by key) from fresh.job_keys") == "first,second"


async def test_what_is_applied_is_told_from_what_is_not_without_a_database() -> None:
    assert compare([]).pending == sql.migrations()


async def test_two_schemas_in_one_database_do_not_mix(empty: str, pool: Pool) -> None:
    schemas = ("public", 'Fr"esh two', "fresh")
    for schema in schemas[1:]:
        await migrate(empty, schema)
    for schema in schemas:
        async with asyncpg.create_pool(empty, min_size=1, server_settings={"search_path": search_path(schema)}) as own:
            store = Store(own)
            assert await store.look(FROM_THE_FIRST, 10) == []
            worker_id = await WorkerStore(own).register("test", "0", ["noop"], ["*"], 60)
            await own.execute("insert into jobs (kind, idempotency_key) values ('noop', 'k')")
            assert len(await claim(store, worker_id)) == 1
            assert await UpkeepStore(own).rescue(worker_id, 3, 10) == (1, [], 1)
            assert await own.fetchval("select current_schema()") == schema
            assert await UpkeepStore(own).make_partitions("job_history", 5) != []
