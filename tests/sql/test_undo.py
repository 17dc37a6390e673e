"""An operation is taken back row by row, as if it had not been ordered, where nothing has run since."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from daemon.operation import Operation
from daemon.operator_store import Moment, Order
from daemon.store import Store
from daemon.undo import Undo, find, pages
from daemon.upkeep_store import UpkeepStore
from jobs.model import Dead, Retry
from tests.sql.rows import Insert, Pool, Worker, claim, ended, moved

CANCEL = Order("ann", "jobs.cancel", "jobs")
RETRY = Order("ann", "jobs.retry", "jobs")
POSTPONE = Order("ann", "jobs.postpone", "jobs")
UNDO = Order("bob", "undo", "operation")

EVERYTHING = "select to_jsonb(jobs) - 'fence' from jobs order by id"
HISTORY = "select to_jsonb(job_history) from job_history order by id, finished_at"


@pytest.fixture
async def conn(database: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(database)
    yield conn
    await conn.close()


async def take_back(conn: asyncpg.Connection, operation: Operation, **how: Any) -> tuple[list[int], list[int]]:
    """(back, left) of the whole operation."""
    assert operation.id is not None
    undo = Undo(conn, operation.id, UNDO)
    back: list[int] = []
    left: list[int] = []
    async for rows in pages(conn, operation.id):
        taken = await undo.page(rows, **how)
        back, left = [*back, *taken.back], [*left, *taken.left]
    return back, left


async def rows(pool: Pool, query: str) -> Sequence[str]:
    return [row[0] for row in await pool.fetch(query)]


async def bury(store: Store, worker: Worker) -> None:
    """Every due row becomes a dead letter."""
    await store.write([ended(job, Dead("no", code="no")) for job in await claim(store, await worker())])


async def test_cancelled_rows_wait_again_just_as_they_did(
    conn: asyncpg.Connection, store: Store, worker: Worker, insert: Insert, pool: Pool
) -> None:
    """Their attempts, keys and times too."""
    ids = await insert(3, org_id="7", run_at=await pool.fetchval("select now() - interval '1 hour'"))
    ids += await insert(1, idempotency_key="i", unique_key="u", priority=4)
    (job,) = await claim(store, await worker(), 1)
    await store.write([ended(job, Retry("later"), max_attempts=9)])
    before = await rows(pool, EVERYTHING)
    operation = Operation(conn, CANCEL)
    assert (await operation.cancel(ids)).changed == ids
    assert await rows(pool, EVERYTHING) == []
    assert await take_back(conn, operation) == (ids, [])
    assert await rows(pool, EVERYTHING) == before
    assert await rows(pool, HISTORY) == []
    assert await take_back(conn, operation) == ([], [])  # the second time is as good as none


async def test_the_fence_rises_over_a_cancel_and_its_undo(
    conn: asyncpg.Connection, store: Store, worker: Worker, insert: Insert
) -> None:
    """A writer of the former life loses."""
    (job_id,) = await insert()
    (former,) = await claim(store, await worker())
    await store.write([ended(former, Retry("later"), max_attempts=9)])
    operation = Operation(conn, CANCEL)
    await operation.cancel([job_id])
    await take_back(conn, operation)
    (job,) = await claim(store, await worker(), gate="retry")
    assert job.fence > former.fence
    assert not await store.write([ended(former, Dead("late"))])


async def test_retried_rows_are_dead_again_just_as_they_were(
    conn: asyncpg.Connection, store: Store, worker: Worker, insert: Insert, pool: Pool
) -> None:
    ids = await insert(3, args='{"n": 1e131071}', org_id="7", idempotency_key=None)
    await insert(1, idempotency_key="i")
    await bury(store, worker)
    await pool.execute("update job_history set crashes = 1, result = '{}', progress = '[1]'")
    before = await rows(pool, HISTORY)
    operation = Operation(conn, RETRY)
    assert len((await operation.retry([*ids, *range(1, 10)])).changed) == 4
    assert len((await take_back(conn, operation))[0]) == 4
    assert await rows(pool, HISTORY) == before
    assert await rows(pool, EVERYTHING) == []


async def test_a_row_of_a_day_that_was_dropped_since_ends_today(
    conn: asyncpg.Connection, store: Store, worker: Worker, insert: Insert, pool: Pool
) -> None:
    await insert()
    await bury(store, worker)
    await pool.execute("update job_history set finished_at = now() - interval '90 days'")
    operation = Operation(conn, RETRY)
    await operation.retry([1])
    await take_back(conn, operation)
    assert await pool.fetchval("select count(*) from job_history where finished_at > now() - interval '1 min'") == 1


async def test_what_has_run_since_stays_and_is_named(
    conn: asyncpg.Connection, store: Store, worker: Worker, insert: Insert, pool: Pool
) -> None:
    await insert(4)
    await bury(store, worker)
    operation = Operation(conn, RETRY)
    await operation.retry([1, 2, 3, 4])
    one, two = await claim(store, await worker(), 2)
    await store.write([ended(one, Retry("again"), max_attempts=9)])
    assert await take_back(conn, operation) == ([3, 4], [1, 2])
    assert (one.id, two.id) == (1, 2)
    found = await pool.fetch("select id, state from jobs order by id")
    assert [tuple(row) for row in found] == [(1, "ready"), (2, "running")]


async def test_a_cancelled_row_whose_key_is_taken_or_that_was_retried_stays(
    conn: asyncpg.Connection, insert: Insert, pool: Pool
) -> None:
    (taken,) = await insert(unique_key="u")
    (retried,) = await insert()
    operation = Operation(conn, CANCEL)
    await operation.cancel([taken, retried])
    await insert(unique_key="u")
    await Operation(conn, RETRY).retry([retried])
    assert await take_back(conn, operation) == ([], [taken, retried])
    assert await pool.fetchval("select count(*) from job_history") == 1


async def test_postponed_rows_are_due_when_they_were(
    conn: asyncpg.Connection, store: Store, worker: Worker, insert: Insert, pool: Pool
) -> None:
    ids = await insert(2)
    later = await insert(1, run_at=await pool.fetchval("select now() + interval '1 day'"))
    before = await rows(pool, EVERYTHING)
    operation = Operation(conn, POSTPONE)
    assert (await operation.postpone([*ids, *later], Moment(None, 3600.0))).changed == ids
    assert await claim(store, await worker()) == []
    assert await pool.fetchval("select count(*) from jobs where run_at > now() + interval '59 min'") == 3
    assert await take_back(conn, operation) == (ids, [])
    assert await rows(pool, EVERYTHING) == before
    assert len(await claim(store, await worker())) == 2


async def test_rows_that_met_a_pause_since_have_not_run_and_are_taken_back(
    conn: asyncpg.Connection, store: Store, worker: Worker, insert: Insert, pool: Pool
) -> None:
    await insert(2)
    await bury(store, worker)
    retry = Operation(conn, RETRY)
    assert (await retry.retry([1, 2])).changed == [1, 2]
    await pool.execute("insert into job_holds (gate, cause) values ('kind:noop', 'pause')")
    assert await moved(store, await worker()) == {"kind:noop": [1, 2]}
    assert await take_back(conn, retry) == ([1, 2], [])
    assert await pool.fetchval("select count(*) from job_history where state = 'dead'") == 2


async def test_postponing_to_the_same_moment_twice_changes_nothing(
    conn: asyncpg.Connection, insert: Insert, pool: Pool
) -> None:
    to = Moment(await pool.fetchval("select now() + interval '1 day'"), None)
    ids = await insert(2)
    assert (await Operation(conn, POSTPONE).postpone(ids, to)).changed == ids
    assert (await Operation(conn, POSTPONE).postpone(ids, to)).changed == []
    assert await pool.fetchval("select count(*) from job_audit") == 1


async def test_a_dry_run_of_an_undo_changes_nothing(conn: asyncpg.Connection, insert: Insert, pool: Pool) -> None:
    ids = await insert(2)
    operation = Operation(conn, CANCEL)
    await operation.cancel(ids)
    before = await rows(pool, HISTORY)
    assert await take_back(conn, operation, dry_run=True) == (ids, [])
    assert await rows(pool, HISTORY) == before
    assert await pool.fetchval("select count(*) from job_audit") == 1


async def test_batches_of_one_operation_are_one_row_of_the_audit(
    conn: asyncpg.Connection, insert: Insert, pool: Pool
) -> None:
    ids = await insert(5)
    operation = Operation(conn, CANCEL, {"filter": {"kind": "noop"}})
    await operation.cancel(ids[:2])
    await operation.cancel(ids[2:4])
    await operation.cancel(ids[:2])
    assert operation.id is not None
    known = await find(conn, operation.id)
    assert known is not None
    assert known["detail"] == {"filter": {"kind": "noop"}, "rows": 4, "asked": 0, "ids": ids[:2]}
    await take_back(conn, operation)
    undone = await pool.fetchrow(
        "select actor, detail ->> 'undoes', detail ->> 'rows' from job_audit where action = 'undo'"
    )
    assert tuple(undone or ()) == ("bob", str(operation.id), "4")


async def test_what_may_no_longer_be_taken_back_is_forgotten(
    conn: asyncpg.Connection, keeping: UpkeepStore, insert: Insert, pool: Pool
) -> None:
    await Operation(conn, CANCEL).cancel(await insert(3))
    await pool.execute("update job_undo set at = now() - interval '8 days'")
    young = Operation(conn, CANCEL)
    await young.cancel(await insert(1))
    assert [await keeping.forget_undo(86400.0, 2) for _ in range(3)] == [2, 1, 0]
    assert len((await take_back(conn, young))[0]) == 1
