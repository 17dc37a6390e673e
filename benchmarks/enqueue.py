"""W2: what the table's triggers and checks cost a producer, against the same table without triggers, in one run.

`python -m benchmarks.enqueue [SINGLE_ROWS] [BULK_ROWS] [ROUNDS]`
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

import asyncpg
import uvloop

from benchmarks.lab import PAYLOAD, lab, median, verdict

ONE = "insert into jobs (kind, args) values ('bench_noop', $1::text::jsonb)"
BULK = "insert into jobs (kind, args) select 'bench_noop', $1::text::jsonb from generate_series(1, $2::int)"
TRIGGERS = "jobs_hint, jobs_idempotency"
CLIENTS = 16


async def main(single: int = 4_000, bulk: int = 200_000, rounds: int = 3) -> bool:
    rates: dict[tuple[str, str], list[float]] = {}
    async with lab() as place:
        for _ in range(rounds):
            for table, switch in (("without triggers", "disable"), ("as shipped", "enable")):
                for name, rate in (await _round(place.dsn, switch, single, bulk)).items():
                    rates.setdefault((name, table), []).append(rate)
    print(f"W2, medians of {rounds} rounds, rows/s: as shipped beside the same table without triggers")
    fine = []
    for name in ("1 client", f"{CLIENTS} clients", "bulk"):
        ours, bare = median(rates[name, "as shipped"]), median(rates[name, "without triggers"])
        print(f"     {name}: {ours:,.0f} beside {bare:,.0f}")
        fine.append(verdict(f"W2 {name}, ratio", ours / bare, "", 0.9, at_least=True))
    return all(fine)


async def _round(dsn: str, switch: str, single: int, bulk: int) -> dict[str, float]:
    conn = await asyncpg.connect(dsn)
    for trigger in TRIGGERS.split(", "):
        await conn.execute(f"alter table jobs {switch} trigger {trigger}")
    await conn.execute("truncate jobs")
    rates = {"1 client": await _singles(dsn, 1, single), f"{CLIENTS} clients": await _singles(dsn, CLIENTS, single)}
    started = perf_counter()
    await conn.execute(BULK, PAYLOAD, bulk)
    rates["bulk"] = bulk / (perf_counter() - started)
    await conn.close()
    return rates


async def _singles(dsn: str, clients: int, rows: int) -> float:
    """Each client inserts one row after another, each in a transaction of its own."""
    async with asyncpg.create_pool(dsn, min_size=clients, max_size=clients) as pool:

        async def client() -> None:
            async with pool.acquire() as conn:
                statement = await conn.prepare(ONE)
                for _ in range(rows // clients):
                    await statement.fetch(PAYLOAD)

        started = perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return rows / (perf_counter() - started)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
