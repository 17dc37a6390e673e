"""What operators order holds against everything that happens at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

import sql
from daemon.bounded import OTHER, QUEUES_MAX
from daemon.holds import FOREVER, Holds
from daemon.operation import Operation
from daemon.operator_store import NewRow, OperatorStore, Order
from daemon.store import Store
from jobs.model import Dead, Done, Job, Retry
from tests.sql.rows import Insert, Pool, Worker, claim, die, ended

_SQL = sql.load("operator.sql")
_ORDERS = sql.load("orders.sql")
ORDER = Order("tester", "test", "rows")


@pytest.fixture
async def conn(database: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(database)
    yield conn
    await conn.close()


@pytest.fixture
def desk(conn: asyncpg.Connection) -> OperatorStore:
    return OperatorStore(conn)


async def test_a_writer_from_a_rows_former_life_loses(
    store: Store, worker: Worker, insert: Insert, conn: asyncpg.Connection, pool: Pool
) -> None:
    """However often it was claimed and given back before."""
    (job_id,) = await insert()
    former = []
    for gate in ("", "retry", "retry"):
        (job,) = await claim(store, await worker(), gate=gate)
        former.append(job)
        await store.write([ended(job, Retry("later"), max_attempts=9)])
    (job,) = await claim(store, await worker(), gate="retry")
    await store.write([ended(job, Dead("no"))])
    assert (await Operation(conn, ORDER).retry([job_id])).changed == [job_id]
    for gate in ("", "retry", "retry"):
        (job,) = await claim(store, await worker(), gate=gate)
        assert not await store.write([ended(late, Done("late")) for late in former])
        await store.write([ended(job, Retry("again"), max_attempts=9)])
    assert await pool.fetchval("select state from jobs") == "ready"


async def test_a_row_that_is_being_claimed_is_not_cancelled(
    insert: Insert, desk: OperatorStore, conn: asyncpg.Connection, pool: Pool
) -> None:
    first, second = await insert(2)
    async with pool.acquire() as claimer, claimer.transaction():
        await claimer.execute("select from jobs where id = $1 for update", first)
        assert (await Operation(conn, ORDER).cancel([first, second])).changed == [second]
    assert await desk.states([first, second]) == {first: "ready", second: "cancelled"}


async def test_what_a_command_cancels_is_counted_with_it(insert: Insert, conn: asyncpg.Connection, pool: Pool) -> None:
    """In the hour of the clock, and of no more queues than a daemon counts."""
    ids = [*await insert(3, queue="a"), *await insert(2, queue="b")]
    order = Operation(conn, ORDER)
    await order.cancel(ids[:2])
    await order.cancel([*ids[1:], 404])
    counted = (
        "select queue, outcome, sum(n) from job_tallies where hour > now() - interval '2 h' group by 1, 2 order by 1"
    )
    assert [tuple(row) for row in await pool.fetch(counted)] == [("a", "cancelled", 3), ("b", "cancelled", 2)]
    many = "insert into jobs (kind, queue) select 'noop', 'q' || n from generate_series(1, 600) as n returning id"
    await Operation(conn, ORDER).cancel([row["id"] for row in await pool.fetch(many)])
    assert await pool.fetchval("select count(*) from job_tallies where queue like 'q%'") == QUEUES_MAX
    assert await pool.fetchval("select n from job_tallies where queue = $1", OTHER) == 600 - QUEUES_MAX


async def test_two_retries_of_one_row_make_one(
    store: Store, worker: Worker, insert: Insert, conn: asyncpg.Connection, pool: Pool
) -> None:
    (job_id,) = await insert()
    (job,) = await claim(store, await worker())
    await store.write([ended(job, Dead("no"))])
    async with pool.acquire() as other, other.transaction():
        given = (0.0, 0.0, ["dead"], None, None, 1)
        assert [row["id"] for row in await other.fetch(_ORDERS["retry"], [job_id], *given)] == [job_id]
        assert (await Operation(conn, ORDER).retry([job_id])).changed == []
    assert [tuple(row) for row in await pool.fetch("select id, state from job_status")] == [(job_id, "ready")]


async def test_what_was_ordered_and_its_audit_are_one_commit(
    insert: Insert, desk: OperatorStore, conn: asyncpg.Connection, pool: Pool
) -> None:
    (job_id,) = await insert()
    await pool.execute("alter table job_audit add check (actor <> 'nobody')")
    with pytest.raises(asyncpg.CheckViolationError):
        await Operation(conn, Order("nobody", "jobs.cancel", "job")).cancel([job_id])
    assert await desk.states([job_id]) == {job_id: "ready"}


async def test_only_a_worker_with_a_lease_claims_a_row_by_its_id(insert: Insert, worker: Worker, pool: Pool) -> None:
    (job_id,) = await insert()
    lost, alive = await worker(), await worker()
    await die(pool, lost)
    assert await pool.fetchrow(_SQL["claim_one"], job_id, lost) is None
    assert await pool.fetchval("select count(*) from job_claims") == 0
    row = await pool.fetchrow(_SQL["claim_one"], job_id, alive)
    assert row is not None
    claimed = Job(*row)
    assert (claimed.id, claimed.attempt, claimed.fence) == (job_id, 1, 1)
    assert await pool.fetchval("select ids from job_claims where id = $1", claimed.claim_id) == [job_id]
    assert await pool.fetchrow(_SQL["claim_one"], job_id, alive) is None
    assert await pool.fetchval("select count(*) from job_claims") == 1  # no receipt for what was not taken


async def test_a_key_that_comes_free_while_we_look_is_taken(desk: OperatorStore, pool: Pool) -> None:
    first = await desk.enqueue(NewRow(kind="a", unique_key="k"))
    assert await desk.enqueue(NewRow(kind="a", unique_key="k")) == (first[0], False)
    await pool.execute("delete from jobs")
    assert (await desk.enqueue(NewRow(kind="a", unique_key="k")))[1]


async def test_a_hint_follows_a_resume_so_that_daemons_look_at_once(conn: asyncpg.Connection, pool: Pool) -> None:
    holds = Holds(conn)
    await holds.pause("queue:q", FOREVER, ORDER)
    async with pool.acquire() as ear:
        heard = asyncio.Event()
        await ear.add_listener("jobsd:public", lambda *_what: heard.set())
        assert await holds.resume("queue:q", ORDER)
        async with asyncio.timeout(60):
            await heard.wait()
        await ear.reset()
