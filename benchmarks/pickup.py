"""W3 and W9: from before the insert to the handler's first line on an idle daemon, and what idle daemons cost.

Between the daemon's rows come rows for a bare listener: what disk and machine take at that hour.

`python -m benchmarks.pickup [ROWS] [IDLE_SECONDS] [DAEMONS]`
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from subprocess import Popen

import asyncpg
import uvloop

from benchmarks import bare_listener
from benchmarks.lab import cpu_s, daemon, lab, median, percentile, verdict

EVERY_S = 0.05
SETTLE_S = 12
"""Sessions report what they did up to 10 s late: before that, starts and rows would be counted as idleness."""

STATEMENTS = "select sum(xact_commit + xact_rollback)::float8 from pg_stat_database where datname = current_database()"


async def main(rows: int = 1000, idle_s: int = 30, daemons: int = 4) -> bool:
    async with lab() as place, AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(daemon(place))]
        conn = await asyncpg.connect(place.dsn)
        async with bare_listener.bare_listener(place.dsn):
            before_insert, after_commit, bare = await pick_up(conn, rows)
        print(f"W3, {rows:,} rows, one every {EVERY_S * 1000:.0f} ms")
        p50, p99 = median(before_insert), percentile(before_insert, 0.99)
        print(f"     from the commit: p50 {median(after_commit):.2f} ms, p99 {percentile(after_commit, 0.99):.2f} ms")
        print(f"     a bare listener, from before the insert: p50 {median(bare):.2f} ms,", end=" ")
        print(f"p99 {percentile(bare, 0.99):.2f} ms; the daemon takes {p50 - median(bare):+.2f} ms at p50")
        fine = [
            verdict("W3 from before the insert, p50", p50, "ms", 3, at_least=False),
            verdict("W3 from before the insert, p99", p99, "ms", 6, at_least=False),
        ]
        fine.append(await idle(conn, processes, idle_s))
        for _ in range(daemons - 1):
            processes.append(await stack.enter_async_context(daemon(place)))
        fine.append(await idle(conn, processes, idle_s))
        await conn.close()
    return all(fine)


async def pick_up(conn: asyncpg.Connection, rows: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds from before the insert, from the moment its commit was answered, and those of the bare listener."""
    began, committed, bare = {}, {}, {}
    for _ in range(rows):
        start = time.time()
        job_id = await conn.fetchval("insert into jobs (kind) values ('bench_clock') returning id")
        began[job_id], committed[job_id] = start, time.time()
        await asyncio.sleep(EVERY_S / 2)
        start = time.time()
        bare[await conn.fetchval(bare_listener.INSERT)] = start
        await asyncio.sleep(EVERY_S / 2)
    while await conn.fetchval("select exists (select from jobs) or exists (select from bench_bare)"):
        await asyncio.sleep(0.05)
    handled = await conn.fetch("select id, result::float8 from job_history where kind = 'bench_clock'")
    return (
        [(at - began[job_id]) * 1000 for job_id, at in handled],
        [max(0.0, at - committed[job_id]) * 1000 for job_id, at in handled],
        [(at - bare[row_id]) * 1000 for row_id, at in await conn.fetch(bare_listener.SEEN)],
    )


async def idle(conn: asyncpg.Connection, processes: Sequence[Popen[bytes]], seconds: int) -> bool:
    """What each of these daemons costs while there is nothing to do; whether that is little enough."""
    await asyncio.sleep(SETTLE_S)
    began, before, cpu_before = time.monotonic(), await conn.fetchval(STATEMENTS), sum(map(cpu_s, processes))
    await asyncio.sleep(seconds)
    cpu, lasted, n = sum(map(cpu_s, processes)) - cpu_before, time.monotonic() - began, len(processes)
    transactions = await conn.fetchval(STATEMENTS) - before - 1  # our own question
    fine = [
        verdict(f"W9 idle, daemons: {n}, transactions of each", transactions / lasted / n, "per s", 2, at_least=False),
        verdict(f"W9 idle, daemons: {n}, CPU of each", cpu / lasted / n * 100, "% core", 0.5, at_least=False),
    ]
    return all(fine)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
