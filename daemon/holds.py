"""Pauses that operators order, of whatever a gate can hold and of schedules, each in one commit with its audit."""

from __future__ import annotations

from datetime import datetime

import asyncpg

import sql
from daemon.operation import write_audit
from daemon.operator_store import Moment, Order, Row

_SQL = sql.load("holds.sql")
_ADOPT = sql.load("schedules.sql")["adopt"]

FOREVER = Moment(None, None)
"""Until somebody resumes it."""


class Holds:
    """Pauses on one connection that sees the schema.  `gate` is 'queue:NAME', 'kind:NAME', 'org:ID' or 'lane:NAME'."""

    def __init__(self, conn: asyncpg.Connection) -> None:
        self._conn = conn

    async def pause(self, gate: str, until: Moment, order: Order) -> bool:
        """False when it is paused just so already."""
        return await self._pause("pause", gate, until, order)

    async def resume(self, gate: str, order: Order) -> bool:
        """False when it was not paused.  Daemons look at once."""
        return await self._resume("resume", gate, order)

    async def reset(self, gate: str, order: Order) -> bool:
        """Open a lane that daemons have closed.  False when it was not."""
        return await self._resume("reset", gate, order)

    async def paused(self, noun: str) -> dict[str, Row]:
        """By name, what is paused of a noun ('queue', 'kind', 'org', 'lane'): since, until, actor, reason."""
        rows = await self._conn.fetch(_SQL["pauses"], f"{noun}:")
        return {row["name"]: dict(row) for row in rows}

    async def schedules(self) -> dict[str, Row]:
        return {row["name"]: dict(row) for row in await self._conn.fetch(_SQL["schedules"])}

    async def adopt(self, name: str, kind: str, cron: str, timezone: str) -> None:
        """Make a schedule of the config known, as the daemons do when they start."""
        await self._conn.execute(_ADOPT, name, kind, cron, timezone)

    async def pause_schedule(self, name: str, until: Moment, order: Order) -> bool:
        return await self._pause("pause_schedule", name, until, order)

    async def resume_schedule(self, name: str, order: Order) -> bool:
        return await self._resume("resume_schedule", name, order)

    async def _pause(self, statement: str, name: str, until: Moment, order: Order) -> bool:
        async with self._conn.transaction():
            row = await self._conn.fetchrow(_SQL[statement], name, until.at, until.in_s, order.actor, order.reason)
            if row is None:
                return False
            ends: datetime | None = row["until"]
            await write_audit(self._conn, order, {"until": ends.isoformat()} if ends else None)
            await self._conn.execute(_SQL["call"])
        return True

    async def _resume(self, statement: str, name: str, order: Order) -> bool:
        async with self._conn.transaction():
            if await self._conn.fetchrow(_SQL[statement], name) is None:
                return False
            await write_audit(self._conn, order)
            await self._conn.execute(_SQL["call"])
        return True
