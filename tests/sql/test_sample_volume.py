"""What the sample's jobs read and keep in memory when there is five times as much: counted in rows and bytes, not in seconds."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
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
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from tests.sql.sampled import sampled

JOBS = parse(sql.text("reference/jobs.toml")).jobs
SIZES = (2_000, 10_000)
LINKED = StorageSettings(public_url="https://shop.example", link_secrets=("a secret that is long enough",))  # type: ignore[arg-type]
READ = """
select pg_stat_force_next_flush(), pg_stat_clear_snapshot();
"""
COUNTED = """
select coalesce((select sum(seq_tup_read) from pg_stat_user_tables where schemaname = 'app' or relname = any ($1)), 0)::bigint
     + coalesce((select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = 'app' or relname = any ($1)), 0)::bigint
"""
OURS = ["domains", "email_forwards"]
"""Tables of jobsd that some of the jobs read."""


class Application:
    """A sample, and its jobs run on the one connection that there is."""

    def __init__(self, pool: asyncpg.Pool, storage: Path, log: Logger) -> None:
        self._pool = pool
        self._tools: Any = SimpleNamespace(db=pool, storage=Storage(LINKED, storage, Secrets(())))
        self._log = log
        self._kinds = kinds(JOBS)

    async def run(self, name: str) -> int:
        """How many rows it read, of tables and of indexes."""

        async def progress(percent: float, **_: Any) -> None:
            return None

        job = Job(1, 1, name, "cleanup", 4, 1, "{}", 0.0)
        before = await self._read()
        kind = self._kinds[name]
        said = await kind.handler(
            kind.decode("{}"), Context(job, self._tools, Observer(self._log).log_for(job), progress)
        )
        assert isinstance(said, Done), (name, said)
        return await self._read() - before

    async def _read(self) -> int:
        async with self._pool.acquire() as conn:
            await conn.execute(READ)
            found: int = await conn.fetchval(COUNTED, OURS)
            return found


@asynccontextmanager
async def application(server: Embedded, template: str, size: int, folder: Path) -> AsyncIterator[Application]:
    name = f"volume_{size}"
    async with (
        sampled(server, template, name, Filling(size)) as conn,
        asyncpg.create_pool(server.dsn(name), min_size=1, max_size=1) as pool,
    ):
        with Path(os.devnull).open("wb") as nowhere:
            log = Logger(nowhere)
            yield Application(pool, folder / name, log)
            await conn.execute("select 1")
            log.close()


@pytest.fixture(scope="module")
async def measured(
    embedded_server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """By job and size: rows that the first run read and that one with nothing to do did, and the first one's memory."""
    found: dict[str, dict[int, tuple[int, int, int]]] = {name: {} for name in JOBS}
    for size in SIZES:
        async with application(embedded_server, template, size, tmp_path_factory.mktemp("storage")) as app:
            for name in JOBS:
                tracemalloc.start()
                first = await app.run(name)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                await app.run(name)
                found[name][size] = (first, await app.run(name), peak)
    return found


async def test_print(measured: Mapping[str, Any]) -> None:
    for name, sizes in measured.items():
        print(name, sizes)
