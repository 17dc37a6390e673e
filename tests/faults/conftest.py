"""Daemons, a network that can fail, and a server that may be restarted without taking other tests' databases along."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from daemon.embedded import DATABASE, Embedded
from daemon.migrate import migrate
from tests.faults.proxy import Proxy
from tests.life.fleet import PATIENCE_S, Fleet, fleet_on

_numbers = itertools.count()


@pytest.fixture
async def fleet(database: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_on(database, tmp_path) as fleet:
        yield fleet


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    """A way to the test's database that can be broken."""
    proxy = await Proxy(database).start()
    yield proxy
    await proxy.close()


@pytest.fixture(scope="session")
async def fragile_server() -> AsyncIterator[Embedded]:
    """A durable server for tests that restart it; they are in one file, so that there is one of it."""
    folder = Path(tempfile.mkdtemp(prefix="jobsd-faults-"))
    os.chmod(folder, 0o711)
    server = Embedded(
        folder / "postgres", settings={"max_connections": "100", "shared_buffers": "64MB"}, timeout_s=PATIENCE_S
    )
    await server.start()
    await migrate(server.dsn())  # what its databases are cloned from
    yield server
    await server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def fragile_database(fragile_server: Embedded) -> str:
    """The DSN of a new migrated database; it goes with its server."""
    name = f"faults_{next(_numbers)}"
    conn = await asyncpg.connect(fragile_server.dsn("postgres"))
    await conn.execute(f"create database {name} template {DATABASE}")
    await conn.close()
    return fragile_server.dsn(name)


@pytest.fixture
async def fragile_fleet(fragile_database: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_on(fragile_database, tmp_path) as fleet:
        yield fleet


@pytest.fixture
async def fragile_pool(fragile_database: str) -> AsyncIterator[asyncpg.Pool]:
    """For asking; a test that restarts the server asks through it only after a reconnect."""
    async with asyncpg.create_pool(fragile_database, min_size=0, max_size=4) as pool:
        yield pool
