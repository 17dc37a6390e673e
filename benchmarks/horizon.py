"""W4: what a transaction that stays open costs, since no dead row can be removed behind it.

Rows come at a steady rate while another session holds a snapshot, then while one holds an open writing transaction,
and once, for comparison, while nobody holds anything.

`python -m benchmarks.horizon [SECONDS] [ROWS_PER_SECOND]`
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic, time

import asyncpg
import uvloop

from benchmarks.lab import Lab, cpu_s, daemon, lab, percentile, ratio, verdict

TICK_S = 0.02
HOLDS: dict[str, Sequence[str]] = {
    "nothing held": (),
    "a snapshot held": ("begin isolation level repeatable read", "select count(*) from job_workers"),
    "an open writer": ("begin", "insert into bench_scratch values (1)"),
}
INSERT = """insert into jobs (kind, args) select 'bench_clock', jsonb_build_object('sent', $1::float8)
            from generate_series(1, $2::int)"""
PICKED = """select (result #>> '{}')::float8 - (args ->> 'sent')::float8 as s from job_history
            where state = 'done' and (args ->> 'sent')::float8 between $1 and $2"""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one hold: pick-up in ms in the first and the last part, and CPU of server and daemon a row in µs."""

    first: list[float]
    last: list[float]
    late: int  # rows of the last part that were not done when it ended
    first_us: float
    last_us: float


async def main(seconds: int = 300, rate: int = 1_000, *, holds: Iterable[str] = HOLDS) -> bool:
    part_s = min(60.0, seconds / 3)
    print(f"W4, {rate:,} rows/s for {seconds} s; pick-up in the first and the last {part_s:g} s")
    fine = []
    for name in holds:
        async with lab() as place:
            run = await held(place, HOLDS[name], seconds, rate, part_s)
        first, last = percentile(run.first, 0.99), percentile(run.last, 0.99)
        print(f"     {name}: p50 {percentile(run.first, 0.5):.2f} -> {percentile(run.last, 0.5):.2f} ms,", end=" ")
        print(f"p99 {first:.2f} -> {last:.2f} ms, CPU {run.first_us:.0f} -> {run.last_us:.0f} µs a row")
        wanted = rate * part_s
        fine += [
            verdict(f"W4 {name}: rate kept", (len(run.last) - run.late) / wanted * 100, "%", 99, at_least=True),
            verdict(f"W4 {name}: p99 last / first", ratio(last, first), "", 1.5, at_least=False),
        ]
    return all(fine)


async def held(place: Lab, statements: Sequence[str], seconds: int, rate: int, part_s: float) -> Run:
    conn, other = await asyncpg.connect(place.dsn), await asyncpg.connect(place.dsn)
    await conn.execute("create table bench_scratch (n int)")
    async with daemon(place, concurrency=200) as process, _holding(other, statements):
        began = time()

        def cpu() -> float:
            return place.server_cpu_s() + cpu_s(process)

        marks = [cpu()]
        for end_s in (part_s, seconds - part_s, seconds):
            await feed(conn, rate, began, end_s)
            marks.append(cpu())
        await asyncio.sleep(0.5)
        late = await conn.fetchval("select count(*) from jobs")
        while await conn.fetchval("select exists (select from jobs)"):
            await asyncio.sleep(0.1)
        first = await conn.fetch(PICKED, began, began + part_s)
        last = await conn.fetch(PICKED, began + seconds - part_s, began + seconds)
    await other.close()
    await conn.close()
    rows = rate * part_s
    return Run(
        [row["s"] * 1000 for row in first],
        [row["s"] * 1000 for row in last],
        late,
        (marks[1] - marks[0]) / rows * 1e6,
        (marks[3] - marks[2]) / rows * 1e6,
    )


async def feed(conn: asyncpg.Connection, rate: int, began: float, until_s: float) -> None:
    """Rows in step with the clock, a few in each commit; one that comes late is made up for."""
    zero = monotonic() - (time() - began)
    sent = int((monotonic() - zero) * rate)
    while (at := monotonic() - zero) < until_s:
        due = int(min(at, until_s) * rate)
        if due > sent:
            await conn.execute(INSERT, time(), due - sent)
            sent = due
        await asyncio.sleep(TICK_S)
    if (rest := int(until_s * rate) - sent) > 0:
        await conn.execute(INSERT, time(), rest)


@asynccontextmanager
async def _holding(conn: asyncpg.Connection, statements: Sequence[str]) -> AsyncIterator[None]:
    for statement in statements:
        await conn.execute(statement)
    try:
        yield
    finally:
        if statements:
            await conn.execute("rollback")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
