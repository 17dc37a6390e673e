"""Kinds that the command line's tests run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from jobs import Context, Dead, Retry, job

Args = dict[str, Any]


@job("cli.done")
async def done(args: Args, ctx: Context) -> Args:
    return {"said": args.get("say", "nothing")}


@job("cli.silent")
async def silent(args: Args, ctx: Context) -> None:
    """Has nothing to say."""


@job("cli.fails")
async def fails(args: Args, ctx: Context) -> None:
    raise Dead("it can never work", code="hopeless")


@job("cli.retries")
async def retries(args: Args, ctx: Context) -> None:
    raise Retry("not yet", after="1h")


@job("cli.waits")
async def waits(args: Args, ctx: Context) -> None:
    """Says that it runs by making a file, and never ends."""
    await asyncio.to_thread(Path(args["started"]).touch)
    await asyncio.Event().wait()


@job("cli.blocks")
async def blocks(args: Args, ctx: Context) -> None:
    """Holds up the whole event loop."""
    threading.Event().wait()


@job("cli.writes")
async def writes(args: Args, ctx: Context) -> None:
    """Does not care about ctx.dry_run, and reports progress."""
    await ctx.progress(50.0)
    await ctx.db.execute("insert into job_orgs (org_id) values ('written')")


@job("cli.typed", args=dict[str, int])
async def typed(args: dict[str, int], ctx: Context) -> None:
    """Takes whole numbers."""
