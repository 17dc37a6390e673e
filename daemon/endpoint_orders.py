"""What operators order about endpoints, each in one commit with its audit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
import orjson

import sql
from daemon.operation import write_audit
from daemon.operator_store import Order, Row
from daemon.picking import EVER, NEVER
from daemon.texts import json_text

T = TypeVar("T")

_SQL = sql.load("endpoints.sql")

LOOK = 100_000
"""Rows of the delivery log that a listing looks at."""

SECRET_COLUMNS = ("headers", "url", "template")
"""Not written to the audit: where senders put tokens, and long texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """Which of an endpoint's attempts; None is any.  `event` is a pattern."""

    outcomes: Sequence[str] | None = None
    event: str | None = None
    event_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None


class EndpointOrders:
    """On one connection that sees the schema.  With `dry_run` everything is done and then undone, so that what the
    database would refuse is refused."""

    def __init__(self, conn: asyncpg.Connection, *, dry_run: bool = False) -> None:
        self._conn = conn
        self._dry_run = dry_run

    async def find(self, text: str, org_id: str | None) -> int | None:
        """Of an id, or of a name in an organisation."""
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
        found: int | None = await self._conn.fetchval(_SQL["find"], number, org_id, text)
        return found

    async def list(self, from_id: int, org_id: str | None, state: str | None) -> list[Row]:
        return [dict(row) for row in await self._conn.fetch(_SQL["list"], from_id, org_id, state)]

    async def show(self, endpoint: int) -> Row | None:
        row = await self._conn.fetchrow(_SQL["show"], endpoint)
        return None if row is None else dict(row)

    async def add(self, columns: Mapping[str, Any], secret: str | None, order: Order) -> tuple[int, str | None]:
        """The id, and the secret that receivers are told, unless it signs nothing."""

        async def act() -> tuple[int, str | None]:
            made: int = await self._conn.fetchval(_SQL["add"], json_text(columns))
            signs = columns.get("signing") != []
            told = await self._conn.fetchval(_SQL["rotate"], made, secret, 0.0) if signs else None
            return made, told

        return await self._commit(act, order, _shown(columns))

    async def edit(self, endpoint: int, columns: Mapping[str, Any], order: Order) -> None:
        await self._value(order, _shown(columns), "edit", endpoint, json_text(columns))

    async def disable(self, endpoint: int, order: Order) -> bool:
        """False when it is already."""
        return await self._value(order, None, "disable", endpoint, order.actor, order.reason) is not None

    async def enable(self, endpoint: int, order: Order) -> bool:
        """False when it is already."""
        return await self._value(order, None, "enable", endpoint) is not None

    async def rotate(self, endpoint: int, secret: str | None, grace_s: float, order: Order) -> str:
        """The new secret, which nobody is shown again."""
        made: str = await self._value(order, {"grace_s": grace_s}, "rotate", endpoint, secret, grace_s)
        return made

    async def test(self, endpoint: int, event: str, payload: str, order: Order) -> int:
        """The job that delivers it."""
        job_id: int = await self._value(order, None, "test", endpoint, event, payload)
        return job_id

    async def replay(self, endpoint: int, args_json: str, order: Order) -> int | None:
        """The job that sends events once more; None while there is one for this endpoint already."""
        job_id: int | None = await self._value(order, {"args": orjson.loads(args_json)}, "replay", endpoint, args_json)
        return job_id

    async def replaying(self, endpoint: int) -> int | None:
        """The one that there is."""
        job_id: int | None = await self._conn.fetchval(_SQL["replaying"], endpoint)
        return job_id

    async def events_of(self, endpoint: int, jobs: Sequence[int]) -> dict[int, int]:
        """By job, of those that deliver or delivered one to this endpoint."""
        return {row["job_id"]: row["event_id"] for row in await self._conn.fetch(_SQL["events_of"], endpoint, jobs)}

    async def deliveries(self, endpoint: int, which: Deliveries, most: int) -> Sequence[Row]:
        """Rows of the delivery log, newest first; unless an event is named, out of the newest LOOK in the time."""
        if which.event_id is not None:
            rows = await self._conn.fetch(_SQL["deliveries_of"], endpoint, which.event_id, most)
        else:
            outcomes = None if which.outcomes is None else list(which.outcomes)
            given = (which.since or NEVER, which.until or EVER, LOOK, outcomes, which.event, most)
            rows = await self._conn.fetch(_SQL["deliveries"], endpoint, *given)
        return [{**row, **{name: _read(row[name]) for name in ("phases", "response_headers")}} for row in rows]

    async def tried(self, job_id: int) -> Row | None:
        row = await self._conn.fetchrow(_SQL["tried"], job_id)
        return None if row is None else dict(row)

    async def _value(self, order: Order, detail: Mapping[str, Any] | None, statement: str, *args: Any) -> Any:
        return await self._commit(lambda: self._conn.fetchval(_SQL[statement], *args), order, detail)

    async def _commit(
        self, act: Callable[[], Awaitable[T]], order: Order, detail: Mapping[str, Any] | None = None
    ) -> T:
        """Nothing is written of an order that changed nothing."""
        transaction = self._conn.transaction()
        await transaction.start()
        try:
            done = await act()
            if done is not None:
                await write_audit(self._conn, order, detail)
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if self._dry_run else transaction.commit())
        return done


def _shown(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: "…" if name in SECRET_COLUMNS else value for name, value in columns.items()}


def _read(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
