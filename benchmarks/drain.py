"""W1: how fast no-op rows are claimed, run and recorded, beside a bare SQL loop on the same table in the same run.

`python -m benchmarks.drain [ROWS] [ROUNDS]`
"""

from __future__ import annotations

import asyncio
import sys
from math import inf
from time import perf_counter

import asyncpg
import uvloop

import sql
from benchmarks.lab import PAYLOAD, Lab, cpu_s, daemon, lab, median, ratio, rss_mib, until_empty, verdict
from daemon.database import ENGINE_PLANS

INSERT = "insert into jobs (kind, args) select 'bench_noop', $1::text::jsonb from generate_series(1, $2::int)"
RATE = "select count(*) / extract(epoch from max(finished_at) - min(started_at)) from job_history"
BATCH = 500


async def main(rows: int = 200_000, rounds: int = 3) -> bool:
    ours, bare, daemon_us, server_us = [], [], [], []
    async with lab() as place:
        conn = await asyncpg.connect(place.dsn, server_settings=ENGINE_PLANS)
        for _ in range(rounds):
            bare.append(await bare_loop(place, conn, rows))
            await seed(conn, rows)
            server_before = place.server_cpu_s()
            async with daemon(place) as process:
                cpu_before = cpu_s(process)
                await until_empty(conn)
                daemon_us.append((cpu_s(process) - cpu_before) / rows * 1e6)
                server_us.append((place.server_cpu_s() - server_before) / rows * 1e6)
                memory = rss_mib(process)
            ours.append(float(await conn.fetchval(RATE)))
            assert await conn.fetchval("select count(*) from job_history where state = 'done'") == rows
        await conn.close()
    print(f"W1, {rows:,} rows, {rounds} rounds, medians; durable, history written, one process, concurrency 1,000")
    print(f"     bare SQL loop, one connection, batches of {BATCH}: {median(bare):,.0f} rows/s")
    print(f"     ratio {ratio(median(ours), median(bare)):.2f}; daemon {median(daemon_us):.1f} µs and server")
    print(f"     {median(server_us):.1f} µs of CPU a row; resident {memory:.0f} MiB")
    return verdict("W1 no-op drain", median(ours), "rows/s", 40_000, at_least=True)


async def seed(conn: asyncpg.Connection, rows: int) -> None:
    await conn.execute("truncate jobs, job_claims, job_history, job_attempts")
    await conn.execute(INSERT, PAYLOAD, rows)
    await conn.execute("vacuum analyze jobs")
    await conn.execute("checkpoint")


async def bare_loop(place: Lab, conn: asyncpg.Connection, rows: int) -> float:
    """The same two statements with nothing around them: the limit of this shape."""
    await seed(conn, rows)
    statements = sql.load("queue.sql")
    worker_id = await conn.fetchval(
        "insert into job_workers (name, version, kinds, queues, lease_until) "
        "values ('bare', '0', '{}', '{}', now() + interval '1 hour') returning id"
    )
    claim, finish = await conn.prepare(statements["claim"]), await conn.prepare(statements["finish"])
    started = perf_counter()
    ask = (["default"], [""], [None], [1], [BATCH], *[[-inf]] * 4, worker_id, ["bench_noop"], [], None, [0], [0])
    while claimed := await claim.fetch(*ask):
        claimed.sort(key=lambda row: row[0])
        await finish.fetch(
            [row[0] for row in claimed], [row[1] for row in claimed], *[None] * 7, worker_id, [], None, False
        )
    seconds = perf_counter() - started
    await conn.execute("delete from job_workers where id = $1", worker_id)
    return rows / seconds


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
