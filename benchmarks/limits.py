"""Limits over a fleet: never exceeded in any window and used, over restarts; and what a fast limit costs Postgres.

`python -m benchmarks.limits [SECONDS] [RESTARTS] [FAST]`
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter, time

import asyncpg
import uvloop

from benchmarks.lab import Lab, daemon, lab, verdict
from benchmarks.windows import most_beyond, most_within

DAEMONS = 4
RATE, BURST = 10, 10
INSERT = "insert into jobs (kind) select 'bench_journal' from generate_series(1, $1)"
STATEMENTS = """select coalesce(sum(calls), 0) from pg_stat_user_functions
                where funcname in ('job_limits_lease', 'job_limits_return')"""
UPDATES = "select coalesce(sum(n_tup_upd), 0) from pg_stat_user_tables where relname = 'job_limits'"


class Fleet:
    """Daemons that can be ended and begun anew, under one limit."""

    def __init__(self, place: Lab, journal: Path, **limit: str) -> None:
        self._place = place
        self._env = {
            "BENCH_JOURNAL": str(journal),
            "JOBSD_DAEMON__LEASE": "5s",
            **{
                f"JOBSD_LIMITS__BENCH__{key.upper()}": value
                for key, value in {"kind": "bench_journal", **limit}.items()
            },
        }
        self._members: list[AsyncExitStack] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        stack = AsyncExitStack()
        self._processes.append(await stack.enter_async_context(daemon(self._place, 1000, **self._env)))
        self._members.append(stack)

    async def replace(self, number: int, *, kill: bool) -> None:
        process, stack = self._processes.pop(number), self._members.pop(number)
        if kill:
            process.kill()
        await stack.aclose()
        await self.start()

    async def stop(self) -> None:
        await asyncio.gather(*(stack.aclose() for stack in self._members))


async def main(seconds: float = 60, restarts: int = 10, fast: int = 5_000) -> bool:
    async with lab({"track_functions": "pl"}) as place:
        conn = await asyncpg.connect(place.dsn)
        fine = await windows(place, conn, seconds, restarts)
        fine = await cost(place, conn, min(10.0, seconds), fast) and fine
        await conn.close()
    return fine


async def windows(place: Lab, conn: asyncpg.Connection, seconds: float, restarts: int) -> bool:
    """Rows wait all the time; daemons are stopped and killed in turn; the handlers' first lines are what counts."""
    journal = place.folder / "windows"
    journal.touch()
    fleet = Fleet(place, journal, rate=f"{RATE}/s", burst=str(BURST))
    await conn.execute(INSERT, int((seconds + 20) * RATE * 3))
    for _ in range(DAEMONS):
        await fleet.start()
    await until_at_the_gate(conn)
    before, fences = await counted(conn), await fences_of(conn)
    began, dice = time(), random.Random(7)  # the same each time
    for n in range(restarts):
        await asyncio.sleep(max(0.0, began + (n + 0.5) * seconds / restarts - time()))
        await fleet.replace(dice.randrange(DAEMONS), kill=n % 2 == 0)
    await asyncio.sleep(max(0.0, began + seconds - time()))
    after, waiting = await counted(conn), await fences_of(conn)
    ended = time()
    await fleet.stop()
    notes = sorted((float(at), int(job), int(fence)) for at, job, fence in map(str.split, journal.open()))
    starts = [at for at, _job, _fence in notes]
    counted_starts = [at for at in starts if began <= at < ended]
    share = len(counted_starts) / (RATE * (ended - began))
    # each claim and each return is an update and takes the next fence
    last = {job: fence for at, job, fence in notes if began <= at < ended} | waiting
    updates = sum(fence - fences.get(job, 0) for job, fence in last.items()) / max(1, len(counted_starts))
    statements = (after[0] - before[0]) / (ended - began)
    print(
        f"limit of {RATE}/s, burst {BURST}, {DAEMONS} daemons, {ended - began:.0f} s, {restarts} restarts, every other"
    )
    print(f"     by kill -9: {len(counted_starts)} starts; {statements:.0f} statements a second about the limit by all")
    await conn.execute("truncate jobs, job_history")
    return all(
        (
            verdict("most starts in any second", most_within(starts, 1.0), "starts", RATE + BURST, at_least=False),
            verdict("most beyond the rate in any window", most_beyond(starts, RATE), "starts", BURST, at_least=False),
            verdict("share of the limit that was used", share * 100, "%", 95, at_least=True),
            verdict("updates of table jobs for each start", updates, "updates", 2, at_least=False),
        )
    )


async def cost(place: Lab, conn: asyncpg.Connection, seconds: float, fast: int) -> bool:
    """A fast limit, used up by two daemons."""
    fleet = Fleet(place, place.folder / "cost", rate=f"{fast}/s", burst=str(fast // 10))
    for _ in range(2):
        await fleet.start()
    await conn.execute(INSERT, int(fast * (seconds + 20)))
    await until_at_the_gate(conn)
    before, rows_before, began = await counted(conn), await ended_rows(conn), perf_counter()
    await asyncio.sleep(seconds)
    after, rows_after = await counted(conn), await ended_rows(conn)
    took_s = perf_counter() - began
    await fleet.stop()
    print(f"limit of {fast:,}/s, 2 daemons: {(rows_after - rows_before) / took_s:,.0f} rows/s")
    return all(
        (
            verdict("statements about the limit", (after[0] - before[0]) / took_s, "/s", 100, at_least=False),
            verdict("updates of its row", (after[1] - before[1]) / took_s, "/s", 100, at_least=False),
        )
    )


async def until_at_the_gate(conn: asyncpg.Connection) -> None:
    """Rows are moved there once, when they are first claimed and cannot start."""
    while await conn.fetchval("select exists (select from jobs where gate = '')"):
        await asyncio.sleep(0.05)


async def fences_of(conn: asyncpg.Connection) -> dict[int, int]:
    return {row["id"]: row["fence"] for row in await conn.fetch("select id, fence from jobs")}


async def counted(conn: asyncpg.Connection) -> tuple[int, int]:
    """Calls of the limits' functions, and updates of the buckets, up to now."""
    await asyncio.sleep(1.1)  # backends report once a second
    await conn.execute("select pg_stat_clear_snapshot()")
    return int(await conn.fetchval(STATEMENTS)), int(await conn.fetchval(UPDATES))


async def ended_rows(conn: asyncpg.Connection) -> int:
    return int(await conn.fetchval("select count(*) from job_history"))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
