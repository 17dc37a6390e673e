"""Which rows an operator means, and those rows page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import asyncpg

import sql

_SQL = sql.load("orders.sql")

LOOK = 10_000
"""Rows one page looks at: few milliseconds, however many of them are wanted."""

EVER = datetime(9999, 12, 31, tzinfo=UTC)
NEVER = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Filters; None is any.  `states` concern live rows, `code` and `ended_before` dead letters."""

    states: tuple[str, ...] = ()
    kind: str | None = None
    queue: str | None = None
    org_id: str | None = None
    lane: str | None = None
    gate: str | None = None
    priority: int | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    due_from: datetime | None = None
    due_before: datetime | None = None
    code: str | None = None
    ended_before: datetime | None = None

    @property
    def narrow(self) -> bool:
        """Whether it leaves any out."""
        return bool(self.said)

    @property
    def said(self) -> dict[str, Any]:
        """What was asked for, by name, for the audit."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in given.items()
            if value is not None and value != ()
        }


@dataclass(frozen=True, slots=True)
class Page:
    """Rows that are wanted; of dead letters also when the first and the last one that was looked at ended."""

    ids: Sequence[int]
    between: tuple[datetime, datetime] = (NEVER, EVER)


async def live(conn: asyncpg.Connection, which: Which, *, look: int = LOOK) -> AsyncIterator[Page]:
    """One pass over the live rows in the order of their ids: what is inserted meanwhile may come too."""
    after = 0
    w = which
    while True:
        page = await conn.fetchrow(
            _SQL["pick_live"],
            after,
            look,
            list(w.states or ("ready",)),
            w.kind,
            w.queue,
            w.org_id,
            w.lane,
            w.gate,
            w.priority,
            w.created_from,
            w.created_before,
            w.due_from,
            w.due_before,
        )
        if page is None or page["last"] is None:
            return
        if page["ids"]:
            yield Page(page["ids"])
        if page["looked"] < look:
            return
        after = page["last"]


async def dead(conn: asyncpg.Connection, which: Which, *, look: int = LOOK) -> AsyncIterator[Page]:
    """One pass over the dead letters, oldest first: each is looked at once, and what dies meanwhile may come too."""
    after, after_id = NEVER, 0
    w = which
    while True:
        page = await conn.fetchrow(
            _SQL["pick_dead"],
            after,
            after_id,
            look,
            w.ended_before or EVER,
            w.kind,
            w.queue,
            w.org_id,
            w.lane,
            w.priority,
            w.created_from,
            w.created_before,
            w.code,
        )
        if page is None or page["last"] is None:
            return
        if page["ids"]:
            yield Page(page["ids"], (page["first"], page["last"]))
        if page["looked"] < look:
            return
        after, after_id = page["last"], page["last_id"]


async def sample_live(conn: asyncpg.Connection, page: Page, most: int) -> list[dict[str, Any]]:
    return [dict(row) for row in await conn.fetch(_SQL["sample_live"], page.ids[:most])]


async def sample_dead(conn: asyncpg.Connection, page: Page, most: int) -> list[dict[str, Any]]:
    return [dict(row) for row in await conn.fetch(_SQL["sample_dead"], page.ids[:most], *page.between)]
