"""Statements on a pool: each gets a connection, and only so much time.  What the stores have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke under a statement
    asyncpg.OperatorInterventionError,  # 57P01 shutdown, 57P03 starting up, 57014 cancelled
    asyncpg.InsufficientResourcesError,  # 53xxx: too many connections, disk full
    asyncpg.TransactionRollbackError,  # 40001, 40P01: run it again
    asyncpg.ReadOnlySQLTransactionError,  # 25006: a failover is going on
    asyncpg.LockNotAvailableError,
)
"""What means "not now": the statement may be sent again, after a pause and on another connection."""


def search_path(schema: str) -> str:
    """The search_path under which every statement runs; pg_temp last, so that no temporary table can stand in."""
    return '"' + schema.replace('"', '""') + '", pg_temp'


class Statements:
    """On a pool whose connections see the schema.  Raises one of AWAY when Postgres is."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 30.0) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def _fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        async with self._connection() as conn:
            rows: list[asyncpg.Record] = await conn.fetch(statement, *args, timeout=self._timeout_s)
            return rows

    async def _value(self, statement: str, *args: Any) -> Any:
        async with self._connection() as conn:
            return await conn.fetchval(statement, *args, timeout=self._timeout_s)

    async def _execute(self, statement: str, *args: Any) -> str:
        async with self._connection() as conn:
            tag: str = await conn.execute(statement, *args, timeout=self._timeout_s)
            return tag

    async def _count(self, statement: str, *args: Any) -> int:
        """How many rows it wrote, as the command tag tells: "DELETE 12" → 12."""
        return int((await self._execute(statement, *args)).rpartition(" ")[2])

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """One of the pool's.  A statement that got no answer in time leaves a connection that may never answer again,
        and asyncpg would wait without end for its word that the statement is cancelled: end it."""
        conn = await self._pool.acquire(timeout=self._timeout_s)
        try:
            yield conn
        except (TimeoutError, asyncio.CancelledError):
            conn.terminate()
            raise
        finally:
            await self._pool.release(conn, timeout=self._timeout_s)
