"""A later insert with the same unique key: ignored, or merged into the row that waits; never an error, never lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from daemon.store import Store
from jobs.model import Done
from tests.sql.rows import Insert, Pool, Worker, claim, ended, waits_for_lock

INSERT = """
insert into jobs (kind, unique_key, on_duplicate, args, run_at)
values ('noop', 'k', $1, jsonb_build_object('n', $2::int), now() + $3::float8 * interval '1 second') returning id"""
MODES = ("ignore", "replace", "postpone", "replace_and_postpone")
DUE_S = "select date_part('epoch', run_at - created_at)::int from jobs"


async def insert(pool: Any, mode: str, n: int = 0, in_s: float = 0.0) -> int | None:
    found: int | None = await pool.fetchval(INSERT, mode, n, in_s)
    return found


async def args(pool: Pool) -> list[int]:
    return [json.loads(row[0])["n"] for row in await pool.fetch("select args from jobs order by id")]


@pytest.mark.parametrize("mode", MODES)
async def test_a_hundred_clients_make_one_row_and_no_error(pool: Pool, mode: str) -> None:
    ids = await asyncio.gather(*(insert(pool, mode, n, 60) for n in range(100)))
    (made,) = [found for found in ids if found is not None]
    assert [row[0] for row in await pool.fetch("select id from jobs")] == [made]
    assert await pool.fetchval("select job_id from job_debounces where kind = 'noop' and unique_key = 'k'") == made


async def test_the_last_of_many_args_is_the_one_that_stays(pool: Pool) -> None:
    """Each client inserts when the one before it has committed, while others that wait for it are lined up."""
    await asyncio.gather(*(insert(pool, "replace", 1, 60) for _ in range(20)))
    await insert(pool, "replace", 2, 60)
    assert await args(pool) == [2]


@pytest.mark.parametrize(
    ("mode", "n", "due_s"),
    [("ignore", 1, 60), ("replace", 2, 60), ("postpone", 1, 90), ("replace_and_postpone", 2, 90)],
)
async def test_each_mode_changes_what_it_names(pool: Pool, mode: str, n: int, due_s: int) -> None:
    assert await insert(pool, mode, 1, 60) is not None
    assert await insert(pool, mode, 2, 90) is None
    assert await args(pool) == [n]
    assert abs(await pool.fetchval(DUE_S) - due_s) <= 5


async def test_replacing_takes_what_the_work_is_and_leaves_where_it_stands(pool: Pool) -> None:
    statement = """
        insert into jobs (kind, unique_key, on_duplicate, priority, lane, correlation_id, queue, ordering_key,
            expires_at)
        values ('noop', 'k', 'replace', $1, $2::text, $2::text, $2::text, $2::text, $3)"""
    await pool.execute(statement, 1, "first", None)
    await pool.execute("update jobs set gate = 'lane:first'")
    await pool.execute(statement, 3, "second", await pool.fetchval("select now() + interval '1 hour'"))
    (row,) = await pool.fetch(
        "select priority, lane, correlation_id, queue, ordering_key, expires_at is not null, gate from jobs"
    )
    assert tuple(row) == (3, "second", "second", "first", "first", True, "")


async def test_a_row_cannot_be_postponed_for_ever(pool: Pool) -> None:
    await insert(pool, "postpone", in_s=60)
    await insert(pool, "postpone", in_s=7200)
    assert await pool.fetchval(DUE_S) == 3600
    await pool.execute("update jobs set postpone_until = created_at + interval '5 minutes'")
    await insert(pool, "postpone", in_s=7200)
    assert await pool.fetchval(DUE_S) == 3600  # it is not made earlier for that
    await insert(pool, "postpone", in_s=10)
    await insert(pool, "postpone", in_s=7200)
    assert await pool.fetchval(DUE_S) == 300


async def test_a_row_that_is_postponed_stands_with_those_of_the_future(pool: Pool) -> None:
    await insert(pool, "postpone")
    assert await pool.fetchval("select gate from jobs") == ""
    await insert(pool, "postpone", in_s=60)
    assert await pool.fetchval("select gate from jobs") == "later"
    await insert(pool, "postpone")
    assert await pool.fetchval("select gate from jobs") == ""


@pytest.mark.parametrize("mode", ["replace", "postpone", "replace_and_postpone"])
async def test_an_insert_while_the_row_runs_comes_after_it(pool: Pool, store: Store, worker: Worker, mode: str) -> None:
    first = await insert(pool, mode, 1)
    (job,) = await claim(store, await worker())
    second = await insert(pool, mode, 2)
    assert second is not None
    assert await insert(pool, mode, 3) is None  # that one waits
    assert await args(pool) == [1, 2 if mode == "postpone" else 3]
    assert job.id == first
    await store.write([ended(job, Done())])
    assert [job.id for job in await claim(store, await worker())] == [second]


async def test_what_is_ignored_is_ignored_while_the_row_runs_too(pool: Pool, store: Store, worker: Worker) -> None:
    await insert(pool, "ignore")
    (job,) = await claim(store, await worker())
    assert await insert(pool, "ignore") is None
    await store.write([ended(job, Done())])
    assert await insert(pool, "ignore") is not None


async def test_a_claim_and_an_insert_at_once_lose_nothing(pool: Pool, store: Store, worker: Worker) -> None:
    """The insert has found the row and waits for its lock, which a claim has: then it is a row of its own."""
    first = await insert(pool, "replace", 1)
    async with pool.acquire() as claimer:
        taking = claimer.transaction()
        await taking.start()
        await claimer.execute(
            "update jobs set state = 'running', unique_key = null, worker_id = $1 where id = $2", await worker(), first
        )
        late = asyncio.get_running_loop().create_task(insert(pool, "replace", 2))
        await waits_for_lock(pool, "on_duplicate")
        await taking.commit()
    assert await late is not None
    assert await args(pool) == [1, 2]


async def test_an_insert_that_is_rolled_back_changed_nothing(pool: Pool) -> None:
    await insert(pool, "replace", 1, 60)
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        assert await insert(conn, "replace", 2, 60) is None
        later = asyncio.get_running_loop().create_task(insert(pool, "replace", 3, 60))
        await waits_for_lock(pool, "on_duplicate")
        await transaction.rollback()
    assert await later is None
    assert await args(pool) == [3]


async def test_rows_of_one_statement_merge_into_each_other(pool: Pool) -> None:
    await pool.execute(
        """insert into jobs (kind, unique_key, on_duplicate, args)
           select 'noop', 'k' || n % 2, 'replace', jsonb_build_object('n', n) from generate_series(1, 6) as n"""
    )
    assert await args(pool) == [5, 6]


async def test_copy_merges_too(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await conn.copy_records_to_table(
            "jobs",
            columns=["kind", "unique_key", "on_duplicate", "args"],
            records=[("noop", "k", "replace", '{"n": 1}'), ("noop", "k", "replace", '{"n": 2}')],
        )
    assert await args(pool) == [2]


async def test_a_row_that_is_merged_brings_its_idempotency_key_along(pool: Pool) -> None:
    statement = """insert into jobs (kind, unique_key, on_duplicate, idempotency_key, args)
                   values ('noop', 'k', 'replace', $1, jsonb_build_object('n', $2::int)) returning id"""
    first = await pool.fetchval(statement, "a", 1)
    assert await pool.fetchval(statement, "b", 2) is None
    assert await pool.fetchval(statement, "a", 3) is None  # the key was there: nothing is merged
    assert await args(pool) == [2]
    keys = await pool.fetch("select key, job_id from job_keys order by key")
    assert [tuple(row) for row in keys] == [("a", first), ("b", first)]


async def test_a_merge_is_refused_what_an_insert_is_refused(pool: Pool) -> None:
    await insert(pool, "replace", 1)
    with pytest.raises(asyncpg.CheckViolationError, match="jobs_priority_1_to_4"):
        await pool.execute(
            "insert into jobs (kind, unique_key, on_duplicate, priority) values ('noop', 'k', 'replace', 9)"
        )


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ("on_duplicate => 'overwrite', unique_key => 'k'", "job_on_duplicate_known"),
        ("on_duplicate => 'replace'", "jobs_on_duplicate_has_a_unique_key"),
        ("aside => true", "jobs_engine_columns_are_not_given"),
        ("blocks_until => now()", "jobs_engine_columns_are_not_given"),
        ("gate => 'order'", "jobs_engine_columns_are_not_given"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(pool: Pool, columns: str, constraint: str) -> None:
    pairs = dict(pair.split(" => ") for pair in columns.split(", "))
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await pool.execute(f"insert into jobs (kind, {', '.join(pairs)}) values ('noop', {', '.join(pairs.values())})")
    assert refused.value.constraint_name == constraint


async def test_refuse_is_what_holds_without_a_word(pool: Pool) -> None:
    await insert(pool, "refuse")
    assert await pool.fetchval("select on_duplicate from jobs") is None
    with pytest.raises(asyncpg.UniqueViolationError, match="jobs_unique_key"):
        await insert(pool, "refuse")


async def test_a_row_of_the_future_waits_at_a_gate_of_its_own(pool: Pool, insert: Insert) -> None:
    future = await pool.fetchval("select now() + interval '1 minute'")
    await insert(1)
    await insert(1, run_at=future)
    assert [row[0] for row in await pool.fetch("select gate from jobs order by id")] == ["", "later"]


class TestOrganisations:
    """A key is the kind's, over all organisations: what belongs to another is neither changed nor read."""

    @pytest.fixture
    async def producer(self, pool: Pool, database: str) -> AsyncIterator[asyncpg.Connection]:
        """May insert rows of organisation a, by a row security policy, and nothing else."""
        role = f"tenant_{await pool.fetchval('select oid from pg_database where datname = current_database()')}"
        await pool.execute(
            f"""create role {role}; grant insert on jobs to {role}; alter table jobs enable row level security;
                create policy own on jobs as restrictive for insert to {role} with check (org_id = 'a')"""
        )
        conn = await asyncpg.connect(database)
        await conn.execute(f"set role {role}")
        yield conn
        await conn.close()
        await pool.execute(f"drop owned by {role}; drop role {role}")

    async def test_another_organisations_row_is_not_merged_into(self, pool: Pool, producer: asyncpg.Connection) -> None:
        statement = (
            "insert into jobs (kind, unique_key, on_duplicate, org_id, args) values ('noop', 'k', 'replace', $1, $2)"
        )
        await pool.execute(statement, "b", '{"n": 1}')
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await producer.execute(statement, "b", '{"n": 2}')
        with pytest.raises(asyncpg.UniqueViolationError):
            await producer.execute(statement, "a", '{"n": 3}')
        assert await args(pool) == [1]

    async def test_its_own_row_is(self, pool: Pool, producer: asyncpg.Connection) -> None:
        statement = (
            "insert into jobs (kind, unique_key, on_duplicate, org_id, args) values ('noop', 'k', 'replace', 'a', $1)"
        )
        await producer.execute(statement, '{"n": 1}')
        await producer.execute(statement, '{"n": 2}')
        assert await args(pool) == [2]
