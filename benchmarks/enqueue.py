"""W2: what the table's triggers and checks cost a producer, against the same table without triggers, in one run.

`python -m benchmarks.enqueue [SINGLE_ROWS] [BULK_ROWS] [ROUNDS]`
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

import asyncpg
import uvloop

from benchmarks.lab import PAYLOAD, lab, median, ratio, verdict

ONE = "insert into jobs (kind, args) values ('bench_noop', $1::text::jsonb)"
BULK = "insert into jobs (kind, args) select 'bench_noop', $1::text::jsonb from generate_series(1, $2::int)"
CLIENTS = 16


async def main(single: int = 4_000, bulk: int = 200_000, rounds: int = 7) -> bool:
    shapes = ("1 client", f"{CLIENTS} clients", "bulk")
    rates: dict[tuple[str, str], list[float]] = {}
    server_us: dict[tuple[str, str], list[float]] = {}
    async with lab() as place:
        for number in range(rounds):
            tables = ("without triggers", "as shipped")
            for table in tables[:: 1 if number % 2 else -1]:  # neither always has the warmer cache
                await _prepare(place.dsn, table)
                for shape in shapes:
                    before, rows = place.server_cpu_s(), bulk if shape == "bulk" else single
                    rates.setdefault((shape, table), []).append(await _rate(place.dsn, shape, rows))
                    server_us.setdefault((shape, table), []).append((place.server_cpu_s() - before) / rows * 1e6)
    print(f"W2, medians of {rounds} rounds, rows/s: as shipped beside the same table without triggers")
    fine = []
    for shape in shapes:
        ours, bare = median(rates[shape, "as shipped"]), median(rates[shape, "without triggers"])
        cpu, bare_cpu = median(server_us[shape, "as shipped"]), median(server_us[shape, "without triggers"])
        print(f"     {shape}: {ours:,.0f} beside {bare:,.0f}; server {cpu:.1f} beside {bare_cpu:.1f} µs of CPU a row")
        fine.append(verdict(f"W2 {shape}, ratio", ratio(ours, bare), "", 0.9, at_least=True))
    return all(fine)


async def _prepare(dsn: str, table: str) -> None:
    conn = await asyncpg.connect(dsn)
    await conn.execute(f"alter table jobs {'disable' if table == 'without triggers' else 'enable'} trigger user")
    await conn.execute("truncate jobs; checkpoint")
    await conn.close()


async def _rate(dsn: str, shape: str, rows: int) -> float:
    if shape != "bulk":
        return await _singles(dsn, 1 if shape == "1 client" else CLIENTS, rows)
    conn = await asyncpg.connect(dsn)
    started = perf_counter()
    await conn.execute(BULK, PAYLOAD, rows)
    rate = rows / (perf_counter() - started)
    await conn.close()
    return rate


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
