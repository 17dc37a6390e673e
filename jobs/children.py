"""Rows of one batch, and the row that is inserted when all of them have ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Literal

import asyncpg
import orjson

import sql

_SQL = sql.load("batches.sql")

AT_ONCE = 1000
"""Children of one statement."""

OnFailure = Literal["call", "skip"]
"""What becomes of the callback when a child was dead or cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """A row to be inserted; what is None has the column's default."""

    kind: str
    args: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    org_id: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    expires_at: datetime | None = None
    max_attempts: int | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    ordering_key: str | None = None
    lane: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """The row that follows a batch; its args get `batch`: id, total, done, failed, cancelled, failed_ids."""

    kind: str
    args: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None


async def begin(
    where: asyncpg.Pool | asyncpg.Connection,
    children: Iterable[New],
    *,
    then: Callback | None,
    on_failure: OnFailure = "call",
    key: str | None = None,
    org_id: str | None = None,
    parent_id: int | None = None,
    correlation_id: str | None = None,
) -> int:
    """A batch with these children, all in one transaction; its id.  If the organisation has one of this `key` already,
    that one's id, and nothing is inserted: so a handler that runs twice begins one batch."""
    async with _transaction(where) as conn:
        wanted = Callback(kind="") if then is None else then
        batch_id: int | None = await conn.fetchval(
            _SQL["begin"],
            key,
            org_id,
            parent_id,
            wanted.kind or None,
            _json(wanted.args),
            wanted.queue,
            wanted.priority,
            on_failure,
            correlation_id,
        )
        if batch_id is None:
            known: int = await conn.fetchval(_SQL["known"], key, org_id)
            return known
        await _add(conn, batch_id, children)
        return batch_id


async def add(where: asyncpg.Pool | asyncpg.Connection, batch_id: int, children: Iterable[New]) -> list[int]:
    """More children of an open batch, in one transaction; the ids of those that their keys did not keep out."""
    async with _transaction(where) as conn:
        return await _add(conn, batch_id, children)


async def _add(conn: Any, batch_id: int, children: Iterable[New]) -> list[int]:
    ids: list[int] = []
    left = iter(children)
    while some := list(islice(left, AT_ONCE)):
        rows = [{name: value for name, value in asdict(row).items() if value is not None} for row in some]
        ids += [row[0] for row in await conn.fetch(_SQL["add"], batch_id, _json(rows))]
    return ids


@asynccontextmanager
async def _transaction(where: Any) -> AsyncIterator[Any]:
    if isinstance(where, asyncpg.Pool):
        async with where.acquire() as conn, conn.transaction():
            yield conn
    else:
        async with where.transaction():
            yield where


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
