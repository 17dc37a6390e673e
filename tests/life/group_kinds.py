"""Kinds whose handlers take many rows in one call, and kinds that talk about themselves."""

from __future__ import annotations

import asyncio
from typing import Any

from jobs import Context, Dead, Fixed, Retry, Row, Snooze, job
from tests.life.kinds import note

Rows = list[Row[dict[str, Any]]]
SOON = Fixed(0.05, max_attempts=3, jitter=0.0)


def called(rows: Rows) -> list[int]:
    """Each row notes down with whom it was called."""
    ids = [row.id for row in rows]
    for row in rows:
        note(row.ctx, "call", {"with": ids, "attempt": row.ctx.job.attempt})
    return ids


@job("group", batch=20, linger="200ms", retry=SOON)
async def group(rows: Rows) -> dict[int, Any]:
    """Each row ends as its args say."""
    called(rows)
    said: dict[int, Any] = {
        row.id: {"done": None, "result": row.id, "dead": Dead("never"), "snooze": Snooze(after="1h")}.get(
            row.args.get("what", "done"), Retry("later")
        )
        for row in rows
    }
    if any(row.args.get("what") == "raise" for row in rows):
        raise RuntimeError("one of them is poison")
    return {row.id: said[row.id] for row in rows if row.args.get("what") != "forget"}


@job("group_no_dict", batch=20, linger="200ms", retry=SOON)
async def group_no_dict(rows: Rows) -> None:
    """Says nothing at all."""
    called(rows)


@job("group_slow", batch=20, linger="200ms", retry=SOON, timeout="1s")
async def group_slow(rows: Rows) -> dict[int, Any]:
    called(rows)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note(rows[0].ctx, "call cancelled")
        raise
    return {row.id: None for row in rows}


@job("group_long", batch=20, linger="200ms", timeout="1h")
async def group_long(rows: Rows) -> dict[int, Any]:
    called(rows)
    await asyncio.sleep(min(row.args.get("seconds", 60) for row in rows))
    return {row.id: None for row in rows}


@job("talk", timeout="1h", retry=SOON)
async def talk(args: dict[str, Any], ctx: Context) -> Any:
    """Logs `lines` lines, says how far it is `steps` times, and ends after `seconds`."""
    for n in range(args.get("lines", 0)):
        ctx.log("line", number=n, password="hidden", text="x" * args.get("long", 1))
    for n in range(args.get("steps", 0)):
        await ctx.progress(n, of=args["steps"])
    note(ctx, "said")
    await asyncio.sleep(args.get("seconds", 0))
    ctx.log.warning("last words")
    if "fail" in args and ctx.job.attempt <= args["fail"]:
        raise Retry("again")
    return args.get("result") and "x" * args["result"]


@job("boast")
async def boast(args: dict[str, Any], ctx: Context) -> None:
    """Progress larger than allowed."""
    await ctx.progress(1, text="x" * 5000)
