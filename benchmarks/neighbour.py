"""W7: what a quiet organisation notices of a noisy one, whether weights are kept, and what a claim costs when ten
thousand organisations wait.

`python -m benchmarks.neighbour [NOISY_ROWS] [SECONDS] [ORGANISATIONS]`
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from time import perf_counter, time

import asyncpg
import uvloop

from benchmarks.lab import Lab, daemon, lab, median, percentile, ratio, verdict
from daemon.database import ENGINE_PLANS
from daemon.shares import Shares
from daemon.store import Ask, Store
from daemon.worker_store import WorkerStore

EVERY_S = 0.1
SLOTS = 50
PAUSE_S = 0.02
BATCH = 100
NOISY = """insert into jobs (kind, args, org_id) select 'bench_pause', $1::text::jsonb, 'noisy'
           from generate_series(1, $2::int)"""
QUIET = "insert into jobs (kind, args, org_id) values ('bench_pause', $1::text::jsonb, 'quiet') returning id"
ARGS = f'{{"seconds": {PAUSE_S}}}'


async def main(noisy: int = 1_000_000, seconds: int = 30, organisations: int = 10_000) -> bool:
    async with lab() as place:
        conn = await asyncpg.connect(place.dsn)
        alone = await delays(place, conn, 0, seconds)
        beside = await delays(place, conn, noisy, seconds)
        share = await weighted(place, conn)
        claims = await claim_ms(place, conn, organisations)
        await conn.close()
    print(f"W7, {SLOTS} slots, jobs of {PAUSE_S * 1000:.0f} ms; quiet: a row every {EVERY_S} s for {seconds} s")
    print(f"     start delay alone: median {median(alone):.1f}, p99 {percentile(alone, 0.99):.1f} ms")
    print(f"     beside {noisy:,} rows: median {median(beside):.1f}, p99 {percentile(beside, 0.99):.1f} ms")
    print(f"     {organisations:,} organisations wait; a claim of {BATCH} rows: median {median(claims):.2f} ms")
    return all(
        (
            verdict(
                "W7 p99 beside / alone", ratio(percentile(beside, 0.99), percentile(alone, 0.99)), "", 2, at_least=False
            ),
            verdict("W7 p99 beside", percentile(beside, 0.99), "ms", 1000, at_least=False),
            verdict("W7 weights 1:3, error", abs(share - 0.75) / 0.75 * 100, "%", 5, at_least=False),
            verdict("W7 claim, p99", percentile(claims, 0.99), "ms", 10, at_least=False),
        )
    )


async def delays(place: Lab, conn: asyncpg.Connection, noisy: int, seconds: int) -> list[float]:
    """From before each quiet insert to its handler's first line, in ms."""
    await conn.execute("truncate jobs, job_claims, job_history")
    if noisy:
        await conn.execute(NOISY, ARGS, noisy, timeout=600)
        await conn.execute("vacuum analyze jobs")
        await conn.execute("checkpoint")
    sent: dict[int, float] = {}
    async with daemon(place, concurrency=SLOTS):
        await asyncio.sleep(2)
        for _ in range(int(seconds / EVERY_S)):
            before = time()
            sent[await conn.fetchval(QUIET, ARGS)] = before
            await asyncio.sleep(EVERY_S)
        while await conn.fetchval("select exists (select from jobs where org_id = 'quiet')"):
            await asyncio.sleep(0.05)
    rows = await conn.fetch("select id, result::text::float8 as at from job_history where org_id = 'quiet'")
    assert len(rows) == len(sent), f"{len(rows)} of {len(sent)} quiet rows ran"
    return [(row["at"] - sent[row["id"]]) * 1000 for row in rows]


async def weighted(place: Lab, conn: asyncpg.Connection) -> float:
    """The share of the organisation of weight 3 while both wait."""
    await conn.execute("truncate jobs, job_claims, job_history")
    await conn.execute("insert into job_orgs values ('one', 1), ('three', 3) on conflict do nothing")
    await conn.execute(
        """insert into jobs (kind, args, org_id) select 'bench_pause', '{"seconds": 0.005}', org
           from generate_series(1, 20000), (values ('one'), ('three')) as o (org)"""
    )
    await conn.execute("vacuum analyze jobs")
    async with daemon(place, concurrency=SLOTS):
        while await conn.fetchval("select count(*) from job_history") < 10_000:
            await asyncio.sleep(0.05)
    three: int = await conn.fetchval(
        """select count(*) from (select org_id from job_history order by started_at, id limit 8000) as first
           where org_id = 'three'"""
    )
    return three / 8000


async def claim_ms(place: Lab, conn: asyncpg.Connection, organisations: int) -> list[float]:
    """Claims of BATCH rows, fairly, out of ten rows of each organisation."""
    await conn.execute("truncate jobs, job_claims, job_history")
    await conn.execute(
        """insert into jobs (kind, args, org_id) select 'bench_pause', '{}', 'org-' || org
           from generate_series(1, 10) as n, generate_series(1, $1::int) as org""",
        organisations,
    )
    await conn.execute("vacuum analyze jobs")
    pool = await asyncpg.create_pool(place.dsn, min_size=1, max_size=1, server_settings=ENGINE_PLANS)
    store = Store(pool)
    worker_id = await WorkerStore(pool).register("bench", "0", ["bench_pause"], ["*"], 3600)
    shares = Shares()
    after = (0, "")
    while waiting := await store.waiting("default", "", after, 1000):
        shares.found(waiting)
        after = waiting[-1][:2]
    took = []
    for _ in range(min(300, organisations * 10 // BATCH // 2)):
        asks: Sequence[Ask] = shares.ask("default", "", BATCH, 0, lambda org_id: False, 0.0)
        started = perf_counter()
        rows = await store.claim(asks, worker_id, ["bench_pause"])
        took.append((perf_counter() - started) * 1000)
        assert len(rows) == BATCH
    await WorkerStore(pool).leave(worker_id)
    await pool.close()
    return took


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
