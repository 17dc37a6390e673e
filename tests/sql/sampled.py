"""Databases with the sample application in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from daemon.embedded import Embedded
from daemon.sample import TABLES, Filling, fill, install
from tests.sql.plans import scratch

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@asynccontextmanager
async def sampled(
    server: Embedded, template: str, name: str, filling: Filling | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database of its own, the sample installed and, if so wanted, filled."""
    async with scratch(server, template, name) as conn:
        await install(conn)
        if filling is not None:
            await fill(conn, filling)
        yield conn


async def contents(conn: asyncpg.Connection) -> dict[str, str]:
    """A digest of all rows of each table of the sample, in whatever order they lie."""
    return {
        table: await conn.fetchval(
            f"select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from app.{table} t"
        )
        for table in TABLES
    }
