"""The claim: which rows a worker gets, in which order, and which it must not touch."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

import sql
from daemon import counts
from daemon.settle import hand_back
from daemon.store import Ask, Store
from tests.sql.rows import FROM_THE_FIRST, Insert, Pool, Worker, claim, claim_args, die, moved, waits_for_lock

CLAIM = sql.load("queue.sql")["claim"]
HOUR = timedelta(hours=1)


@pytest.mark.req("DC-01")
async def test_a_claimed_row_runs_under_its_worker(pool: Pool, store: Store, worker: Worker, insert: Insert) -> None:
    (row_id,) = await insert(org_id="7", lane="example.com", correlation_id="c", actor_id="a", project_id="p")
    worker_id = await worker()
    (job,) = await claim(store, worker_id)
    assert (job.id, job.fence, job.attempt, job.kind, job.queue, job.args_json) == (
        row_id,
        1,
        1,
        "noop",
        "default",
        "{}",
    )
    assert (job.org_id, job.lane, job.correlation_id, job.actor_id, job.project_id) == (
        "7",
        "example.com",
        "c",
        "a",
        "p",
    )
    (row,) = await pool.fetch("select *, date_part('epoch', started_at) as started from jobs")
    assert (row["state"], row["worker_id"], row["started"]) == ("running", worker_id, job.claimed_at)


@pytest.mark.req("JP-01")
@pytest.mark.req("OR-05")
async def test_each_queue_gives_as_many_rows_as_it_has_slots(store: Store, worker: Worker, insert: Insert) -> None:
    for queue in ("a", "org:7:mail", "c"):
        await insert(10, queue=queue)
    jobs = await store.claim(
        [Ask("a", "", 3), Ask("org:7:mail", "", 100), Ask("empty", "", 5)], await worker(), ["noop"]
    )
    assert sorted(job.queue for job in jobs) == ["a"] * 3 + ["org:7:mail"] * 10


@pytest.mark.req("BJ-28")
async def test_the_best_class_comes_first_then_the_oldest_run_at_then_the_lowest_id(
    pool: Pool, store: Store, worker: Worker
) -> None:
    await pool.execute(
        """insert into jobs (kind, priority, run_at)
           select 'noop', priority, now() - age * interval '1 minute'
           from (values (4, 9), (1, 1), (2, 5), (2, 7), (1, 1), (3, 99)) as row (priority, age)"""
    )
    worker_id = await worker()
    order = [await claim(store, worker_id, 1) for _ in range(6)]
    assert [jobs[0].id for jobs in order] == [2, 5, 4, 3, 6, 1]
    assert await claim(store, worker_id) == []


async def test_one_claim_takes_the_best_rows_and_gives_them_in_order(pool: Pool, store: Store, worker: Worker) -> None:
    await pool.execute(
        "insert into jobs (kind, priority) select 'noop', 1 + (n * 7) % 4 from generate_series(1, 40) as n"
    )
    jobs = await claim(store, await worker(), 15)
    assert [job.priority for job in jobs] == [1] * 10 + [2] * 5
    assert [job.id for job in jobs] == [job.id for job in sorted(jobs, key=lambda job: (job.priority, job.id))]


async def test_a_row_of_the_future_is_not_touched(pool: Pool, store: Store, worker: Worker, insert: Insert) -> None:
    await insert(5, run_at=await pool.fetchval("select now() + interval '1 second'"))
    before = await pool.fetch("select *, ctid from jobs order by id")
    assert await claim(store, await worker()) == []
    assert await pool.fetch("select *, ctid from jobs order by id") == before


async def test_the_time_of_a_claim_can_be_given(pool: Pool, worker: Worker, insert: Insert) -> None:
    now = await pool.fetchval("select now()")
    await insert(run_at=now)
    worker_id = await worker()
    just_before = now - timedelta(microseconds=1)
    assert await pool.fetch(CLAIM, *claim_args(worker_id, now=just_before)) == []
    assert len(await pool.fetch(CLAIM, *claim_args(worker_id, now=now))) == 1


@pytest.mark.req("DC-01")
async def test_many_claimers_never_share_a_row(store: Store, worker: Worker, insert: Insert) -> None:
    ids = await insert(500)
    workers = [await worker() for _ in range(8)]

    async def all_of(worker_id: int) -> list[int]:
        mine: list[int] = []
        while jobs := await claim(store, worker_id, 7):
            mine += [job.id for job in jobs]
        return mine

    claimed = [job_id for mine in await asyncio.gather(*map(all_of, workers)) for job_id in mine]
    assert sorted(claimed) == ids


async def test_a_claim_passes_by_what_another_one_holds(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    ids = await insert(4)
    worker_id = await worker()
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        held = await conn.fetch(CLAIM, *claim_args(worker_id, 2))
        rest = await claim(store, worker_id)
        assert [row["id"] for row in held] + [job.id for job in rest] == ids
        await transaction.rollback()
    assert [job.id for job in await claim(store, worker_id)] == ids[:2]


async def test_an_unserved_kind_is_set_aside_once_and_costs_no_attempt(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    ids = await insert(3, kind="later")
    worker_id = await worker()
    assert await moved(store, worker_id) == {"kind:later": ids}
    rows = await pool.fetch("select *, ctid from jobs order by id")
    assert {(row["state"], row["gate"], row["attempt"], row["worker_id"]) for row in rows} == {
        ("ready", "kind:later", 0, None)
    }
    assert await claim(store, worker_id) == []
    assert await pool.fetch("select *, ctid from jobs order by id") == rows  # later claims do not touch them
    assert [head[:2] for head in await store.look(FROM_THE_FIRST, 10)] == [("default", "kind:later")]
    jobs = await claim(store, worker_id, gate="kind:later", kinds=("later",))
    assert [(job.id, job.attempt) for job in jobs] == [(n, 1) for n in ids]


async def test_a_served_kind_runs_beside_an_unserved_one(store: Store, worker: Worker, insert: Insert) -> None:
    await insert(2, kind="later")
    served = await insert(2)
    assert [job.id for job in await claim(store, await worker(), 10)] == served


async def test_a_paused_queue_gives_nothing_and_its_rows_stay_as_they_are(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    await insert(queue="halted")
    before = await pool.fetch("select *, ctid from jobs")
    await pool.execute("insert into job_holds (gate, cause) values ('queue:halted', 'pause')")
    worker_id = await worker()
    assert await store.claim([Ask("halted", "", 10)], worker_id, ["noop"]) == []
    assert await pool.fetch("select *, ctid from jobs") == before
    await pool.execute("delete from job_holds")
    assert len(await claim(store, worker_id, queue="halted")) == 1


async def test_a_worker_without_a_lease_gets_nothing(pool: Pool, store: Store, worker: Worker, insert: Insert) -> None:
    await insert()
    worker_id = await worker()
    await die(pool, worker_id)
    assert await claim(store, worker_id) == []
    assert await claim(store, worker_id + 1) == []  # never registered
    assert await pool.fetchval("select fence from jobs") == 0


async def test_a_claim_does_not_wait_for_the_disk(pool: Pool, store: Store, worker: Worker, insert: Insert) -> None:
    """And only the claim: what follows on the same session is durable again."""
    await insert()
    worker_id = await worker()
    async with pool.acquire() as conn:
        await conn.execute("set synchronous_commit = on")
        async with conn.transaction():
            await conn.fetch(CLAIM, *claim_args(worker_id, 1))
            assert await conn.fetchval("show synchronous_commit") == "off"
        assert await conn.fetchval("show synchronous_commit") == "on"


class TestOrderingKey:
    """One row of a key at a time, in the order of their ids."""

    async def test_only_the_oldest_row_of_a_key_is_taken(self, store: Store, worker: Worker, insert: Insert) -> None:
        first = await insert(3, ordering_key="account 7")
        other = await insert(1, ordering_key="account 8")
        rows = await store.claim([Ask("default", "", 10)], await worker(), ["noop"])
        assert [job.id for job in rows if job.worker_id is not None] == [first[0], *other]
        assert {job.id: (job.gate, job.attempt) for job in rows if job.worker_id is None} == dict.fromkeys(
            first[1:], ("order", 0)
        )

    async def test_the_next_one_waits_until_the_first_is_over(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        first, second = await insert(2, ordering_key="k")
        worker_id = await worker()
        (job,) = await claim(store, worker_id)
        assert await claim(store, worker_id, gate="order") == []
        await store.write([hand_back(job, delay_s=3600.0)])
        assert await claim(store, worker_id, gate="order") == []  # a retry keeps its place at the head
        await pool.execute("update jobs set run_at = now() where id = $1", first)
        await store.ripen([("default", job.priority)], 10)
        (job,) = await claim(store, worker_id)
        assert job.id == first
        await pool.execute("delete from jobs where id = $1", first)
        assert [job.id for job in await claim(store, worker_id, gate="order")] == [second]

    async def test_an_older_row_that_commits_late_waits_for_the_younger_that_runs(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        async with pool.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            older = await conn.fetchval("insert into jobs (kind, ordering_key) values ('noop', 'k') returning id")
            (younger,) = await insert(ordering_key="k")
            worker_id = await worker()
            assert [job.id for job in await claim(store, worker_id)] == [younger]
            await transaction.commit()
        assert older < younger
        assert await moved(store, worker_id) == {"order": [older]}

    async def test_two_claims_that_see_a_key_differently_cannot_both_have_it(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        """One claimed the younger row before the older was committed, and has not committed itself."""
        worker_id = await worker()
        async with pool.acquire() as producer, pool.acquire() as claimer:
            late, early = producer.transaction(), claimer.transaction()
            await late.start()
            await producer.execute("insert into jobs (kind, ordering_key) values ('noop', 'k')")
            (younger,) = await insert(ordering_key="k")
            await early.start()
            held = await claimer.fetch(CLAIM, *claim_args(worker_id, 9))
            await late.commit()
            rival = asyncio.get_running_loop().create_task(claim(store, worker_id))
            await waits_for_lock(pool, "with relaxed")
            await early.commit()
            with pytest.raises(asyncpg.UniqueViolationError, match="jobs_ordered_running"):
                await rival
        assert [row["id"] for row in held] == [younger]
        assert await pool.fetchval("select count(*) from jobs where state = 'running'") == 1
        assert await claim(store, worker_id) == []  # made again, it sees what was committed


class TestPoison:
    """Rows that the checks would refuse, put in over the owner's head, still come through one by one."""

    @pytest.mark.req("OR-09")
    @pytest.mark.parametrize("time", ["4713-01-01 00:00+00 BC", "-infinity", "0001-01-01 00:00+00"])
    async def test_a_time_that_python_has_no_word_for_is_claimed_with_its_neighbours(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert, time: str
    ) -> None:
        await pool.execute("alter table jobs drop constraint jobs_run_at_in_1970_to_9999")
        await pool.execute(f"insert into jobs (kind, run_at) values ('noop', '{time}')")
        await insert(2)
        (head,) = await store.look(FROM_THE_FIRST, 10)
        assert head.run_at < head.now
        async with pool.acquire() as conn:
            assert (await counts.take(conn)).queues["default"].ready == (3, False)
        jobs = await claim(store, await worker())
        assert len(jobs) == 3
        assert jobs[0].run_at < 0

    @pytest.mark.parametrize("time", ["infinity", "294276-12-31 00:00+00"])
    async def test_a_time_without_end_only_never_comes(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert, time: str
    ) -> None:
        for column in ("run_at", "expires_at"):
            await pool.execute(f"alter table jobs drop constraint jobs_{column}_in_1970_to_9999")
            await pool.execute(f"insert into jobs (kind, queue, {column}) values ('noop', '{column}', '{time}')")
        due_s = {head.queue: head.run_at - head.now for head in await store.look(FROM_THE_FIRST, 10)}
        assert due_s["run_at"] > 1e11 > due_s["expires_at"]
        (job,) = await store.claim([Ask("run_at", "", 9), Ask("expires_at", "", 9)], await worker(), ["noop"])
        assert job.queue == "expires_at"
        assert job.expires_at is not None
        assert job.expires_at > 1e11

    @pytest.mark.req("OR-09")
    async def test_a_few_bytes_that_print_to_megabytes_are_cut_before_they_travel(
        self, store: Store, worker: Worker, pool: Pool
    ) -> None:
        """1e131071 is 16 bytes of jsonb and 131,072 digits of text; the table's check weighs only the former."""
        numbers = "[" + ", ".join(["1e131071"] * 40) + "]"
        await pool.execute(
            """insert into jobs (kind, args) values ('noop', ('{"a": ' || $1::text || '}')::jsonb)""", numbers
        )
        (job,) = await claim(store, await worker())
        assert len(job.args_json) == 262_145
