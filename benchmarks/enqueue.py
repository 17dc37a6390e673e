"""W2: what the table's triggers cost a producer, against the same table without triggers, in one run.

`python -m benchmarks.enqueue [SINGLE_ROWS] [BULK_ROWS] [ROUNDS]`

The two tables take turns of some milliseconds, and each turn is compared with the other's beside it: what disturbs the
machine meanwhile disturbs both.  The CPU is that of the sessions themselves, exact to the microsecond.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import asyncpg
import uvloop

from benchmarks.lab import PAYLOAD, lab, median, ratio, verdict
from daemon.migrate import migrate

ONE = "insert into jobs (kind, args) values ('bench_noop', $1::text::jsonb)"
BULK = "insert into jobs (kind, args) select 'bench_noop', $1::text::jsonb from generate_series(1, $2::int)"
TRIGGERS = "select tgname from pg_trigger where tgrelid = 'jobs'::regclass and not tgisinternal"
CLIENTS = 16
TURN = 48
"""Rows of a turn of one client; each of many inserts a quarter of that."""

SHIPPED, BARE = "public", "bare"
"""Schemas: all as it is shipped, and without the triggers of table jobs."""


async def main(single: int = 10_000, bulk: int = 100_000, rounds: int = 9) -> bool:
    fine = []
    print("W2, rows/s by medians of turns, as shipped beside the same table without triggers; ratios turn by turn")
    async with lab() as place:
        await _bare(place.dsn)
        fine.append(await _compared(place.dsn, "1 client", 1, single // TURN, _singles, TURN))
        rows = CLIENTS * TURN // 4
        fine.append(await _compared(place.dsn, f"{CLIENTS} clients", CLIENTS, 2 * single // rows, _singles, rows))
        fine.append(await _compared(place.dsn, "bulk", 1, rounds, _bulk, bulk))
    return all(fine)


async def _bare(dsn: str) -> None:
    await migrate(dsn, BARE)
    conn = await _connect(dsn, BARE)
    for row in await conn.fetch(TRIGGERS):
        await conn.execute(f"drop trigger {row['tgname']} on jobs")
    await conn.close()


async def _connect(dsn: str, schema: str) -> asyncpg.Connection:
    conn: asyncpg.Connection = await asyncpg.connect(dsn, server_settings={"search_path": schema})
    return conn


Turn = Callable[[list[asyncpg.Connection], int], Awaitable[None]]


async def _compared(dsn: str, name: str, clients: int, turns: int, turn: Turn, rows: int) -> bool:
    rates: dict[str, list[float]] = {SHIPPED: [], BARE: []}
    conns = {schema: [await _connect(dsn, schema) for _ in range(clients)] for schema in rates}
    for schema in rates:
        await conns[schema][0].execute("truncate jobs; checkpoint")
        await turn(conns[schema], rows)  # statements are prepared, and functions compiled
    before = {schema: _cpu_us(conns[schema]) for schema in rates}
    for number in range(turns):
        for schema in list(rates)[:: 1 if number % 2 else -1]:  # neither always has the warmer cache
            started = perf_counter()
            await turn(conns[schema], rows)
            rates[schema].append(rows / (perf_counter() - started))
    cpu = {schema: (_cpu_us(conns[schema]) - before[schema]) / (turns * rows) for schema in rates}
    for conn in (*conns[SHIPPED], *conns[BARE]):
        await conn.close()
    print(
        f"     {name}: {median(rates[SHIPPED]):,.0f} beside {median(rates[BARE]):,.0f}, {turns} turns of {rows:,}; "
        f"server {cpu[SHIPPED]:.1f} beside {cpu[BARE]:.1f} µs of CPU a row"
    )
    ratios = [ratio(ours, bare) for ours, bare in zip(rates[SHIPPED], rates[BARE], strict=True)]
    return verdict(f"W2 {name}, ratio", median(ratios), "", 0.9, at_least=True)


def _cpu_us(conns: list[asyncpg.Connection]) -> float:
    """What these sessions' servers have used so far."""
    spent = [Path(f"/proc/{conn.get_server_pid()}/schedstat").read_text().split()[0] for conn in conns]
    return sum(int(nanoseconds) for nanoseconds in spent) / 1000


async def _singles(conns: list[asyncpg.Connection], rows: int) -> None:
    """Each client inserts one row after another, each in a transaction of its own."""

    async def client(conn: asyncpg.Connection) -> None:
        for _ in range(rows // len(conns)):
            await conn.execute(ONE, PAYLOAD)

    await asyncio.gather(*map(client, conns))


async def _bulk(conns: list[asyncpg.Connection], rows: int) -> None:
    await conns[0].execute(BULK, PAYLOAD, rows)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
