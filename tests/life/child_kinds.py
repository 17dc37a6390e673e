"""Kinds that have children, and kinds whose work and end are one transaction."""

from __future__ import annotations

import asyncio
from typing import Any

from jobs import Callback, Context, Dead, Fixed, New, Retry, Snooze, job
from tests.life.kinds import note

SOON = Fixed(0.05, max_attempts=3, jitter=0.0)


@job("parent", retry=SOON)
async def parent(args: dict[str, Any], ctx: Context) -> int:
    """Begins a batch of `count` children."""
    children = [New(kind="child", args=args.get("child", {}), max_attempts=100) for _ in range(args["count"])]
    batch_id = await ctx.batch(children, then=Callback(kind="after", args={"of": ctx.job.id}))
    note(ctx, "begun", batch_id)
    if ctx.job.attempt <= args.get("fail", 0):
        raise Retry("after it had begun")
    return batch_id


@job("child", retry=SOON, timeout="1h")
async def child(args: dict[str, Any], ctx: Context) -> None:
    """Adds `more` children to its batch, then ends as it is told."""
    note(ctx, "child")
    if args.get("more"):
        await ctx.add([New(kind="child")] * args["more"])
    await asyncio.sleep(args.get("seconds", 0))
    if args.get("dead"):
        raise Dead("never")


@job("after")
async def after(args: dict[str, Any], ctx: Context) -> dict[str, Any]:
    note(ctx, "after", args["batch"])
    told: dict[str, Any] = args["batch"]
    return told


@job("book", transactional=True, retry=SOON, timeout="1h")
async def book(args: dict[str, Any], ctx: Context) -> Any:
    """Writes a line into `ledger` in its transaction, then behaves as it is told."""
    await ctx.conn.execute("insert into ledger values ($1, $2)", ctx.job.id, ctx.fence)
    note(ctx, "booked")
    if args.get("wait") and ctx.job.attempt <= args.get("first", 1_000):
        await asyncio.sleep(args["wait"])
    match args.get("what"):
        case "raise":
            raise RuntimeError("no")
        case "dead":
            raise Dead("never")
        case "snooze":
            return Snooze(after="1h")
        case "commit":
            await ctx.conn.execute("commit")
        case "late constraint":
            await ctx.conn.execute("insert into strict_ledger values (1)")
        case "swallow":
            try:
                await ctx.conn.execute("select 1 / 0")
            except Exception as error:
                ctx.log.info("went wrong", why=str(error))
        case "children":
            await ctx.batch([New(kind="child")] * 3, then=Callback(kind="after"))
        case "result":
            return {"booked": ctx.job.id}
    return None


@job("book_slow", transactional=True, retry=SOON, timeout="300ms")
async def book_slow(args: dict[str, Any], ctx: Context) -> None:
    await ctx.conn.execute("insert into ledger values ($1, $2)", ctx.job.id, ctx.fence)
    await asyncio.sleep(60)
