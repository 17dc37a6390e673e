"""The kinds the benchmarks run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from jobs import Context, job


@job("bench_noop", args=dict[str, Any])
async def noop(args: dict[str, Any], ctx: Context) -> None:
    """Nothing: what is left is the engine."""


@job("bench_clock", args=dict[str, Any])
async def clock(args: dict[str, Any], ctx: Context) -> float:
    """The moment of the handler's first line."""
    return time.time()


@job("bench_sleep", args=dict[str, Any], timeout="1d")
async def sleep(args: dict[str, Any], ctx: Context) -> None:
    """Hold a slot for `seconds`."""
    await asyncio.sleep(args["seconds"])


@job("bench_pause", args=dict[str, Any])
async def pause(args: dict[str, Any], ctx: Context) -> float:
    """The moment of the handler's first line, after `seconds`."""
    now = time.time()
    await asyncio.sleep(args["seconds"])
    return now
