"""Daemons on the test's own database, and readers of the docs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest

from daemon.embedded import Embedded
from tests.life.doc_code import Reader
from tests.life.fleet import Fleet, fleet_on


@pytest.fixture
async def fleet(database: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_on(database, tmp_path) as fleet:
        yield fleet


@pytest.fixture
async def reader(
    database: str, embedded_server: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Reader]:
    """Somebody with a new database; the roles a page makes are gone afterwards."""
    module = ModuleType("the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where types look for the names they mention
    monkeypatch.syspath_prepend(tmp_path)  # what the page says to save can be imported
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, name)
    conn = await asyncpg.connect(database)
    roles = "select rolname from pg_roles"
    before = {row[0] for row in await conn.fetch(roles)}
    yield Reader(database, conn, tmp_path, module)
    await conn.execute("rollback; reset role")
    for name in {row[0] for row in await conn.fetch(roles)} - before:
        await conn.execute(f'drop owned by "{name}" cascade')
        await conn.execute(f'drop role "{name}"')
    await conn.close()
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]
