"""W11 and the numbers: what retention costs beside the work, and how good and how dear the counts are.

`python -m benchmarks.history [ROWS]`
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from time import perf_counter

import asyncpg
import uvloop

from benchmarks.lab import PAYLOAD, Lab, lab, median, percentile, verdict
from daemon import counts, retention
from daemon.config import parse
from daemon.log import Logger
from daemon.observe import Observer
from daemon.retention import Retention
from daemon.upkeep_store import UpkeepStore

RULES = "[queues.fast]\nkeep_done = '1h'"
FINISHED = """
insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes, finished_at)
select n, 'noop', $1::text::jsonb, case n % 2 when 0 then 'fast' else 'kept' end, 2, now(), now(), 'done', 1, 0,
       (date_trunc('day', now() at time zone 'UTC') - interval '12 h') at time zone 'UTC' + n * interval '1 ms'
from generate_series(1, $2::int) as n"""
YESTERDAY = """
do $$ declare day date := (now() at time zone 'UTC')::date - 1; begin
    execute format('create table %I partition of job_history for values from (%L) to (%L)',
                   'job_history_' || to_char(day, 'YYYYMMDD'), day || ' 00:00+00', day + 1 || ' 00:00+00');
end $$"""
# a tenth of the rows in a queue of their own, inserted at once, so that they lie together: the worst case for a sample
READY = """
insert into jobs (kind, args, queue) select 'noop', $1::text::jsonb, case when n % $2::int < $2::int / 10 then 'tenth'
    else 'rest' end from generate_series(1, $2::int) as n"""
TRIES = 40


async def main(rows: int = 1_000_000) -> bool:
    async with lab() as place:
        conn = await asyncpg.connect(place.dsn)
        held = await sweep(place, conn, rows)
        held &= await numbers(conn, rows)
        await conn.close()
    return held


async def sweep(place: Lab, conn: asyncpg.Connection, rows: int) -> bool:
    """Half of a day's rows are to go, the other half stays."""
    await conn.execute(YESTERDAY)
    await conn.execute(FINISHED, PAYLOAD, rows)
    await conn.execute("checkpoint")
    steps: list[float] = []
    some = Retention._sweep_some

    async def timed(self: Retention, *args: object) -> tuple[int, bool]:
        started = perf_counter()
        answer: tuple[int, bool] = await some(self, *args)  # type: ignore[arg-type]
        steps.append((perf_counter() - started) * 1000)
        return answer

    Retention._sweep_some = timed  # type: ignore[method-assign,assignment]
    retention.SWEEP_S = 3600.0
    with Path(os.devnull).open("wb") as nowhere:  # noqa: ASYNC230  a device
        log = Logger(nowhere)
        async with asyncpg.create_pool(place.dsn, min_size=1, max_size=2) as pool:
            upkeep = Retention(UpkeepStore(pool), Observer(log), lambda: parse(RULES))
            cpu, started = place.server_cpu_s(), perf_counter()
            await upkeep.sweep()
            seconds, cpu = perf_counter() - started, place.server_cpu_s() - cpu
            again = perf_counter()
            await upkeep.sweep()
            again_ms = (perf_counter() - again) * 1000
        log.close()
    assert await conn.fetchval("select count(*) from job_history") == rows - rows // 2
    print(f"retention: {rows // 2:,} of {rows:,} rows deleted in {seconds:.1f} s, {cpu / (rows // 2) * 1e6:.1f} µs of")
    print(f"     server CPU a row; a step takes {median(steps):.1f} ms (median); the next sweep {again_ms:.1f} ms")
    return verdict("p99 of a sweep's transactions", percentile(steps, 0.99), "ms", 50, at_least=False)


async def numbers(conn: asyncpg.Connection, rows: int) -> bool:
    """What `jobsd stats` and the gauges cost, and how far off they are."""
    await conn.execute(READY, PAYLOAD, rows)
    took, off = [], []
    for _ in range(TRIES):
        started = perf_counter()
        survey = await counts.take(conn)
        took.append((perf_counter() - started) * 1000)
        off.append(abs(survey.queues["tenth"].ready.n / (rows / 10) - 1) * 100)
    print(f"counts of {rows:,} ready rows: {median(took):.1f} ms; the estimate of a tenth that lies together is")
    print(f"     {median(off):.1f} % off in the middle and {max(off):.1f} % at worst")
    return verdict("counts, median", median(took), "ms", 50, at_least=False)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
