"""Somebody's handlers, as they stand in somebody's project."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from jobs import Cancelled, Context, Dead, Ladder, Retry, Snooze, job


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    order: int


@job("shop.charge", args=Order, retry=Ladder("1m", "5m"))
async def charge(args: Order, ctx: Context) -> dict[str, Any]:
    """Charges once, whatever becomes of it: the mark and the receipt are one commit."""
    async with ctx.db.acquire() as conn, conn.transaction():
        cents = await conn.fetchval("select cents from orders where id = $1 for update", args.order)
        if cents is None:
            raise Dead("no such order", code="order_gone")
        if await conn.fetchval("select 1 from charges where order_id = $1", args.order) is None:
            await conn.execute("insert into charges (order_id) values ($1)", args.order)
            await conn.execute(
                "insert into jobs (kind, args) values ('shop.receipt', jsonb_build_object('order', $1::int))",
                args.order,
            )
    return {"cents": cents}


@job("shop.charge_twice", args=Order)
async def charge_twice(args: Order, ctx: Context) -> None:
    """Looks, then acts: right as long as nothing goes wrong in between."""
    known = await ctx.db.fetchval("select count(*) from payments where order_id = $1", args.order)
    if not known:
        await ctx.db.execute("insert into payments (order_id) values ($1)", args.order)


@job("shop.half", args=Order)
async def half(args: Order, ctx: Context) -> None:
    """Two writes that belong together, in two commits, of which the first says that all is done."""
    if await ctx.db.fetchval("select 1 from charges where order_id = $1", args.order) is None:
        await ctx.db.execute("insert into charges (order_id) values ($1)", args.order)
        await ctx.db.execute("insert into payments (order_id) values ($1)", args.order)


@job("shop.receipt", args=Order)
async def receipt(args: Order, ctx: Context) -> None:
    reply = await ctx.http.post("https://mail.example/receipts", json={"order": args.order})
    if reply.status_code == 404:
        raise Cancelled("nobody wants it")
    if reply.status_code >= 500:
        raise Retry(f"HTTP {reply.status_code}", code="http")


@job("shop.broken")
async def broken(args: dict[str, Any], ctx: Context) -> None:
    raise KeyError("a mistake")


@job("shop.later")
async def later(args: dict[str, Any], ctx: Context) -> None:
    """Not in its first hour."""
    young = await ctx.db.fetchval("select created_at > now() - interval '1h' from jobs where id = $1", ctx.job.id)
    if young and not args.get("now"):
        raise Snooze("not yet", after="1h")


@job("shop.again")
async def again(args: dict[str, Any], ctx: Context) -> None:
    """Enqueues itself without end."""
    await ctx.db.execute("insert into jobs (kind) values ('shop.again')")


@job("shop.when")
async def when(args: dict[str, Any], ctx: Context) -> str:
    moment = await ctx.db.fetchval("select now()")
    return str(moment.isoformat())


MEETING: asyncio.Barrier | None = None


@job("shop.meet")
async def meet(args: dict[str, Any], ctx: Context) -> None:
    """Ends only when others run at the same time."""
    assert MEETING is not None
    await MEETING.wait()


CALLS: list[str] = []


@job("shop.tidy")
async def tidy(args: dict[str, Any], ctx: Context) -> None:
    """Tidies up behind itself, unless it is killed."""
    CALLS.append("begun")
    try:
        async with ctx.db.acquire() as conn, conn.transaction():
            await conn.execute("insert into payments (order_id) values (1)")
            CALLS.append("paid")
            await conn.execute("select pg_sleep(0.001)")
    finally:
        CALLS.append("tidied")
        await asyncio.sleep(0)
        CALLS.append("gone")


@job("shop.hang")
async def hang(args: dict[str, Any], ctx: Context) -> None:
    await asyncio.get_running_loop().create_future()


@job("shop.secret")
async def secret(args: dict[str, Any], ctx: Context) -> dict[str, str]:
    return {"secret": ctx.tools.secrets.resolve("secret://pay"), "client": type(ctx.http).__name__}
