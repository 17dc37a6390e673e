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
from dataclasses import dataclass

import asyncpg
import uvloop

from benchmarks.lab import Lab, cpu_s, daemon, lab, median, ratio, verdict
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
EMPTY = "truncate jobs, job_history, job_holds, job_attempts, webhook_deliveries"
INSERT = """
insert into jobs (kind, args)
select 'webhook', jsonb_build_object('url', $1::text, 'payload', jsonb_build_object('n', n))
from generate_series(1, $2) as n"""
SETTINGS = {
    "JOBSD_WEBHOOK__ALLOW_HTTP": "true",
    "JOBSD_WEBHOOK__ALLOW_ADDRESSES": "127.0.0.0/8",
    "JOBSD_WEBHOOK__ALLOW_PORTS": "1-65535",
    "JOBSD_DAEMON__DRAIN_TIMEOUT": "0",
}


@dataclass(frozen=True, slots=True)
class Drained:
    """Deliveries a second to the one that is well, and what each cost the daemon and Postgres, once it runs."""

    per_s: float
    cpu_us: float


async def main(dead_rows: int = 100_000, rows: int = 30_000) -> bool:
    fine = True
    async with lab() as place, sink(WELL, "well") as well, sink(DEAD, "silent") as silent:
        conn = await asyncpg.connect(place.dsn)
        print(f"{rows:,} webhooks, concurrency {CONCURRENCY}, beside {dead_rows:,} older ones to a dead destination")
        alone = [await drain(place, conn, well, rows)]
        for name, dead in (("refuses", f"http://{DEAD}:{REFUSED}/"), ("is silent", silent)):
            fine &= await drain_beside(place, conn, well, rows, name, dead, dead_rows, alone)
        await conn.close()
    return fine


async def drain(place: Lab, conn: asyncpg.Connection, url: str, rows: int) -> Drained:
    await conn.execute(EMPTY)
    async with daemon(place, CONCURRENCY, **SETTINGS) as process:
        await conn.execute(INSERT, url, rows)
        return await measured(place, process, conn, url, rows)


async def drain_beside(
    place: Lab,
    conn: asyncpg.Connection,
    url: str,
    rows: int,
    name: str,
    dead: str,
    dead_rows: int,
    alone: list[Drained],
) -> bool:
    """The claims meet the rows of the dead one first.  Compared with the runs alone before and after it."""
    await conn.execute(EMPTY)
    async with daemon(place, CONCURRENCY, **SETTINGS) as process:
        began = time.monotonic()
        await conn.execute(INSERT, dead, dead_rows)
        await conn.execute(INSERT, url, rows)
        inserted = time.monotonic()
        while not await conn.fetchval("select exists (select from webhook_deliveries where url = $1)", url):
            await asyncio.sleep(0.02)
        first_s = time.monotonic() - inserted
        beside = await measured(place, process, conn, url, rows)
        attempts = await conn.fetchval("select count(*) from webhook_deliveries where url = $1", dead)
        attempts += await conn.fetchval("select count(*) from jobs where state = 'running'")
        parked = await conn.fetchval("select count(*) from jobs where gate like 'lane:%'")
        allowed = budget(LaneSettings(), time.monotonic() - began)
    alone.append(await drain(place, conn, url, rows))
    per_s, cpu_us = median([one.per_s for one in alone[-2:]]), median([one.cpu_us for one in alone[-2:]])
    print(f"     {name}: {parked:,} rows at its gate, the first delivery to the other after {first_s:.1f} s;")
    print(f"     then {beside.per_s:,.0f}/s at {beside.cpu_us:,.0f} µs, alone {per_s:,.0f}/s at {cpu_us:,.0f} µs")
    return all(
        [
            verdict(f"rate beside one that {name}, to alone", ratio(beside.per_s, per_s), "×", 0.9, at_least=True),
            verdict(f"CPU beside one that {name}, to alone", ratio(beside.cpu_us, cpu_us), "×", 1.1, at_least=False),
            verdict(f"attempts at one that {name}", attempts, "", allowed, at_least=False),
        ]
    )


async def measured(
    place: Lab, process: subprocess.Popen[bytes], conn: asyncpg.Connection, url: str, rows: int
) -> Drained:
    """From a tenth of the deliveries to the last, by the log's own times."""
    await until_delivered(conn, url, rows // 10)
    before, cpu = await delivered(conn, url), cpu_s(process) + place.server_cpu_s()
    await until_delivered(conn, url, rows)
    cpu_us = (cpu_s(process) + place.server_cpu_s() - cpu) / max(1, rows - before) * 1e6
    seconds = await conn.fetchval(
        """select date_part('epoch', max(ended_at) - min(ended_at)) from (
               select ended_at from webhook_deliveries where url = $1 order by ended_at offset $2) as most""",
        url,
        rows // 10,
    )
    return Drained((rows - rows // 10) / max(0.001, float(seconds)), cpu_us)


async def delivered(conn: asyncpg.Connection, url: str) -> int:
    return int(await conn.fetchval("select count(*) from webhook_deliveries where url = $1", url))


async def until_delivered(conn: asyncpg.Connection, url: str, rows: int) -> None:
    while await delivered(conn, url) < rows:
        await asyncio.sleep(0.25)


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
