"""A backlog that was inserted at one moment is claimed in order, and what was claimed is not walked over again."""

from __future__ import annotations

from typing import cast

import asyncpg

import sql
from daemon.low_water import LowWater, Start
from daemon.store import Ask, Store
from tests.sql.plans import explain
from tests.sql.rows import KINDS, Insert, Pool, Worker

CLAIM = sql.load("queue.sql")["claim"]
FIRST = ("'{default}'", "'{\"\"}'", "'{null}'::text[]", "'{1}'", "'{100}'")


def arguments(worker_id: int, start: Start) -> tuple[str, ...]:
    after = [f"array[{'date_part($$epoch$$, $$-infinity$$::timestamptz)' if at < 0 else at}]" for at in start.after]
    exactly = (f"'{{{start.after_in}}}'", f"'{{{start.after_id}}}'")
    return (*FIRST, *after, str(worker_id), "'{noop}'", "'{}'", "null", *exactly)


async def test_every_row_is_claimed_once_in_order(store: Store, worker: Worker, insert: Insert) -> None:
    """Of whatever moment: what Postgres says in seconds, it takes back as the same time."""
    ids = await insert(1_000)
    worker_id, marks = await worker(), LowWater()
    got: list[int] = []
    while jobs := await store.claim([Ask("default", "", 37, start=marks.start(1.0, full=bool(got)))], worker_id, KINDS):
        marks.claimed(jobs)
        got += [job.id for job in jobs]
    assert got == ids


async def test_a_time_goes_to_seconds_and_back_unharmed(pool: Pool) -> None:
    changed = """select count(*) from (select timestamptz '2001-01-01' + n * interval '7919123.457 milliseconds' as at
                                       from generate_series(1, 100000) as n) as times
                 where to_timestamp(date_part('epoch', at)) <> at"""
    assert await pool.fetchval(changed) == 0


async def test_behind_a_pinned_horizon_the_last_rows_cost_what_the_first_did(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    worker_id, marks = await worker(), LowWater()
    async with pool.acquire() as holder, holder.transaction(isolation="repeatable_read"):
        await holder.fetchval("select count(*) from jobs")
        await insert(10_000)
        await pool.execute("analyze jobs")
        claimed = 0
        while claimed < 9_000:
            ask = Ask("default", "", 500, start=marks.start(1.0, full=claimed > 0))
            jobs = await store.claim([ask], worker_id, KINDS)
            marks.claimed(jobs)
            claimed += len(jobs)
        async with pool.acquire() as borrowed:
            conn = cast(asyncpg.Connection, borrowed)
            exactly = await explain(
                conn, CLAIM, arguments(worker_id, marks.start(1.1, full=True)), "force_generic_plan"
            )
            anything = await explain(conn, CLAIM, arguments(worker_id, Start()), "force_generic_plan")
    assert anything.buffers > exactly.buffers + 100
