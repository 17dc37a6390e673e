"""Webhooks to a destination that is well, alone and beside a dead one with 100,000 rows that came first.

`python -m benchmarks.lanes [DEAD_ROWS] [ROWS] [ROUNDS]`

Each round is a daemon of its own: ROWS alone, then behind the dead rows while these are moved out of the way, then
once they are.  What is compared are medians of the rounds and of one more alone, so that a machine whose speed changes
meanwhile says little about the ratio.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import uvloop

from benchmarks.lab import Lab, cpu_s, daemon, lab, median, ratio, verdict
from benchmarks.sink import sink
from daemon.breaker import budget
from daemon.work_settings import LaneSettings

WELL, DEAD = "127.0.0.1", "127.0.0.2"
CONCURRENCY = 100
REFUSED = 2  # nobody listens there
NEVER_S = 86_400.0
EMPTY = "truncate jobs, job_history, job_holds, job_attempts, webhook_deliveries"
FORGET = "truncate job_history, job_attempts, webhook_deliveries"
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
    """Deliveries a second to the one that is well, and what each cost the daemon and Postgres."""

    per_s: float
    cpu_us: float


@dataclass(slots=True)
class Rounds:
    """What was measured, a figure each time."""

    alone: list[Drained] = field(default_factory=list)
    during: list[Drained] = field(default_factory=list)
    after: list[Drained] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    parked_per_s: list[float] = field(default_factory=list)
    attempts: list[tuple[int, int]] = field(default_factory=list)
    """At the dead one, and how many the breaker allows in that time."""


@dataclass(slots=True)
class Bench:
    """One daemon, and the destination that is well."""

    place: Lab
    conn: asyncpg.Connection
    process: subprocess.Popen[bytes]
    well: str
    elsewhere: int = 0
    """Deliveries to others whose log was emptied."""

    async def drain(self, rows: int) -> Drained:
        """From a tenth of the deliveries to the last, by the log's own times.

        The log begins empty each time: counting what earlier drains left in it would be charged to this one.
        """
        self.elsewhere = await self.to_others()
        await self.conn.execute(FORGET)
        began = await self.conn.fetchval("select clock_timestamp()")
        await self.conn.execute(INSERT, self.well, rows)
        await self.until_delivered(began, rows // 10)
        before, cpu = await self.delivered(began), cpu_s(self.process) + self.place.server_cpu_s()
        await self.until_delivered(began, rows)
        cpu_us = (cpu_s(self.process) + self.place.server_cpu_s() - cpu) / max(1, rows - before) * 1e6
        seconds = await self.conn.fetchval(
            """select date_part('epoch', max(ended_at) - min(ended_at)) from (
                   select ended_at from webhook_deliveries where url = $1 and ended_at >= $2
                   order by ended_at offset $3) as most""",
            self.well,
            began,
            rows // 10,
        )
        return Drained((rows - rows // 10) / max(0.001, float(seconds)), cpu_us)

    async def delivered(self, since: datetime) -> int:
        return int(
            await self.conn.fetchval(
                "select count(*) from webhook_deliveries where url = $1 and ended_at >= $2", self.well, since
            )
        )

    async def to_others(self) -> int:
        logged = await self.conn.fetchval("select count(*) from webhook_deliveries where url <> $1", self.well)
        return self.elsewhere + int(logged)

    async def until_delivered(self, since: datetime, rows: int) -> None:
        while await self.delivered(since) < rows:
            await asyncio.sleep(0.1)


async def main(dead_rows: int = 100_000, rows: int = 5_000, rounds: int = 3) -> bool:
    fine = True
    async with lab() as place, sink(WELL) as one, sink(DEAD, NEVER_S) as other:
        well, silent = one.url(WELL), other.url(DEAD)
        conn = await asyncpg.connect(place.dsn)
        print(f"{rows:,} webhooks, concurrency {CONCURRENCY}, beside {dead_rows:,} older ones to a dead destination")
        for name, dead in (("refuses", f"http://{DEAD}:{REFUSED}/"), ("is silent", silent)):
            seen = Rounds()
            for _ in range(rounds):
                async with bench(place, conn, well, rows) as on:
                    await one_round(on, dead, dead_rows, rows, seen)
            async with bench(place, conn, well, rows) as on:
                seen.alone.append(await on.drain(rows))
            fine &= told(name, seen)
        await conn.close()
    return fine


@asynccontextmanager
async def bench(place: Lab, conn: asyncpg.Connection, well: str, rows: int) -> AsyncIterator[Bench]:
    """A daemon that knows the one that is well."""
    await conn.execute(EMPTY)
    async with daemon(place, CONCURRENCY, **SETTINGS) as process:
        on = Bench(place, conn, process, well)
        await on.drain(max(10, rows // 10))
        yield on


async def one_round(on: Bench, dead: str, dead_rows: int, rows: int, seen: Rounds) -> None:
    seen.alone.append(await on.drain(rows))
    began = time.monotonic()
    await on.conn.execute(INSERT, dead, dead_rows)
    last_id = await on.conn.fetchval("select max(id) from jobs")
    inserted = time.monotonic()
    parking = asyncio.create_task(parked_at(on.place, last_id))
    since = await on.conn.fetchval("select clock_timestamp()")
    await on.conn.execute(INSERT, on.well, 1)
    while not await on.delivered(since):
        await asyncio.sleep(0.005)
    seen.first_s.append(time.monotonic() - inserted)
    while True:
        drained = await on.drain(rows)
        if parking.done() and seen.during:
            break
        seen.during.append(drained)
    seen.parked_per_s.append(dead_rows / max(0.001, await parking - inserted))
    seen.after.append(await on.drain(rows))
    attempts = await on.to_others()
    attempts += await on.conn.fetchval("select count(*) from jobs where state = 'running'")
    seen.attempts.append((attempts, budget(LaneSettings(), time.monotonic() - began)))


async def parked_at(place: Lab, last_id: int) -> float:
    """When the first row of the open queue was one that came after `last_id`, or none was there."""
    conn = await asyncpg.connect(place.dsn)
    while True:
        first = await conn.fetchval(
            """select id from jobs where queue = 'default' and gate = '' and priority = 2 and state = 'ready'
               order by run_at, id limit 1"""
        )
        if first is None or first > last_id:
            await conn.close()
            return time.monotonic()
        await asyncio.sleep(0.1)


def told(name: str, seen: Rounds) -> bool:
    alone, during, after = (each_median(each) for each in (seen.alone, seen.during, seen.after))
    print(
        f"     {name}: alone {alone.per_s:,.0f}/s at {alone.cpu_us:,.0f} µs; while its rows are moved, at a median of"
    )
    print(f"     {median(seen.parked_per_s):,.0f} rows/s, {during.per_s:,.0f}/s at {during.cpu_us:,.0f} µs;", end=" ")
    print(f"once they are, {after.per_s:,.0f}/s at {after.cpu_us:,.0f} µs")
    attempts, allowed = max(seen.attempts, key=lambda one: one[0] - one[1])
    during_rate, after_rate = ratio(during.per_s, alone.per_s), ratio(after.per_s, alone.per_s)
    return all(
        [
            verdict(f"first delivery behind one that {name}", median(seen.first_s), "s", 3, at_least=False),
            verdict(f"rate while rows of one that {name} move", during_rate, "×", 0.9, at_least=True),
            verdict(f"rate beside one that {name}, to alone", after_rate, "×", 0.9, at_least=True),
            verdict(
                f"CPU beside one that {name}, to alone", ratio(after.cpu_us, alone.cpu_us), "×", 1.1, at_least=False
            ),
            verdict(f"attempts at one that {name}", attempts, "", allowed, at_least=False),
        ]
    )


def each_median(drained: list[Drained]) -> Drained:
    return Drained(median([one.per_s for one in drained]), median([one.cpu_us for one in drained]))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
