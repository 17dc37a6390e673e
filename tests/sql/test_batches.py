"""Children: the callback comes once, when all have ended, whoever ends them and however many do at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from jobs.children import Callback, New, add, begin
from jobs.model import Cancelled, Dead, Done, Retry
from tests.sql.rows import Insert, Pool, Worker, claim, die, ended, rescued, until, waits_for_lock

THEN = Callback(kind="noop_after", args={"report": 7})


async def batch(pool: Pool | asyncpg.Connection, count: int = 3, then: Callback | None = THEN, **more: Any) -> int:
    return await begin(pool, (New(kind="noop", args={"n": n}) for n in range(count)), then=then, **more)


async def callbacks(pool: Pool) -> list[dict[str, Any]]:
    """What the callbacks that were inserted are told."""
    rows = await pool.fetch("select args from jobs where kind = 'noop_after' order by id")
    return [json.loads(row[0]).get("batch") for row in rows]


async def open_batches(pool: Pool) -> int:
    count: int = await pool.fetchval("select count(*) from job_batches where ended_at is null")
    return count


async def settled(keeping: UpkeepStore) -> int:
    """As the keeper does it."""
    _last, over = await keeping.settle_batches(0, 1000)
    return over


class TestEnd:
    """The callback is inserted with the last end, and told how all of them ended."""

    async def test_after_the_last_child(self, pool: Pool, store: Store, worker: Worker) -> None:
        batch_id = await batch(pool)
        children = await claim(store, await worker())
        assert [job.batch_id for job in children] == [batch_id] * 3
        await store.write([ended(children[0], Done()), ended(children[1], Done())])
        assert await callbacks(pool) == []
        await store.write([ended(children[2], Done("x"))])
        assert await callbacks(pool) == [
            {"id": batch_id, "total": 3, "done": 3, "failed": 0, "cancelled": 0, "failed_ids": []}
        ]
        row = await pool.fetchrow("select * from job_batches")
        assert row is not None
        assert row["callback_id"] == await pool.fetchval("select id from jobs")
        assert row["ended_at"] is not None

    async def test_the_callback_is_the_row_that_was_asked_for(self, pool: Pool, store: Store, worker: Worker) -> None:
        then = Callback(kind="noop_after", args={"report": 7}, queue="reports", priority=1)
        await begin(pool, [], then=then, org_id="acme", correlation_id="c")
        row = await pool.fetchrow("select kind, args, queue, priority, org_id, correlation_id, batch_id from jobs")
        assert row is not None
        kind, args, *others = tuple(row)
        assert (kind, json.loads(args)["report"]) == ("noop_after", 7)
        assert tuple(others) == ("reports", 1, "acme", "c", None)

    async def test_however_they_end(self, pool: Pool, store: Store, worker: Worker) -> None:
        batch_id = await batch(pool, 4)
        jobs = await claim(store, await worker())
        await store.write([ended(job, outcome) for job, outcome in zip(jobs, (Done(), Dead("x"), Cancelled("y"), Retry("z")), strict=True)])  # fmt: skip # noqa: E501
        assert await callbacks(pool) == [], "one is to be tried again"
        (again,) = await claim(store, await worker(), gate="retry")
        await store.write([ended(again, Done())])
        assert await callbacks(pool) == [
            {"id": batch_id, "total": 4, "done": 2, "failed": 1, "cancelled": 1, "failed_ids": [jobs[1].id]}
        ]

    async def test_an_empty_batch_calls_back_at_once(self, pool: Pool) -> None:
        await batch(pool, 0)
        assert [told["total"] for told in await callbacks(pool)] == [0]

    async def test_in_plain_sql(self, pool: Pool, store: Store, worker: Worker) -> None:
        await pool.execute(
            """with batch as (
                   insert into job_batches (callback_kind, callback_args) values ('noop_after', '{"report": 7}')
                   returning id
               )
               insert into jobs (kind, batch_id) select 'noop', id from batch, generate_series(1, 3)"""
        )
        await store.write([ended(job, Done()) for job in await claim(store, await worker())])
        assert [told["done"] for told in await callbacks(pool)] == [3]

    async def test_a_callback_that_is_to_be_skipped_after_failures(
        self, pool: Pool, store: Store, worker: Worker
    ) -> None:
        for outcomes in ((Done(), Dead("x")), (Done(), Done())):
            await batch(pool, 2, on_failure="skip")
            jobs = await claim(store, await worker())
            await store.write([ended(job, said) for job, said in zip(jobs, outcomes, strict=True)])
        assert [told["failed"] for told in await callbacks(pool)] == [0]
        assert await open_batches(pool) == 0

    async def test_without_a_callback_it_just_ends(self, pool: Pool, store: Store, worker: Worker) -> None:
        await batch(pool, 1, None)
        await store.write([ended(job, Done()) for job in await claim(store, await worker())])
        assert await open_batches(pool) == 0
        assert await pool.fetchval("select count(*) from jobs") == 0

    async def test_a_result_that_is_written_twice_counts_once(self, pool: Pool, store: Store, worker: Worker) -> None:
        await batch(pool, 2)
        jobs = await claim(store, await worker())
        for _ in range(2):
            await store.write([ended(jobs[0], Done())], again=True)
        assert await pool.fetchval("select done from job_batches") == 1

    async def test_a_callback_that_cannot_be_inserted_keeps_no_end_from_being_written(
        self, pool: Pool, store: Store, worker: Worker
    ) -> None:
        await batch(pool, 1)
        await pool.execute("alter table jobs add constraint ours check (kind <> 'noop_after')")
        (job,) = await claim(store, await worker())
        assert await store.write([ended(job, Done())]) == {job.id}
        trouble = await pool.fetchval("select trouble from job_batches where ended_at is not null")
        assert "ours" in trouble


class TestOtherEnds:
    """Children that no worker ends count as well."""

    async def test_buried_by_a_rescue(self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker) -> None:
        await batch(pool, 2)
        lost = await worker()
        await claim(store, lost)
        await die(pool, lost)
        assert await rescued(keeping, lost, crash_limit=1) == (0, 2)
        assert [told["failed"] for told in await callbacks(pool)] == [2]

    async def test_expired(self, pool: Pool, keeping: UpkeepStore) -> None:
        await batch(pool, 2)
        await pool.execute("update jobs set expires_at = now() - interval '1 s'")
        await keeping.expire(100)
        assert [told["failed"] for told in await callbacks(pool)] == [2]

    async def test_deleted_by_hand(self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker) -> None:
        """It is no child any more; the keeper sees that nobody is left."""
        await batch(pool, 2)
        (job, *_) = await claim(store, await worker())
        await store.write([ended(job, Done())])
        await pool.execute("delete from jobs where id <> $1", job.id)
        assert await settled(keeping) == 1
        assert [(told["total"], told["done"]) for told in await callbacks(pool)] == [(1, 1)]
        assert await settled(keeping) == 0


class TestJoining:
    """Children may come as long as the batch is open."""

    async def test_a_child_adds_children(self, pool: Pool, store: Store, worker: Worker) -> None:
        batch_id = await batch(pool, 1)
        (first,) = await claim(store, await worker())
        await add(pool, batch_id, [New(kind="noop")] * 2)
        await store.write([ended(first, Done())])
        assert await callbacks(pool) == []
        await store.write([ended(job, Done()) for job in await claim(store, await worker())])
        assert [told["total"] for told in await callbacks(pool)] == [3]

    async def test_nobody_joins_a_batch_that_is_over_or_not_there(self, pool: Pool) -> None:
        over = await batch(pool, 0)
        for batch_id in (over, 404):
            with pytest.raises(asyncpg.ForeignKeyViolationError, match=f"there is no open batch {batch_id}"):
                await add(pool, batch_id, [New(kind="noop")])

    async def test_an_end_does_not_wait_for_who_is_joining_and_the_batch_does(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker
    ) -> None:
        batch_id = await batch(pool, 1)
        (first,) = await claim(store, await worker())
        async with pool.acquire() as conn, conn.transaction():
            await add(conn, batch_id, [New(kind="noop")])  # type: ignore[arg-type]  # a pool's connection is one
            await asyncio.wait_for(store.write([ended(first, Done())]), 60)
            assert await settled(keeping) == 0
        assert await callbacks(pool) == []
        await store.write([ended(job, Done()) for job in await claim(store, await worker())])
        assert [told["total"] for told in await callbacks(pool)] == [2]

    async def test_who_was_joining_and_gave_up_leaves_no_batch_open(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker
    ) -> None:
        batch_id = await batch(pool, 1)
        (first,) = await claim(store, await worker())
        async with pool.acquire() as conn:
            joining = conn.transaction()
            await joining.start()
            await add(conn, batch_id, [New(kind="noop")])  # type: ignore[arg-type]  # a pool's connection is one
            await store.write([ended(first, Done())])
            await joining.rollback()
        assert await callbacks(pool) == []
        assert await settled(keeping) == 1
        assert len(await callbacks(pool)) == 1

    async def test_the_same_key_begins_one_batch_for_each_organisation(self, pool: Pool) -> None:
        first = await batch(pool, 2, key="nightly")
        assert await batch(pool, 2, key="nightly") == first
        assert await batch(pool, 2, key="nightly", org_id="acme") != first
        assert await pool.fetchval("select count(*) from jobs") == 4

    async def test_children_may_come_by_copy(self, pool: Pool, store: Store) -> None:
        async with pool.acquire() as conn, conn.transaction():
            batch_id = await batch(conn, 0)  # type: ignore[arg-type]  # a pool's connection is one
            await conn.copy_records_to_table(
                "job_intake", records=[("noop", batch_id)] * 3, columns=["kind", "batch_id"]
            )
        assert await pool.fetchval("select count(*) from jobs where batch_id = $1", batch_id) == 3


class TestNested:
    """A batch inside a batch."""

    async def test_the_outer_one_waits_for_the_inner_one_and_its_callback(
        self, pool: Pool, store: Store, worker: Worker
    ) -> None:
        outer = await batch(pool, 1, Callback(kind="noop_after", args={"of": "outer"}))
        (child,) = await claim(store, await worker())
        await batch(pool, 1, Callback(kind="noop"), parent_id=outer)
        await store.write([ended(child, Done())])
        assert await open_batches(pool) == 2
        for _ in ("the inner child", "its callback"):
            assert await callbacks(pool) == []
            (job,) = await claim(store, await worker())
            await store.write([ended(job, Done())])
        assert [told["total"] for told in await callbacks(pool)] == [2]

    async def test_one_without_a_callback_ends_its_parent(self, pool: Pool, store: Store, worker: Worker) -> None:
        outer = await batch(pool, 1)
        (child,) = await claim(store, await worker())
        await batch(pool, 0, None, parent_id=outer)
        await batch(pool, 1, None, parent_id=outer)
        await store.write([ended(child, Done())])
        (inner,) = await claim(store, await worker())
        await store.write([ended(inner, Done())])
        assert [told["total"] for told in await callbacks(pool)] == [1]


class TestAtOnce:
    """Many ends of one batch, and of many batches, at the same time."""

    async def test_the_last_two_children_end_at_the_same_moment(self, pool: Pool, store: Store, worker: Worker) -> None:
        """The second end waits for the first one's commit, and sees then that it is the last."""
        await batch(pool, 2)
        one, other = await claim(store, await worker())
        async with pool.acquire() as conn:
            first = conn.transaction()
            await first.start()
            assert await store.write_in(conn, ended(one, Done()), [])
            second = asyncio.create_task(store.write([ended(other, Done())]))
            await waits_for_lock(pool, "job_batches_end")
            await first.commit()
            await second
        assert [told["done"] for told in await callbacks(pool)] == [2]

    async def test_ends_of_the_same_batches_in_opposite_orders_do_not_deadlock(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        """Four writers, each ending children of all twenty batches, nested ones among them, in an order of its own."""
        outer = await batch(pool, 1, Callback(kind="noop_after"))
        for n in range(20):
            await batch(pool, 40, None, parent_id=outer if n % 2 else None)
        jobs = await claim(store, await worker())
        before = await pool.fetchval("select deadlocks from pg_stat_database where datname = current_database()")

        async def end(part: int) -> None:
            mine = jobs[part::4]
            ordered = mine if part % 2 else mine[::-1]
            for start in range(0, len(ordered), 25):
                await store.write([ended(job, Done()) for job in ordered[start : start + 25]])

        async with asyncio.timeout(180):
            await asyncio.gather(*(end(part) for part in range(4)))
        await pool.execute("select pg_stat_clear_snapshot()")
        after = await pool.fetchval("select deadlocks from pg_stat_database where datname = current_database()")
        assert after == before
        assert await open_batches(pool) == 0
        assert len(await callbacks(pool)) == 1
        assert await pool.fetchval("select sum(done) from job_batches") == 801

    async def test_the_end_of_a_large_batch_stays_cheap_while_vacuum_is_held_back(
        self, pool: Pool, store: Store, worker: Worker
    ) -> None:
        """Nobody walks the dead entries of all children that ended before, at each end."""
        await batch(pool, 3000)
        jobs = await claim(store, await worker(), 3000)
        async with pool.acquire() as conn:
            pinned = conn.transaction(isolation="repeatable_read")
            await pinned.start()
            await conn.fetchval("select 1 from jobs limit 1")
            for start in range(0, 2900, 100):
                await store.write([ended(job, Done()) for job in jobs[start : start + 100]])
            async with pool.acquire() as other, other.transaction():
                lines = await other.fetch(
                    "explain (analyze, buffers, format text) select job_batches_end($1, $2, '{done}')".replace(
                        "$1", f"'{{{jobs[0].batch_id}}}'"
                    ).replace("$2", f"'{{{jobs[2950].id}}}'")
                )
            await pinned.rollback()
        text = "\n".join(line[0] for line in lines)
        hits = int(text.partition("shared hit=")[2].split()[0].rstrip("\n"))
        assert hits < 200, text


async def test_batches_that_are_over_are_forgotten_in_time(pool: Pool, keeping: UpkeepStore) -> None:
    await batch(pool, 0)
    await batch(pool, 1)
    await pool.execute("update job_batches set ended_at = ended_at - interval '31 days'")
    assert await keeping.forget_batches(30 * 86_400, 100) == 1
    assert await open_batches(pool) == 1


async def test_nothing_is_asked_of_batches_where_there_are_no_children(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    """The end of other rows is one statement, which knows nothing of batches."""
    await insert(3)
    jobs = await claim(store, await worker())
    await pool.execute("drop function job_batches_end cascade")
    assert await store.write([ended(job, Done()) for job in jobs]) == {job.id for job in jobs}
    assert await until(lambda: pool.fetchval("select count(*) = 0 from jobs"), "they are gone")
