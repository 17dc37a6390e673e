"""Rows of the dead: found, returned, and buried when they are the cause."""

from __future__ import annotations

import asyncio

import pytest

import sql
from daemon.settle import hand_back
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore
from jobs.model import Done
from tests.sql.rows import Insert, Pool, Worker, claim, claims_of, die, ended, rescued

HEARTBEAT = sql.load("worker.sql")["heartbeat"]


async def test_a_lost_workers_rows_return_with_their_attempt_charged(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    (row_id,) = await insert()
    lost = await worker()
    (job,) = await claim(store, lost)
    (before,) = await pool.fetch("select started_at from jobs")
    assert (await keeping.found(10, 10)).lost == []
    await die(pool, lost)
    assert (await keeping.found(10, 10)).lost == [lost]
    assert await rescued(keeping, lost) == (1, 0)
    (row,) = await pool.fetch("select * from jobs")
    assert (row["state"], row["attempt"], row["crashes"], row["fence"], row["worker_id"]) == ("ready", 1, 1, 2, None)
    (attempt,) = await pool.fetch("select * from job_attempts")
    assert (attempt["job_id"], attempt["attempt"], attempt["outcome"]) == (row_id, 1, "crashed")
    assert (attempt["worker_id"], attempt["started_at"]) == (lost, before["started_at"])
    (job,) = await claim(store, await worker())
    assert (job.attempt, job.crashes, job.fence) == (2, 1, 3)


@pytest.mark.req("OR-09")
async def test_the_third_crash_buries_a_row_and_only_that_row(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    (poison,) = await insert(priority=1, correlation_id="c")
    for crash in range(3):
        (neighbour,) = await insert()
        lost = await worker()
        jobs = await claim(store, lost)
        assert {job.id for job in jobs} == {poison, neighbour}
        await store.write([ended(job, Done()) for job in jobs if job.id == neighbour])
        await die(pool, lost)
        assert await rescued(keeping, lost) == ((1, 0) if crash < 2 else (0, 1))
    (row,) = await pool.fetch("select *, last_error ->> 'code' as code from job_history where id = $1", poison)
    assert (row["state"], row["reason"], row["code"], row["crashes"], row["attempt"]) == (
        "dead",
        "crashed",
        "crashed",
        3,
        3,
    )
    assert row["correlation_id"] == "c"
    assert await pool.fetchval("select count(*) from job_attempts where outcome = 'crashed'") == 3
    assert await pool.fetchval("select count(*) from jobs") == 0


async def test_rows_of_a_worker_that_nobody_knows_are_found(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    """Its row was forgotten while its last claim was being committed."""
    await insert(2)
    live, unknown = await worker(), await worker()
    await claim(store, live, 1)
    await claim(store, unknown, 1)
    await pool.execute("delete from job_workers where id = $1", unknown)
    assert (await keeping.found(10, 10)).lost == [unknown]
    assert await rescued(keeping, unknown) == (1, 0)
    assert (await keeping.found(10, 10)).lost == []


async def test_five_thousand_rows_are_rescued_in_batches_while_a_live_worker_goes_on(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    await insert(5000)
    lost, live = await worker(), await worker()
    while await claim(store, lost, 1000):
        pass
    mine = await insert(500)
    await die(pool, lost)

    async def live_on() -> int:
        done = 0
        while done < len(mine):
            jobs = [job for job in await claim(store, live, 50) if job.id in mine_set]
            done += len(await store.write([ended(job, Done()) for job in jobs]))
        return done

    mine_set = set(mine)
    await pool.execute("update jobs set priority = 1 where id = any ($1)", mine)
    (returned, finished) = await asyncio.gather(rescued(keeping, lost, 1), live_on())
    assert (returned, finished) == ((5000, 0), 500)
    assert await pool.fetchval("select count(*) from jobs where worker_id = $1", lost) == 0


async def test_two_rescuers_share_the_work_and_charge_each_row_once(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    await insert(400)
    lost = await worker()
    for _ in range(20):
        await claim(store, lost, 20)
    await die(pool, lost)
    results = await asyncio.gather(*(rescued(keeping, lost, 2) for _ in range(3)))
    assert sum(back for back, _dead in results) == 400
    assert await pool.fetchval("select count(*) from jobs where crashes = 1 and fence = 2") == 400
    assert await pool.fetchval("select count(*) from job_attempts") == 400


async def test_a_lease_that_ran_out_is_never_had_again(pool: Pool, worker: Worker) -> None:
    worker_id = await worker()
    assert await pool.fetchval(HEARTBEAT, worker_id, 30.0, True, ["other"], '{"q": 2}') is not None
    (row,) = await pool.fetch("select draining, kinds, lease_until - heartbeat_at as lease from job_workers")
    assert (row["draining"], row["kinds"], row["lease"].total_seconds()) == (True, ["other"], 30.0)
    await die(pool, worker_id)
    assert await pool.fetchval(HEARTBEAT, worker_id, 30.0, False, [], "{}") is None


async def test_a_lost_worker_is_forgotten_once_it_holds_nothing(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    await insert()
    lost, live = await worker(), await worker()
    (job,) = await claim(store, lost)
    for worker_id in (lost, live):
        await pool.execute("insert into job_limit_holds values ('l', '', $1, 1)", worker_id)
    await keeping.forget(lost)  # it lives
    await die(pool, lost)
    await keeping.forget(lost)  # it holds a row
    assert await pool.fetchval("select count(*) from job_workers") == 2
    await store.write([hand_back(job)], claims_of([job]))
    await keeping.forget(lost)
    assert [row[0] for row in await pool.fetch("select id from job_workers")] == [live]
    assert [row[0] for row in await pool.fetch("select worker_id from job_limit_holds")] == [live]


async def test_a_worker_that_leaves_takes_its_places_with_it(pool: Pool, workers: WorkerStore, worker: Worker) -> None:
    leaving, staying = await worker(), await worker()
    for worker_id in (leaving, staying):
        await pool.execute("insert into job_limit_holds values ('l', '', $1, 1)", worker_id)
    await workers.leave(leaving)
    assert [row[0] for row in await pool.fetch("select id from job_workers")] == [staying]
    assert [row[0] for row in await pool.fetch("select worker_id from job_limit_holds")] == [staying]


async def test_what_was_not_started_in_time_is_buried_as_expired(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    past = await pool.fetchval("select now() - interval '1 second'")
    await insert(3, expires_at=past)
    await insert(expires_at=await pool.fetchval("select now() + interval '1 hour'"))
    await insert()
    (running,) = await claim(store, await worker(), 1)  # its own end decides
    assert await keeping.expire(1) == ["default"]
    assert await keeping.expire(10) == ["default"]
    assert await keeping.expire(10) == []
    rows = await pool.fetch("select state, reason from job_history")
    assert [tuple(row) for row in rows] == [("dead", "expired")] * 2
    assert running.expires_at is not None


async def test_keys_and_audit_are_forgotten_by_age_and_in_batches(pool: Pool, keeping: UpkeepStore) -> None:
    await pool.execute(
        """insert into job_keys (kind, key, job_id, created_at)
           select 'noop', n::text, n, now() - n * interval '1 day' from generate_series(1, 10) as n"""
    )
    await pool.execute(
        """insert into job_audit (at, actor, action, subject)
           select now() - n * interval '1 day', 'a', 'b', 'c' from generate_series(1, 10) as n"""
    )
    for forget, table in ((keeping.forget_keys, "job_keys"), (keeping.forget_audit, "job_audit")):
        assert [await forget(6.5 * 86400, 3) for _ in range(3)] == [3, 1, 0]
        assert await pool.fetchval(f"select count(*) from {table}") == 6
