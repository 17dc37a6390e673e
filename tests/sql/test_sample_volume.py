"""What the sample's jobs read, and keep in memory, when there is five times as much: counted, and not in seconds."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

import sql
from daemon.config import parse
from daemon.embedded import Embedded
from daemon.log import Logger
from daemon.observe import Observer
from daemon.sample import Filling
from jobs.catalogue.kinds import kinds
from jobs.context import Context
from jobs.model import Done, Job
from jobs.secrets import Secrets
from jobs.storage.storage import Storage
from tests.sql.sampled import sampled

LINKS = """
[storage]
public_url = "https://shop.example"
link_secrets = ["a secret that is long enough"]
"""
CONFIG = parse(sql.text("reference/jobs.toml") + LINKS)
NAMES = sorted(CONFIG.jobs, key=lambda name: not name.startswith("bandwidth"))  # whose sums others look at
SMALL, LARGE = 2_000, 10_000
UNDER_WAY = ("forward_retry", "destination_expiry", "overflow_hold_expiry", "audit_log_expiry")
"""Jobs that look again at what they have begun with, or shall keep for longer: much less than the table."""
WIDE = {
    "domain_sync": "compares all names with all domains",
    "usage_thresholds": "looks at every period that goes on",
    "message_expiry": "looks at what the shortest retention of any owner would let go",
    "bandwidth_weekly": "reads again what came within the last hour, which here is all",
}
NARROW = [name for name in NAMES if name not in UNDER_WAY and name not in WIDE]
READ = """
select (select sum(seq_tup_read)::bigint from pg_stat_user_tables where schemaname = 'app' or relname = any ($1))
     + (select sum(idx_tup_read)::bigint from pg_stat_user_indexes where schemaname = 'app' or relname = any ($1))"""
PAGES_BYTES = 400_000
"""A page has as many rows as take 100 ms, so it is larger where there are more; ten times a page is no table."""
OURS = ["domains", "email_forwards"]
"""Tables of jobsd that some of them read."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a run: rows that it read in tables and indexes, and the most that it had in memory."""

    read: int
    peak_bytes: int


async def _progress(percent: float, **_fields: Any) -> None:
    """Nobody looks."""


class Application:
    """A sample, and its jobs run on the one connection that there is."""

    def __init__(self, pool: asyncpg.Pool, folder: Path, log: Logger) -> None:
        self._pool = pool
        self._tools: Any = SimpleNamespace(db=pool, storage=Storage(CONFIG.storage, folder, Secrets(())))
        self._log = Observer(log)
        self._kinds = kinds(CONFIG.jobs)

    async def run(self, name: str) -> Cost:
        job = Job(1, 1, name, "cleanup", 4, 1, "{}", 0.0)
        kind, context = self._kinds[name], Context(job, self._tools, self._log.log_for(job), _progress)
        before = await self._read()
        tracemalloc.start()
        said = await kind.handler(kind.decode("{}"), context)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(said, Done), (name, said)
        return Cost(await self._read() - before, peak)

    async def vacuum(self) -> None:
        """What was deleted is in no index any more."""
        async with self._pool.acquire() as conn:
            await conn.execute("vacuum")

    async def _read(self) -> int:
        async with self._pool.acquire() as conn:
            await conn.execute("select pg_stat_force_next_flush()")
            found: int = await conn.fetchval(READ, OURS)
            return found


@asynccontextmanager
async def application(server: Embedded, template: str, size: int, folder: Path) -> AsyncIterator[Application]:
    name = f"volume_{size}"
    with (folder / "log").open("wb") as file:
        log = Logger(file)
        async with (
            sampled(server, template, name, Filling(size)),
            asyncpg.create_pool(server.dsn(name), min_size=1, max_size=1) as pool,
        ):
            yield Application(pool, folder, log)
        log.close()


Costs = Mapping[str, Mapping[int, tuple[Cost, Cost]]]
"""By job and size: of the first run, and of one that has nothing to do."""


@pytest.fixture(scope="module")
async def costs(embedded_server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Costs:
    found: dict[str, dict[int, tuple[Cost, Cost]]] = {name: {} for name in NAMES}
    for size in (SMALL, LARGE):
        async with application(embedded_server, template, size, tmp_path_factory.mktemp("sample")) as app:
            first = {name: await app.run(name) for name in NAMES}
            await app.vacuum()
            for name in NAMES:
                found[name][size] = (first[name], await app.run(name))
    return found


@pytest.mark.req("BJ-29")
@pytest.mark.parametrize("name", NARROW)
def test_a_run_that_has_nothing_to_do_reads_next_to_nothing(costs: Costs, name: str) -> None:
    for first, idle in costs[name].values():
        assert idle.read <= 10, f"{first.read} rows in the run before"


@pytest.mark.req("BJ-29")
@pytest.mark.parametrize("name", NAMES)
def test_five_times_the_rows_are_five_times_the_work(costs: Costs, name: str) -> None:
    """Not twenty-five times; what comes in lumps, as accounts do, may be a little more."""
    small, large = costs[name][SMALL][0], costs[name][LARGE][0]
    assert large.read <= 11 * small.read + 600


@pytest.mark.req("BJ-29")
@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_table(costs: Costs, name: str) -> None:
    small, large = costs[name][SMALL][0], costs[name][LARGE][0]
    assert large.peak_bytes <= small.peak_bytes + PAGES_BYTES
