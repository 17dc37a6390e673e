"""What each worker holds: a row for each claim, which goes with the last of its results and with nothing else."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

import sql
from daemon.settle import hand_back
from daemon.store import Ask, Store
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore
from jobs.model import Done, Job, Retry
from tests.sql.rows import KINDS, Insert, Pool, Worker, claim, claim_args, claims_of, die, ended, rescued

CLAIM = sql.load("queue.sql")["claim"]
WORKER = sql.load("worker.sql")


async def held(pool: Pool, worker_id: int) -> list[list[int]]:
    """The rows of each claim of a worker, oldest claim first."""
    found = await pool.fetch("select ids from job_claims where worker_id = $1 order by id", worker_id)
    return [sorted(row["ids"]) for row in found]


async def long_ago(pool: Pool) -> None:
    """What is younger than five seconds may yet be on its way to the daemon."""
    await pool.execute("update job_claims set claimed_at = claimed_at - interval '6 seconds'")


class TestReceipt:
    async def test_a_claim_says_in_one_row_what_it_took_from_all_places(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        ids = [*await insert(3), *await insert(2, queue="b"), *await insert(1, org_id="7")]
        await insert(2, kind="unserved")
        worker_id = await worker()
        asks = [Ask("default", "", 100, 2, "7"), Ask("b", "", 10), Ask("default", "", 100)]
        rows = await store.claim(asks, worker_id, KINDS)
        jobs = [job for job in rows if job.worker_id is not None]
        (names,) = await held(pool, worker_id)
        assert sorted(set(names)) == sorted(ids)
        assert claims_of(jobs) == [await pool.fetchval("select id from job_claims")]
        assert sorted(job.id for job in jobs) == sorted(ids)

    async def test_a_claim_that_takes_nothing_leaves_none(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(2, kind="unserved")
        worker_id = await worker()
        for _ in range(2):  # the first moves the rows to their gate, the second finds nothing
            assert await claim(store, worker_id) == []
        assert await held(pool, worker_id) == []

    @pytest.mark.parametrize("back", [False, True])
    async def test_it_goes_in_the_commit_that_writes_the_last_result(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert, back: bool
    ) -> None:
        await insert(3)
        worker_id = await worker()
        jobs = await claim(store, worker_id)
        await store.write([ended(job, Done()) for job in jobs[:2]])
        assert len(await held(pool, worker_id)) == 1
        last = hand_back(jobs[2]) if back else ended(jobs[2], Done())
        await store.write([last], claims_of(jobs))
        assert await held(pool, worker_id) == []

    async def test_it_goes_once_for_a_batch_of_both_sorts(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(2)
        worker_id = await worker()
        done, again = await claim(store, worker_id)
        await store.write([ended(done, Done()), ended(again, Retry("r"))], claims_of([done, again]))
        assert await held(pool, worker_id) == []

    async def test_it_stays_when_the_results_cannot_be_written(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert()
        worker_id = await worker()
        (job,) = await claim(store, worker_id)
        await pool.execute("alter table job_history add check (queue <> 'default')")
        with pytest.raises(asyncpg.CheckViolationError):
            await store.write([ended(job, Done())], claims_of([job]))
        assert await held(pool, worker_id) == [[job.id]]

    async def test_a_claim_that_is_undone_leaves_none(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        """As when Postgres dies before its commit was on disk: then its rows are as ready as before."""
        await insert(2)
        worker_id = await worker()
        async with pool.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            assert len(await conn.fetch(CLAIM, *claim_args(worker_id))) == 2
            await transaction.rollback()
        assert await held(pool, worker_id) == []
        assert len(await claim(store, worker_id)) == 2


class TestRescue:
    async def test_one_that_was_ended_half_way_goes_on_where_it_stopped(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        """Its rows went back, and the daemon that did it died before it dropped the claims."""
        await insert(6)
        lost = await worker()
        for _ in range(3):
            await claim(store, lost, 2)
        await die(pool, lost)
        assert await keeping.rescue(lost, 3, 2) == (4, [], 3)
        assert (await keeping.found(10, 10)).lost == [lost]
        assert await rescued(keeping, lost, 2) == (2, 0)
        assert await held(pool, lost) == []
        await keeping.forget(lost)
        assert (await keeping.found(10, 10)).lost == []
        assert await pool.fetchval("select count(*) from jobs where crashes = 1 and fence = 2") == 6

    async def test_a_claim_is_not_dropped_while_a_row_of_it_cannot_be_had(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        """Somebody holds a lock on it: an operator's transaction, say."""
        ids = await insert(3)
        lost = await worker()
        await claim(store, lost)
        await die(pool, lost)
        async with pool.acquire() as operator, operator.transaction():
            await operator.execute("select from jobs where id = $1 for update", ids[1])
            assert await rescued(keeping, lost) == (2, 0)
            assert await held(pool, lost) == [ids]
            await keeping.forget(lost)
            assert (await keeping.found(10, 10)).lost == [lost]
        assert await rescued(keeping, lost) == (1, 0)
        assert await held(pool, lost) == []

    async def test_two_at_once_take_different_claims(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        """The second neither waits for the first nor drops what that has in its hands."""
        await insert(4)
        lost = await worker()
        for _ in range(2):
            await claim(store, lost, 2)
        await die(pool, lost)
        async with pool.acquire() as first, first.transaction():
            (row,) = await first.fetch(WORKER["rescue"], lost, 3, 1)
            assert (row["back"], row["dead"]) == (2, [])
            async with asyncio.timeout(60):
                assert await keeping.rescue(lost, 3, 10) == (2, [], 2)
                assert await keeping.drop_lost_claims(lost, 10) == 1
                assert await keeping.drop_lost_claims(lost, 10) == 0
                await keeping.forget(lost)
            assert len(await held(pool, lost)) == 1
        assert await rescued(keeping, lost) == (0, 0)
        assert await held(pool, lost) == []
        assert await pool.fetchval("select count(*) from job_attempts") == 4

    async def test_rows_that_ended_before_are_left_alone(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        await insert(3)
        lost, other = await worker(), await worker()
        done, back, _running = await claim(store, lost)
        await store.write([ended(done, Done()), hand_back(back)])
        (again,) = await claim(store, other)
        await die(pool, lost)
        assert await rescued(keeping, lost) == (1, 0)
        assert await store.write([ended(again, Done())], claims_of([again])) == {back.id}

    async def test_claims_that_outlived_their_worker_and_their_rows_are_dropped(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        await insert()
        gone = await worker()
        (job,) = await claim(store, gone)
        await store.write([ended(job, Done())])  # the claim was not said to be over
        await pool.execute("delete from job_workers")
        assert (await keeping.found(10, 10)).lost == [gone]
        assert await rescued(keeping, gone) == (0, 0)
        assert await held(pool, gone) == []
        assert (await keeping.found(10, 10)).lost == []

    async def test_a_live_workers_claims_are_nobody_elses_business(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        await insert(2)
        live = await worker()
        await claim(store, live)
        await pool.execute("insert into job_workers (name, version, kinds, queues, lease_until) "
                           "values ('w', '0', '{}', '{}', now() - interval '1 s')")  # fmt: skip
        (other,) = (await keeping.found(10, 10)).lost
        assert other != live
        assert await rescued(keeping, other) == (0, 0)
        await keeping.forget(live)
        assert len(await held(pool, live)) == 1
        assert await pool.fetchval("select count(*) from job_workers where id = $1", live) == 1


class TestLeaving:
    async def test_what_a_worker_still_holds_goes_back_untouched_with_its_claims(
        self, pool: Pool, store: Store, workers: WorkerStore, worker: Worker, insert: Insert
    ) -> None:
        await insert(3)
        leaving, staying = await worker(), await worker()
        (job,) = await claim(store, leaving, 1)
        await claim(store, leaving, 1)
        await claim(store, staying, 1)
        await store.write([ended(job, Done())])
        await workers.leave(leaving)
        assert await held(pool, leaving) == []
        assert len(await held(pool, staying)) == 1
        rows = await pool.fetch("select * from jobs where state = 'ready'")
        assert [(row["attempt"], row["fence"], row["worker_id"], row["crashes"]) for row in rows] == [(0, 2, None, 0)]
        assert [row["id"] for row in await pool.fetch("select id from job_workers")] == [staying]

    async def test_one_with_more_claims_than_it_may_hand_back_stays_to_be_rescued(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        await insert(3)
        leaving = await worker()
        for _ in range(3):
            await claim(store, leaving, 1)
        await pool.execute(WORKER["leave"], leaving, 2)
        assert len(await held(pool, leaving)) == 1
        await die(pool, leaving)
        assert (await keeping.found(10, 10)).lost == [leaving]
        assert await rescued(keeping, leaving) == (1, 0)


class TestStrays:
    """A claim whose answer was lost: its worker lives, and finds it."""

    async def test_rows_of_claims_that_the_worker_knows_nothing_of_are_told(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(5)
        mine, other = await worker(), await worker()
        known, lost = await claim(store, mine, 2), await claim(store, mine, 2)
        await claim(store, other, 1)
        assert await store.held(mine, claims_of(known)) == ([], False)  # it may be on its way
        await long_ago(pool)
        found, some_empty = await store.held(mine, claims_of(known))
        assert not some_empty
        assert sorted((job.id, job.fence, job.claim_id) for job in found) == [
            (job.id, job.fence, job.claim_id) for job in lost
        ]
        assert await store.write([hand_back(job) for job in found], claims_of(found)) == {job.id for job in lost}
        assert await store.held(mine, claims_of(known)) == ([], False)
        assert len(await held(pool, mine)) == 1

    async def test_claims_that_hold_nothing_are_dropped_unless_they_are_young_or_known(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(8)
        mine, other = await worker(), await worker()
        over, known, running, others = [await claim(store, w, 2) for w in (mine, mine, mine, other)]
        await store.write([ended(job, Done()) for job in (*over, *known, *others)])
        assert await store.drop_claims(mine, claims_of(known)) == 0
        assert not (await store.held(mine, claims_of(known)))[1]
        await long_ago(pool)
        assert (await store.held(mine, claims_of(known)))[1]
        assert await store.drop_claims(mine, claims_of(known)) == 1
        assert await held(pool, mine) == [_ids(known), _ids(running)]
        assert await store.drop_claims(mine, []) == 1
        assert await held(pool, mine) == [_ids(running)]
        assert len(await held(pool, other)) == 1


def _ids(jobs: list[Job]) -> list[int]:
    return sorted(job.id for job in jobs)
