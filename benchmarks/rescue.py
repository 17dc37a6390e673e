"""W12: from the kill -9 of a daemon to the first of its rows running again elsewhere; bounded by its lease.

`python -m benchmarks.rescue [ROUNDS]`
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

import asyncpg
import uvloop

from benchmarks.lab import daemon, lab, median, verdict

LEASE_S = 5
INSERT = "insert into jobs (kind, args) select 'bench_sleep', '{\"seconds\": 3600}' from generate_series(1, $1)"
ROWS = 50


async def main(rounds: int = 3) -> bool:
    seconds = []
    env = {"JOBSD_DAEMON__LEASE": f"{LEASE_S}s", "JOBSD_DAEMON__DRAIN_TIMEOUT": "0"}
    async with lab() as place:
        conn = await asyncpg.connect(place.dsn)
        for _ in range(rounds):
            await conn.execute("truncate jobs, job_history")
            async with daemon(place, 1000, **env) as victim:
                await conn.execute(INSERT, ROWS)
                await _until(conn, "select count(*) = $1 from jobs where state = 'running'", ROWS)
                async with daemon(place, 1000, **env) as _other:
                    victim.kill()
                    killed = perf_counter()
                    await _until(conn, "select count(*) = $1 from jobs where state = 'running' and crashes = 1", ROWS)
                    seconds.append(perf_counter() - killed)
        await conn.close()
    print(f"W12, {ROWS} running rows, lease {LEASE_S} s, {rounds} rounds: {', '.join(f'{s:.2f}' for s in seconds)} s")
    return verdict("W12 kill -9 to all rows running again", median(seconds), "s", LEASE_S + 1, at_least=False)


async def _until(conn: asyncpg.Connection, question: str, rows: int) -> None:
    while not await conn.fetchval(question, rows):
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
