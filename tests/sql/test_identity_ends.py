"""However a row of an ordering key ends, the statement that ends it opens the next of its key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import asyncpg
import pytest

from daemon.operation import Operation
from daemon.operator_store import Order
from daemon.settle import hand_back
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from jobs.model import Dead, Done
from tests.sql.rows import Insert, Pool, Worker, claim, claims_of, die, ended, rescued

ORDER = Order("ann", "jobs.cancel", "job")

pytestmark = pytest.mark.req("OR-08")


@asynccontextmanager
async def operation(pool: Pool) -> AsyncIterator[Operation]:
    async with pool.acquire() as conn:
        yield Operation(cast("asyncpg.Connection", conn), ORDER)


async def done(pool: Pool, store: Store, worker_id: int, ids: list[int]) -> None:
    jobs = await claim(store, worker_id)
    assert [job.id for job in jobs] == ids[:1]
    await store.write([ended(job, Done()) for job in jobs], claims_of(jobs))


async def dead(pool: Pool, store: Store, worker_id: int, ids: list[int]) -> None:
    jobs = await claim(store, worker_id)
    await store.write([ended(job, Dead("no")) for job in jobs], claims_of(jobs))


async def buried(pool: Pool, store: Store, worker_id: int, ids: list[int]) -> None:
    await claim(store, worker_id)
    await die(pool, worker_id)
    assert await rescued(UpkeepStore(pool), worker_id, crash_limit=1) == (0, 1)


async def expired(pool: Pool, store: Store, worker_id: int, ids: list[int]) -> None:
    await pool.execute("update jobs set gate = 'order' where id <> $1", ids[0])
    await pool.execute("update jobs set expires_at = now() where id = $1", ids[0])
    assert await UpkeepStore(pool).expire(10) == ["default"]


async def cancelled(pool: Pool, store: Store, worker_id: int, ids: list[int]) -> None:
    await pool.execute("update jobs set gate = 'order' where id <> $1", ids[0])
    async with operation(pool) as order:
        assert (await order.cancel(ids[:1])).changed == ids[:1]


async def purged(pool: Pool, store: Store, worker_id: int, ids: list[int]) -> None:
    await pool.execute("update jobs set gate = 'order' where id <> $1", ids[0])
    async with operation(pool) as order:
        assert (await order.purge_live(ids[:1])).changed == ids[:1]


async def unwanted(pool: Pool, store: Store, worker_id: int, ids: list[int]) -> None:
    """It was to be stopped, and came back first."""
    (job,) = await claim(store, worker_id)
    async with operation(pool) as order:
        await order.cancel(ids[:1])
    await store.write([hand_back(job)], claims_of([job]))
    assert await UpkeepStore(pool).end_asked(10) == ["default"]


End = Callable[[Pool, Store, int, list[int]], Awaitable[None]]


@pytest.mark.parametrize("end", [done, dead, buried, expired, cancelled, purged, unwanted])
async def test_whoever_ends_a_row_opens_the_next_of_its_key(
    pool: Pool, store: Store, worker: Worker, insert: Insert, end: End
) -> None:
    ids = await insert(3, ordering_key="k")
    await end(pool, store, await worker(), ids)
    rows = await pool.fetch("select id, gate from jobs order by id")
    assert [tuple(row) for row in rows] == [(ids[1], ""), (ids[2], "order")]


async def test_several_rows_of_a_key_end_at_once(pool: Pool, keeping: UpkeepStore, insert: Insert) -> None:
    """None of them is opened and deleted by one statement."""
    ids = await insert(6, ordering_key="k")
    await pool.execute("update jobs set gate = 'order' where id <> $1", ids[0])
    await pool.execute("update jobs set expires_at = now() where id = any ($1::bigint[])", ids[:3])
    assert await keeping.expire(10) == ["default"] * 3
    async with operation(pool) as order:
        assert (await order.cancel(ids[3:5])).changed == ids[3:5]
    assert [tuple(row) for row in await pool.fetch("select id, gate from jobs")] == [(ids[5], "")]


async def test_a_row_deleted_by_hand_lets_the_next_go_at_the_next_sweep(
    pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
) -> None:
    first, second = await insert(2, ordering_key="k")
    worker_id = await worker()
    await claim(store, worker_id)
    await pool.execute("delete from jobs where id = $1", first)
    assert await claim(store, worker_id) == []
    assert await keeping.open_heads(("", ""), 10) == (None, 1)
    assert [job.id for job in await claim(store, worker_id)] == [second]
