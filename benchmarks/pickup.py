"""W3 and W9: from before the insert to the handler's first line on an idle daemon, and what an idle daemon costs.

`python -m benchmarks.pickup [ROWS] [IDLE_SECONDS]`
"""

from __future__ import annotations

import asyncio
import sys
import time

import asyncpg
import uvloop

from benchmarks.lab import cpu_s, daemon, lab, median, percentile, verdict

EVERY_S = 0.05
STATEMENTS = "select sum(xact_commit + xact_rollback) from pg_stat_database where datname = current_database()"


async def main(rows: int = 1000, idle_s: int = 30) -> bool:
    async with lab() as place, daemon(place) as process:
        conn = await asyncpg.connect(place.dsn)
        before_insert, after_commit = await pick_up(conn, rows)
        print(f"W3, {rows:,} rows, one every {EVERY_S * 1000:.0f} ms")
        p50, p99 = median(before_insert), percentile(before_insert, 0.99)
        print(f"     from the commit: p50 {median(after_commit):.2f} ms, p99 {percentile(after_commit, 0.99):.2f} ms")
        fine = [
            verdict("W3 from before the insert, p50", p50, "ms", 3, at_least=False),
            verdict("W3 from before the insert, p99", p99, "ms", 6, at_least=False),
        ]
        began, cpu_before = time.monotonic(), cpu_s(process)
        rate = await statements_per_s(conn, idle_s)
        cpu = (cpu_s(process) - cpu_before) / (time.monotonic() - began) * 100
        fine.append(verdict("W9 idle: transactions", rate, "per s", 3, at_least=False))
        fine.append(verdict("W9 idle: CPU", cpu, "% core", 1, at_least=False))
        await conn.close()
    return all(fine)


async def pick_up(conn: asyncpg.Connection, rows: int) -> tuple[list[float], list[float]]:
    """Milliseconds from before the insert, and from the moment its commit was answered."""
    began, committed = {}, {}
    for _ in range(rows):
        start = time.time()
        job_id = await conn.fetchval("insert into jobs (kind) values ('bench_clock') returning id")
        began[job_id], committed[job_id] = start, time.time()
        await asyncio.sleep(EVERY_S)
    while await conn.fetchval("select exists (select from jobs)"):
        await asyncio.sleep(0.05)
    handled = await conn.fetch("select id, result::float8 from job_history where kind = 'bench_clock'")
    return (
        [(at - began[job_id]) * 1000 for job_id, at in handled],
        [max(0.0, at - committed[job_id]) * 1000 for job_id, at in handled],
    )


async def statements_per_s(conn: asyncpg.Connection, seconds: int) -> float:
    """Transactions a second in the whole database, less our own two questions."""
    await asyncio.sleep(min(seconds, 12))  # sessions report what came before up to 10 s late
    before = await conn.fetchval(STATEMENTS)
    await asyncio.sleep(seconds)
    return float(await conn.fetchval(STATEMENTS) - before - 1) / seconds


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
