"""W5: signed webhooks from the insert to the delivery log, beside a bare loop of the same client in the same run.

`python -m benchmarks.webhooks [ROWS] [ROUNDS]`

Rows are inserted while they are delivered: as events, each for the two endpoints that want it, and as rows that name
an endpoint and bring the payload.  The clock runs from before the first insert until the last row is in the history.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass, field

import asyncpg
import uvloop

from benchmarks.bare_posts import BODY, CONCURRENCY, SECRET
from benchmarks.lab import Lab, cpu_s, daemon, lab, median, ratio, until_empty, verdict
from benchmarks.sink import Sunk, sink

ENDPOINTS = 4
FAN_OUT = 2
CHUNK = 500
"""Deliveries that one transaction of the producer asks for."""

SETTINGS = {
    "JOBSD_WEBHOOK__ALLOW_HTTP": "true",
    "JOBSD_WEBHOOK__ALLOW_ADDRESSES": "127.0.0.0/8",
    "JOBSD_WEBHOOK__ALLOW_PORTS": "1-65535",
}
EMPTY = "truncate jobs, job_claims, job_history, job_attempts, webhook_deliveries, webhook_events"
ENDPOINT = """
with made as (
    insert into webhook_endpoints (name, url, events)
    select 'shop-' || n, $1 || n, array['order.' || n / $3::int] from generate_series(0, $2 - 1) as n returning id
)
insert into webhook_secrets (endpoint_id, secret) select id, $4 from made"""
EVENTS = """
insert into webhook_events (event, payload)
select 'order.' || n % $3::int, $1::text::json from generate_series(1, $2 / $4::int) as n"""
ROWS = """
insert into jobs (kind, args)
select 'webhook', jsonb_build_object('endpoint', ($3::bigint[])[1 + n % cardinality($3::bigint[])],
                                     'payload', $1::text::jsonb)
from generate_series(1, $2) as n"""


@dataclass(slots=True)
class Seen:
    """Of each round: deliveries a second, and what one costs whom (µs of CPU)."""

    per_s: list[float] = field(default_factory=list)
    daemon_us: list[float] = field(default_factory=list)
    server_us: list[float] = field(default_factory=list)
    sink_us: list[float] = field(default_factory=list)

    def told(self, name: str) -> None:
        print(
            f"     {name}: {median(self.per_s):,.0f}/s; a delivery costs the daemon {median(self.daemon_us):.0f} µs of "
            f"CPU, Postgres {median(self.server_us):.0f} and the receiver {median(self.sink_us):.0f}"
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """One daemon, one receiver, and the endpoints there."""

    place: Lab
    conn: asyncpg.Connection
    process: subprocess.Popen[bytes]
    at: Sunk
    endpoints: list[int]

    async def deliver(self, insert: str, rows: int, seen: Seen) -> None:
        """`rows` deliveries, from before their insert until all is written down."""
        already = await self.at.seen()
        cpu = [cpu_s(self.process), self.place.server_cpu_s(), cpu_s(self.at.process)]
        began = time.perf_counter()
        for _ in range(rows // CHUNK):
            await self.insert(insert, CHUNK)
        await self.at.until_seen(already + rows)
        await until_empty(self.conn, 0.005)
        seconds = time.perf_counter() - began
        spent = [cpu_s(self.process), self.place.server_cpu_s(), cpu_s(self.at.process)]
        seen.per_s.append(rows / seconds)
        for figures, after, before in zip((seen.daemon_us, seen.server_us, seen.sink_us), spent, cpu, strict=True):
            figures.append((after - before) / rows * 1e6)
        logged = await self.conn.fetchval("select count(*) from webhook_deliveries where status = 204")
        assert logged == await self.at.seen(), f"{logged} attempts logged"
        assert logged == await self.conn.fetchval("select count(*) from job_history where state = 'done'")

    async def insert(self, statement: str, deliveries: int) -> None:
        if statement is ROWS:
            await self.conn.execute(statement, BODY, deliveries, self.endpoints)
        else:
            await self.conn.execute(statement, BODY, deliveries, ENDPOINTS // FAN_OUT, FAN_OUT)


async def main(rows: int = 30_000, rounds: int = 3) -> bool:
    rows = max(CHUNK, rows // CHUNK * CHUNK)
    bare, bare_us, events, plain = list[float](), list[float](), Seen(), Seen()
    async with lab() as place:
        conn = await asyncpg.connect(place.dsn)
        for _ in range(rounds):
            async with sink() as at:
                seconds, cpu = await bare_posts(at.url(), rows)
            bare.append(rows / seconds)
            bare_us.append(cpu / rows * 1e6)
            for insert, seen in ((EVENTS, events), (ROWS, plain)):
                await one_round(place, conn, insert, rows, seen)
        await conn.close()
    print(f"W5, {rows:,} deliveries of {len(BODY)} bytes, {rounds} rounds, medians; concurrency {CONCURRENCY}")
    print(f"     a bare loop of the same client: {median(bare):,.0f}/s at {median(bare_us):.0f} µs of CPU")
    events.told(f"events with {FAN_OUT} endpoints each")
    plain.told("rows with an endpoint")
    return all(
        [
            verdict("W5 signed deliveries, logged", median(events.per_s), "/s", 5_000, at_least=True),
            verdict("W5 to the bare client", ratio(median(events.per_s), median(bare)), "×", 0.5, at_least=True),
        ]
    )


async def one_round(place: Lab, conn: asyncpg.Connection, insert: str, rows: int, seen: Seen) -> None:
    """A daemon and a receiver of its own, which have seen some before."""
    await conn.execute(EMPTY)
    await conn.execute("vacuum analyze jobs")
    await conn.execute("checkpoint")
    async with sink() as at, daemon(place, CONCURRENCY, **SETTINGS) as process:
        await conn.execute("delete from webhook_endpoints")
        await conn.execute(ENDPOINT, at.url(), ENDPOINTS, FAN_OUT, SECRET)
        endpoints = await conn.fetchval("select array_agg(id) from webhook_endpoints")
        on = Bench(place, conn, process, at, endpoints)
        await on.deliver(insert, max(CHUNK, rows // 10), Seen())
        await on.deliver(insert, rows, seen)


async def bare_posts(url: str, posts: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU."""
    loop = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bare_posts", url, str(posts)), stdout=subprocess.PIPE
    )
    out, _ = await loop.communicate()
    seconds, cpu = map(float, out.split())
    return seconds, cpu


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
