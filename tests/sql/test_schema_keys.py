"""Idempotency keys, unique keys, and the view over live and finished rows."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from jobs.model import Done
from tests.sql.rows import Insert, Pool, Worker, claim, ended, waits_for_lock

INSERT = "insert into jobs (kind, idempotency_key) values ('noop', $1) returning id"
BOTH = """insert into jobs (kind, unique_key, idempotency_key) values ('noop', $1, $2)
          on conflict do nothing returning id"""


@pytest.mark.req("OR-08")
async def test_a_hundred_clients_with_one_key_make_one_row_and_no_error(pool: Pool, database: str) -> None:
    """A hundred connections, all of them ready before the first inserts."""
    async with asyncpg.create_pool(database, min_size=100, max_size=100) as clients:
        ids = await asyncio.gather(*(clients.fetchval(INSERT, "order-7") for _ in range(100)))
    (made,) = [found for found in ids if found is not None]
    assert [row[0] for row in await pool.fetch("select id from jobs")] == [made]
    assert await pool.fetchval("select job_id from job_keys where kind = 'noop' and key = 'order-7'") == made


async def test_a_key_counts_in_copy_and_in_rows_selected(pool: Pool) -> None:
    async with pool.acquire() as conn:
        await conn.copy_records_to_table(
            "jobs", columns=["kind", "idempotency_key"], records=[("noop", "k"), ("noop", "k"), ("noop", "l")]
        )
    made = await pool.fetch(
        """insert into jobs (kind, idempotency_key)
           select 'noop', key from unnest('{k,l,m,m}'::text[]) as key returning idempotency_key"""
    )
    assert [row[0] for row in made] == ["m"]
    assert await pool.fetchval("select count(*) from jobs") == 3


async def test_a_key_counts_again_when_its_time_is_over(pool: Pool, keeping: UpkeepStore) -> None:
    await pool.execute(INSERT, "k")
    assert await keeping.forget_keys(3600, 100) == 0
    await pool.execute("update job_keys set created_at = now() - interval '2 hours'")
    assert await keeping.forget_keys(3600, 100) == 1
    assert await pool.fetchval(INSERT, "k") is not None


async def test_a_key_counts_for_its_kind_only_and_within_one_statement(pool: Pool) -> None:
    made = await pool.fetch(
        "insert into jobs (kind, idempotency_key) values ('noop', 'k'), ('noop', 'k'), ('other', 'k') returning kind"
    )
    assert [row[0] for row in made] == ["noop", "other"]


@pytest.mark.req("OR-08")
async def test_a_key_outlives_its_row(pool: Pool, store: Store, worker: Worker) -> None:
    await pool.execute(INSERT, "k")
    await store.write([ended(job, Done()) for job in await claim(store, await worker())])
    assert await pool.fetchval(INSERT, "k") is None
    assert await pool.fetchval("select count(*) from jobs") == 0


async def test_a_key_is_free_again_when_its_first_insert_is_rolled_back(pool: Pool) -> None:
    async with pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        await first.execute(INSERT, "k")
        second = asyncio.get_running_loop().create_task(pool.fetchval(INSERT, "k"))
        await waits_for_lock(pool, "idempotency_key")  # it cannot know yet whether it is the second
        await transaction.rollback()
    assert await second is not None


async def test_a_unique_key_keeps_a_second_unfinished_row_out(pool: Pool, store: Store, worker: Worker) -> None:
    insert = "insert into jobs (kind, unique_key) values ('noop', 'sync') {} returning id"
    assert await pool.fetchval(insert.format("")) is not None
    with pytest.raises(asyncpg.UniqueViolationError, match="jobs_unique_key"):
        await pool.fetchval(insert.format(""))
    assert await pool.fetchval(insert.format("on conflict do nothing")) is None
    (job,) = await claim(store, await worker())
    assert await pool.fetchval(insert.format("on conflict do nothing")) is None  # running is unfinished
    await store.write([ended(job, Done())])
    assert await pool.fetchval(insert.format("on conflict do nothing")) is not None


async def test_a_row_kept_out_by_its_unique_key_leaves_no_idempotency_key(
    pool: Pool, store: Store, worker: Worker
) -> None:
    assert await pool.fetchval(BOTH, "sync", "first") is not None
    assert await pool.fetchval(BOTH, "sync", "second") is None
    await store.write([ended(job, Done()) for job in await claim(store, await worker())])
    assert await pool.fetchval(BOTH, "sync", "second") is not None  # it never was in
    assert await pool.fetchval(BOTH, "sync", "first") is None  # it was


async def test_a_transaction_may_try_a_key_again_after_a_unique_key_kept_its_row_out(pool: Pool) -> None:
    await pool.execute(BOTH, "sync", "first")
    async with pool.acquire() as conn, conn.transaction():
        assert await conn.fetchval(BOTH, "sync", "second") is None
        assert await conn.fetchval(BOTH, "sync", "second") is None
        made = await conn.fetchval(BOTH, "another", "second")
        assert made is not None
        assert await conn.fetchval(BOTH, "a third", "second") is None  # now it counts
    assert await pool.fetchval("select job_id from job_keys where key = 'second'") == made
    assert await pool.fetchval(BOTH, "a third", "second") is None
    assert await pool.fetchval("select count(*) from job_keys_unsure") == 0


async def test_a_key_is_kept_in_a_transaction_that_wants_its_constraints_checked_at_once(pool: Pool) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("set constraints all immediate")
        assert await conn.fetchval(BOTH, "sync", "first") is not None
        assert await conn.fetchval(BOTH, "sync", "second") is None
        await conn.execute("set constraints all immediate")
        assert await conn.fetchval(BOTH, "another", "first") is None
    assert await pool.fetchval("select string_agg(key, ',') from job_keys") == "first"
    assert await pool.fetchval("select count(*) from job_keys_unsure") == 0


async def test_a_row_kept_out_by_another_clients_open_transaction_leaves_no_idempotency_key(pool: Pool) -> None:
    """Its trigger could not see the row in its way: only the unique index knows, later."""
    async with pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        await first.execute(BOTH, "sync", "first")
        second = asyncio.get_running_loop().create_task(pool.fetchval(BOTH, "sync", "second"))
        await waits_for_lock(pool, "unique_key")
        await transaction.commit()
    assert await second is None
    assert await pool.fetchval("select string_agg(key, ',') from job_keys") == "first"
    assert await pool.fetchval("delete from jobs returning unique_key") == "sync"
    assert await pool.fetchval(BOTH, "sync", "second") is not None


async def test_a_key_given_up_at_a_commit_lets_the_client_in_that_waited_for_it(pool: Pool) -> None:
    await pool.execute(BOTH, "sync", "first")
    async with pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        assert await first.fetchval(BOTH, "sync", "second") is None
        other = asyncio.get_running_loop().create_task(pool.fetchval(BOTH, "another", "second"))
        await waits_for_lock(pool, "idempotency_key")
        await transaction.commit()
    made = await other
    assert made is not None
    assert await pool.fetchval("select job_id from job_keys where key = 'second'") == made


async def test_the_mark_of_a_row_with_keys_does_not_stay_on_it(pool: Pool) -> None:
    await pool.execute(BOTH, "sync", "first")
    await pool.execute("insert into jobs (kind, unique_key, on_duplicate) values ('noop', 'other', 'replace')")
    assert await pool.fetchval("select count(*) from jobs where not aside") == 2


async def test_a_key_is_recorded_though_the_row_in_its_way_ends_meanwhile(pool: Pool) -> None:
    """The trigger saw the other row, the unique index no longer: forced by a delete between the two."""
    await pool.execute(
        """create function end_the_other() returns trigger language plpgsql as $$
           begin delete from jobs where unique_key = new.unique_key; return new; end $$"""
    )
    await pool.execute(BOTH, "sync", "first")
    await pool.execute("create trigger z before insert on jobs for each row execute function end_the_other()")
    assert await pool.fetchval(BOTH, "sync", "second") is not None
    await pool.execute("drop trigger z on jobs")
    assert await pool.fetchval(BOTH, "another", "second") is None


async def test_job_status_shows_live_and_finished_rows(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    (first,) = await insert(org_id="7")
    (job,) = await claim(store, await worker())
    await store.write([ended(job, Done({"n": 1}))])
    (second,) = await insert()
    rows = await pool.fetch("select id, state, result, finished_at from job_status order by id")
    assert [(row["id"], row["state"], row["result"]) for row in rows] == [
        (first, "done", '{"n": 1}'),
        (second, "ready", None),
    ]
    assert rows[0]["finished_at"] is not None
    await claim(store, await worker(), kinds=("other",))
    assert await pool.fetchval("select reason from job_status where id = $1", second) == "kind:noop"
