"""Webhooks to a destination that is well, alone and beside a dead one with 100,000 rows that came first.

`python -m benchmarks.lanes [DEAD_ROWS] [ROWS]`
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvloop

from benchmarks.lab import Lab, cpu_s, daemon, lab, median, verdict
from daemon.breaker import budget
from daemon.work_settings import LaneSettings

WELL, DEAD = "127.0.0.1", "127.0.0.2"
CONCURRENCY = 100
REFUSED = 2  # nobody listens there
SINK = """
import asyncio, sys
class Sink(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        if sys.argv[2] == "well": self.transport.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n" * data.count(b"POST "))
async def main():
    server = await asyncio.get_running_loop().create_server(Sink, sys.argv[1], 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
INSERT = """
insert into jobs (kind, args)
select 'webhook', jsonb_build_object('url', $1::text, 'payload', jsonb_build_object('n', n))
from generate_series(1, $2) as n"""
SETTINGS = {
    "JOBSD_WEBHOOK__ALLOW_HTTP": "true",
    "JOBSD_WEBHOOK__ALLOW_ADDRESSES": "127.0.0.0/8",
    "JOBSD_WEBHOOK__ALLOW_PORTS": "1-65535",
}


async def main(dead_rows: int = 100_000, rows: int = 30_000) -> bool:
    fine = True
    async with lab() as place, sink(WELL, "well") as well, sink(DEAD, "silent") as silent:
        conn = await asyncpg.connect(place.dsn)
        print(f"{rows:,} webhooks, concurrency {CONCURRENCY}, beside {dead_rows:,} to a dead destination")
        alone = [await drain(place, conn, well, rows)]
        for name, dead in (("refuses", f"http://{DEAD}:{REFUSED}/"), ("is silent", silent)):
            beside, first_s, attempts, allowed = await drain_beside(place, conn, well, rows, dead, dead_rows)
            alone.append(await drain(place, conn, well, rows))
            ratio = beside / median(alone[-2:])
            print(
                f"     {name}: {beside:,.0f}/s, alone {median(alone[-2:]):,.0f}/s; first delivery after {first_s:.2f} s"
            )
            fine &= verdict(f"rate beside one that {name}, against alone", ratio, "×", 0.9, at_least=True)
            fine &= verdict(f"attempts at one that {name}", attempts, "", allowed, at_least=False)
        await conn.close()
    return fine


async def drain(place: Lab, conn: asyncpg.Connection, url: str, rows: int) -> float:
    """Deliveries a second."""
    await conn.execute("truncate jobs, job_history, job_holds, job_attempts, webhook_deliveries")
    async with daemon(place, CONCURRENCY, **SETTINGS):
        await conn.execute(INSERT, url, rows)
        return await rate(conn, url, rows)


async def drain_beside(
    place: Lab, conn: asyncpg.Connection, url: str, rows: int, dead: str, dead_rows: int
) -> tuple[float, float, int, int]:
    """Deliveries a second from the first to the last, seconds from the insert to the first, attempts at the dead one
    that ended or are under way, and how many its breaker allows in that time."""
    await conn.execute("truncate jobs, job_history, job_holds, job_attempts, webhook_deliveries")
    async with daemon(place, CONCURRENCY, **SETTINGS) as process:
        began, cpu = time.monotonic(), cpu_s(process)
        await conn.execute(INSERT, dead, dead_rows)
        await conn.execute(INSERT, url, rows)
        inserted = time.monotonic()
        while not await conn.fetchval("select exists (select from webhook_deliveries where url = $1)", url):
            await asyncio.sleep(0.02)
        first_s = time.monotonic() - inserted
        per_s = await rate(conn, url, rows)
        attempts = await conn.fetchval("select count(*) from webhook_deliveries where url = $1", dead)
        attempts += await conn.fetchval("select count(*) from jobs where state = 'running'")
        parked = await conn.fetchval("select count(*) from jobs where gate like 'lane:%'")
        print(f"     {parked:,} rows at its gate; {(cpu_s(process) - cpu):.1f} s of the daemon's CPU")
    return per_s, first_s, attempts, budget(LaneSettings(), time.monotonic() - began)


async def rate(conn: asyncpg.Connection, url: str, rows: int) -> float:
    """By the log's own times, between a tenth of the deliveries and the last."""
    while await conn.fetchval("select count(*) from webhook_deliveries where url = $1", url) < rows:
        await asyncio.sleep(0.25)
    seconds = await conn.fetchval(
        """select date_part('epoch', max(ended_at) - min(ended_at)) from (
               select ended_at from webhook_deliveries where url = $1 order by ended_at offset $2) as most""",
        url,
        rows // 10,
    )
    return (rows - rows // 10) / float(seconds)


@asynccontextmanager
async def sink(address: str, mood: str) -> AsyncIterator[str]:
    """A process that answers every POST with 204, or nothing at all; its URL."""
    process = subprocess.Popen([sys.executable, "-c", SINK, address, mood], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(await asyncio.to_thread(process.stdout.readline))
        yield f"http://{address}:{port}/"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
