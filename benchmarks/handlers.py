"""The kinds the benchmarks run."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache
from typing import Any

from jobs import Context, job

LAG_EVERY_S = 0.004


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


@job("bench_journal", args=dict[str, Any])
async def journal(args: dict[str, Any], ctx: Context) -> None:
    """Write the moment of the first line to a file, and whose: kept though the daemon be killed right after."""
    os.write(_journal(), f"{time.time():.6f} {ctx.job.id} {ctx.job.fence}\n".encode())


@cache
def _journal() -> int:
    return os.open(os.environ["BENCH_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


@job("bench_pause", args=dict[str, Any])
async def pause(args: dict[str, Any], ctx: Context) -> float:
    """The moment of the handler's first line, after `seconds`."""
    now = time.time()
    await asyncio.sleep(args["seconds"])
    return now


@job("bench_lag", args=dict[str, Any], timeout="1d")
async def lag(args: dict[str, Any], ctx: Context) -> dict[str, float]:
    """How late the daemon's loop is for `seconds`, looked at every few milliseconds: p50, p99 and the most, in ms; and
    p99 of what of it the loop itself computed, which neighbours on the machine do not change.  While it stands still
    it would have been looked at too."""
    loop, late, own = asyncio.get_running_loop(), list[float](), list[float]()
    until = loop.time() + args["seconds"]
    while loop.time() < until:
        began, cpu = time.perf_counter(), time.thread_time()
        await asyncio.sleep(LAG_EVERY_S)
        late_s = max(0.0, time.perf_counter() - began - LAG_EVERY_S)
        own_s = min(late_s, time.thread_time() - cpu)
        for n in range(1 + int(late_s / LAG_EVERY_S)):
            left = 1.0 - n * LAG_EVERY_S / late_s if n else 1.0
            late.append(1000 * late_s * left)
            own.append(1000 * own_s * left)
    late.sort()
    own.sort()
    at = len(late) * 99 // 100
    return {"p50": late[len(late) // 2], "p99": late[at], "most": late[-1], "own_p99": own[at]}
