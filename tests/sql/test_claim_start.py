"""A backlog that was inserted at one moment is claimed in order, and what was claimed is not walked over again."""

from __future__ import annotations

from collections import Counter
from typing import cast

import asyncpg

import sql
from daemon.low_water import MARGIN_S, LowWater, Start
from daemon.shares import Shares
from daemon.store import Ask, Store
from tests.sql.plans import explain
from tests.sql.rows import KINDS, Insert, Pool, Worker

CLAIM = sql.load("queue.sql")["claim"]
FIRST = ("'{default}'", "'{\"\"}'", "'{null}'::text[]", "'{1}'", "'{100}'")
OF_ONE = ("'{default}'", "'{\"\"}'", "'{a}'::text[]", "'{2}'", "'{100}'")


def arguments(worker_id: int, start: Start, first: tuple[str, ...] = FIRST) -> tuple[str, ...]:
    after = [f"array[{'date_part($$epoch$$, $$-infinity$$::timestamptz)' if at < 0 else at}]" for at in start.after]
    exactly = (f"'{{{start.after_in}}}'", f"'{{{start.after_id}}}'")
    return (*first, *after, str(worker_id), "'{noop}'", "'{}'", "null", *exactly)


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


async def test_of_each_organisation_too(pool: Pool, store: Store, worker: Worker, insert: Insert) -> None:
    worker_id, shares = await worker(), Shares()
    async with pool.acquire() as holder, holder.transaction(isolation="repeatable_read"):
        await holder.fetchval("select count(*) from jobs")
        await insert(10_000, org_id="a")
        await insert(10, org_id="b")
        await pool.execute("analyze jobs")
        shares.found(await store.waiting("default", "", (0, ""), 100))
        claimed = 0
        while claimed < 9_000:
            asks = shares.ask("default", "", 500, 0, lambda org_id: True, 1.0)
            jobs = await store.claim(asks, worker_id, KINDS)
            got = Counter((job.priority, job.org_id or "") for job in jobs)
            shares.claimed(asks, got, {(job.priority, job.org_id or ""): (job.run_at, job.id) for job in jobs})
            claimed += len(jobs)
        (exact,) = shares.ask("default", "", 100, 0, lambda org_id: True, 1.1)
        async with pool.acquire() as borrowed:
            conn = cast(asyncpg.Connection, borrowed)
            wide = Start((exact.start.after[1] - MARGIN_S,) * 4)
            exactly, anything = [
                await explain(conn, CLAIM, arguments(worker_id, start, OF_ONE), "force_generic_plan")
                for start in (exact.start, wide)
            ]
    assert exact.org_id == "a"
    assert anything.buffers > exactly.buffers + 100
