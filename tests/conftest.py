"""What every test may ask for: a real PostgreSQL server, and a database of its own, migrated."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from daemon.embedded import Embedded
from daemon.migrate import migrate
from tests import known_types
from tests.examples import examples

_TEMPLATE = "migrated"
_ENOUGH_MEMORY_BYTES = 1 << 30
_PATIENCE_S = 180.0
_numbers = itertools.count()

# Nothing here outlives the run, so nothing is made durable.  jobsd asks one server for many small databases.
_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "max_connections": "300",
    "max_wal_size": "256MB",
}


# How long an example takes says how busy the machine is, and nothing about the property.
settings.register_profile(
    "jobsd", deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("jobsd")

known_types.remember()

gc.disable()  # until the tests are collected: there is nothing to find among five thousand of them


def pytest_collection_finish() -> None:
    """Nor later: they live as long as the process."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """One process runs the whole of a file, in its order: what a module's tests share is made once, and not by each.
    Files come in the order of their folders, so that those which wait long (faults, life) are not all left for the end.
    """
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that the server's account can enter too (pytest's own are closed to others); in memory where there
    is enough: cloning a database takes half the time."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ENOUGH_MEMORY_BYTES
    folder = Path(tempfile.mkdtemp(prefix="jobsd-test-", dir=memory if roomy else None))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def embedded_server(server_folder: Path) -> AsyncIterator[Embedded]:
    """The session's own server (each xdist worker has one: it starts in 0.6 s, and tests may restart it).

    JOBSD_TEST_PG: 18 (the default) or 16 from the wheel, or the `bin` folder of any other installation.
    """
    wanted = os.environ.get("JOBSD_TEST_PG", "18")
    if wanted.isdigit():
        server = Embedded(server_folder / "postgres", version=int(wanted), settings=_FAST, timeout_s=_PATIENCE_S)
    else:
        server = Embedded(server_folder / "postgres", bin_dir=Path(wanted), settings=_FAST, timeout_s=_PATIENCE_S)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()  # fast, not immediate: that would leave its shared memory behind


@pytest.fixture(scope="session")
async def admin(embedded_server: Embedded) -> AsyncIterator[asyncpg.Connection]:
    """Makes and drops databases: one connection, since a new one takes half as long as the database itself."""
    conn = await asyncpg.connect(embedded_server.dsn("postgres"))
    yield conn
    await conn.close()


@pytest.fixture(scope="session")
async def template(embedded_server: Embedded, admin: asyncpg.Connection) -> str:
    """The name of a migrated database that nobody is connected to, for cloning."""
    await admin.execute(f"create database {_TEMPLATE}")
    await migrate(embedded_server.dsn(_TEMPLATE))
    conn = await asyncpg.connect(embedded_server.dsn(_TEMPLATE))
    await known_types.learn(conn)
    known_types.OfAClone.below = 1 + await conn.fetchval("select max(oid)::bigint from pg_type")
    await conn.close()
    return _TEMPLATE


@pytest.fixture
async def database(embedded_server: Embedded, admin: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The DSN of a fresh migrated database, dropped afterwards with whatever is still connected."""
    name = f"test_{next(_numbers)}"
    # file_copy 9 ms, wal_log 20 ms (measured); 14 knows only the first and not the word
    strategy = " strategy file_copy" if embedded_server.version >= 15 else ""
    await admin.execute(f"create database {name} template {template}{strategy}")
    yield embedded_server.dsn(name)
    await admin.execute(f"drop database {name} with (force)")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    """A small pool on the test's database."""
    async with asyncpg.create_pool(database, min_size=1, max_size=10, connection_class=known_types.OfAClone) as pool:
        yield pool
