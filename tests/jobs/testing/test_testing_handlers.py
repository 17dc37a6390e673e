"""Handlers of many rows, transactional ones and children run in the kit as in a daemon."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import Callback, Context, Dead, New, Row, job, testing
from jobs.testing import Queue

CALLED: list[list[int]] = []


@job("kit.many", batch=10, linger="0")
async def many(rows: list[Row[dict[str, Any]]]) -> dict[int, Any]:
    CALLED.append([row.id for row in rows])
    return {row.id: Dead("no") if row.args.get("bad") else row.args.get("n") for row in rows}


@job("kit.charge", transactional=True)
async def charge(args: dict[str, Any], ctx: Context) -> None:
    await ctx.conn.execute("insert into payments values ($1)", args["order"])
    if args.get("bad"):
        raise Dead("no")


@job("kit.parent")
async def parent(args: dict[str, Any], ctx: Context) -> int:
    ctx.log("begins", count=args["count"])
    await ctx.progress(50)
    return await ctx.batch([New(kind="kit.many")] * args["count"], then=Callback(kind="kit.after"))


@job("kit.after")
async def after(args: dict[str, Any], ctx: Context) -> Any:
    return args["batch"]["done"]


@pytest.fixture
async def queue() -> Any:
    CALLED.clear()
    async with testing.queue(handlers=[many, charge, parent, after], concurrency=10) as queue:
        await queue.pool.execute("create table payments (order_id int not null)")
        yield queue


async def test_rows_that_were_claimed_together_are_called_together(queue: Queue) -> None:
    for n in range(3):
        await queue.enqueue("kit.many", {"n": n, "bad": n == 1})
    ran = await queue.drain()
    assert [(one.outcome, one.result) for one in ran] == [("done", 0), ("dead", None), ("done", 2)]
    assert len(CALLED) == 1


async def test_a_fault_meets_the_whole_call(queue: Queue) -> None:
    queue.fail("kit.many", ValueError("broken"))
    for n in range(3):
        await queue.enqueue("kit.many", {"n": n})
    ran = await queue.drain_all()
    assert [one.outcome for one in ran] == ["retry"] * 3 + ["done"] * 3
    assert [len(call) for call in CALLED] == [1, 1, 1], "and each row is called alone then"


@pytest.mark.parametrize(("at", "payments"), [("start", 1), ("end", 1)])
async def test_a_worker_that_dies_leaves_nothing_of_its_transaction(queue: Queue, at: Any, payments: int) -> None:
    queue.crash_next("kit.charge", at=at)
    await queue.enqueue("kit.charge", {"order": 7})
    ran = await queue.drain()
    assert [one.outcome for one in ran] == ["crashed", "done"]
    assert await queue.pool.fetchval("select count(*) from payments") == payments


async def test_what_fails_is_undone(queue: Queue) -> None:
    await queue.enqueue("kit.charge", {"order": 7, "bad": True})
    assert (await queue.drain()).one().outcome == "dead"
    assert await queue.pool.fetchval("select count(*) from payments") == 0


async def test_children_and_their_callback(queue: Queue) -> None:
    await queue.enqueue("kit.parent", {"count": 3})
    ran = await queue.drain_all()
    assert ran.of("kit.after").one().result == 3
    assert await queue.pool.fetchval("select event from job_logs") == "begins"
    assert await queue.pool.fetchval("select progress from job_history where kind = 'kit.parent'") == '{"percent": 50}'
