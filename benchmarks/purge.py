"""What `purge` costs beside inserts, and beside a bare loop of DELETE statements on the same data in the same run.

`python -m benchmarks.purge [ROWS] [INSERTS A SECOND]`: a tenth of the rows go.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import asyncpg
import uvloop

from benchmarks.lab import lab, median, percentile, ratio, verdict
from daemon.config import parse
from daemon.log import Logger
from daemon.observe import Observer
from jobs.catalogue.kinds import kinds
from jobs.catalogue.pages import Pages
from jobs.catalogue.verb import Bounds
from jobs.context import Context
from jobs.model import Done, Job

TABLE = """
create table {name} (
    id bigint generated always as identity primary key, quarantined_at timestamptz not null, sender text not null,
    recipient text not null, subject text not null, size_bytes bigint not null
)"""
# as such a table is filled: in the order of time, but for a few
FILL = """
insert into {name} (quarantined_at, sender, recipient, subject, size_bytes)
select now() - interval '30 days' + (n - $2::bigint / 10) * (interval '30 days' / ($2::bigint * 9 / 10))
           - case when n % 100 = 0 then interval '1 h' else interval '0' end,
       'sender' || n % 10007 || '@spam.example', 'alias' || n % 997 || '@mail.example', 'You have won ' || n, n % 100000
from generate_series($1::bigint, least($1::bigint + 499999, $2::bigint)) as n"""
INSERT = """
insert into {name} (quarantined_at, sender, recipient, subject, size_bytes)
values (now(), 'somebody@spam.example', 'alias@mail.example', 'And you', 4711)"""
BARE = """
delete from {name} where id in (select id from {name} where quarantined_at < $1 order by quarantined_at limit 1000)"""
CONFIG = """
[jobs.spam]
verb = "purge"
table = "{name}"
age_column = "quarantined_at"
retention = "30d"
"""
PAGE = resource.getpagesize()


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


@asynccontextmanager
async def inserting(pool: asyncpg.Pool, name: str, per_second: int) -> AsyncIterator[list[float]]:
    """How long each insert waited, in milliseconds, from the moment at which it was due."""
    waits: list[float] = []
    over = asyncio.Event()

    async def one(due: float) -> None:
        await pool.execute(INSERT.format(name=name))
        waits.append((perf_counter() - due) * 1000)

    async def go() -> None:
        started, sent = perf_counter(), 0
        async with asyncio.TaskGroup() as inserts:
            while not over.is_set():
                while sent < (perf_counter() - started) * per_second:
                    inserts.create_task(one(started + sent / per_second))
                    sent += 1
                await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        group.create_task(go())
        try:
            yield waits
        finally:
            over.set()


async def bare(pool: asyncpg.Pool, name: str) -> tuple[float, int]:
    """Seconds and rows of the loop that everybody writes first."""
    deleted, started = 0, perf_counter()
    async with pool.acquire() as conn:
        before = await conn.fetchval("select now() - interval '30 days'")
        while count := int((await conn.execute(BARE.format(name=name), before)).rpartition(" ")[2]):
            deleted += count
    return perf_counter() - started, deleted


async def purged(pool: asyncpg.Pool, name: str) -> tuple[float, int, list[float]]:
    """Seconds and rows of the verb, and the milliseconds of each of its transactions."""
    took: list[float] = []
    ask = Pages._ask

    async def timed(self: Pages, *args: Any) -> Any:
        began = perf_counter()
        answer = await ask(self, *args)
        took.append((perf_counter() - began) * 1000)
        return answer

    async def progress(percent: float, **_: Any) -> None:
        return None

    Pages._ask = timed  # type: ignore[method-assign,assignment]
    with Path(os.devnull).open("wb") as nowhere:  # noqa: ASYNC230  a device
        log = Logger(nowhere)
        kind = kinds(parse(CONFIG.format(name=name)).jobs)["spam"]
        job = Job(1, 1, "spam", "cleanup", 4, 1, "{}", 0.0)
        tools: Any = SimpleNamespace(db=pool)
        context = Context(job, tools, Observer(log).log_for(job), progress)
        started = perf_counter()
        said = await kind.handler(Bounds(), context)
        seconds = perf_counter() - started
        log.close()
    Pages._ask = ask  # type: ignore[method-assign]
    assert isinstance(said, Done), said
    return seconds, said.result["deleted"], took


async def main(rows: int = 10_000_000, per_second: int = 500) -> bool:
    async with lab() as place, asyncpg.create_pool(place.dsn, min_size=4, max_size=20) as pool:
        for name in ("one", "other"):
            await pool.execute(TABLE.format(name=name))
            for first in range(1, rows + 1, 500_000):
                await pool.execute(FILL.format(name=name), first, rows)
            await pool.execute(f"create index on {name} (quarantined_at, id)")
            await pool.execute(f"analyze {name}")
        await pool.execute("checkpoint")
        async with inserting(pool, "one", per_second) as waits:
            bare_s, bare_rows = await bare(pool, "one")
        print(f"purge: a bare loop deletes {bare_rows:,} of {rows:,} rows in {bare_s:.1f} s; of {len(waits):,} inserts")
        print(f"     beside it the slowest waits {max(waits, default=0):.0f} ms, p99 {percentile(waits, 0.99):.1f} ms")
        await pool.execute("checkpoint")
        memory = resident_mib()
        async with inserting(pool, "other", per_second) as waits:
            seconds, deleted, took = await purged(pool, "other")
        grown = resident_mib() - memory
        print(
            f"     purge deletes {deleted:,} in {seconds:.1f} s, {len(took):,} transactions of {median(took):.0f} ms;"
        )
        print(f"     of {len(waits):,} inserts beside it p99 is {percentile(waits, 0.99):.1f} ms")
        assert abs(deleted - bare_rows) <= rows / 1000, "rows grow old while the other table is purged"
    held = verdict("time beside a bare loop", ratio(seconds, bare_s), "×", 3, at_least=False)
    held &= verdict("the slowest insert beside a purge", max(waits, default=0.0), "ms", 50, at_least=False)
    held &= verdict("the longest transaction of a purge", max(took, default=0.0), "ms", 200, at_least=False)
    return verdict("memory grows by", grown, "MiB", 30, at_least=False) and held


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
