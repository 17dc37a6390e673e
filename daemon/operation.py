"""One order about rows: carried out in batches, each a commit of its own, and one row of job_audit for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

import sql
from daemon.bounded import QUEUES_MAX, Bounded
from daemon.operator_store import Moment, Order
from daemon.texts import json_text

_SQL = sql.load("orders.sql")
_AUDIT = sql.load("operator.sql")["audit"]
_CALL = sql.load("holds.sql")["call"]

BATCH = 1000
"""Rows changed in one transaction at most."""

IDS_KEPT = 100
"""Ids that job_audit names; those of all rows stand in job_undo while there is a way back."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of some rows: changed at once, or running and asked to stop."""

    changed: Sequence[int] = ()
    asked: Sequence[int] = ()


class Operation:
    """An order of somebody, for a reason.  `id` is its row in job_audit, None until a row was changed: an order that
    changes nothing leaves no trace, so the same order twice is as good as once."""

    def __init__(self, conn: asyncpg.Connection, order: Order, chosen: Mapping[str, Any] | None = None) -> None:
        self._conn = conn
        self._order = order
        self._chosen = dict(chosen or {})
        self._queue = Bounded(QUEUES_MAX)
        self.id: int | None = None

    async def cancel(self, ids: Sequence[int], *, running: bool = True) -> Batch:
        """Waiting rows move to history; running ones are asked to stop, unless they are to be left alone."""
        order = self._order

        async def do(operation_id: int) -> Batch:
            gone = await self._conn.fetch(_SQL["cancel"], ids, order.reason, operation_id)
            await self._tally(row["queue"] for row in gone)
            asked = await self._conn.fetch(_SQL["ask"], ids, order.actor, order.reason, operation_id) if running else []
            return Batch(_ids(gone), _ids(asked))

        batch = await self._commit(do)
        if batch.asked:
            await self._conn.execute(_CALL)
        return batch

    async def retry(
        self,
        ids: Sequence[int],
        *,
        states: Sequence[str] = ("dead", "cancelled"),
        start_s: float = 0.0,
        every_s: float = 0.0,
        between: tuple[datetime, datetime] | None = None,
    ) -> Batch:
        """Finished rows live again, the first `start_s` from now and each `every_s` after the one before."""
        given = (ids, start_s, every_s, list(states), *(between or (None, None)))

        async def do(operation_id: int) -> Batch:
            back = await self._conn.fetch(_SQL["retry"], *given, operation_id)
            await restore(self._conn, back)
            return Batch(_ids(back))

        return await self._commit(do)

    async def postpone(self, ids: Sequence[int], to: Moment) -> Batch:
        """Waiting rows that are due earlier are due then."""

        async def do(operation_id: int) -> Batch:
            return Batch(_ids(await self._conn.fetch(_SQL["postpone"], ids, to.at, to.in_s, operation_id)))

        return await self._commit(do)

    async def purge_live(self, ids: Sequence[int]) -> Batch:
        """Delete waiting rows for good."""

        async def do(_operation_id: int) -> Batch:
            return Batch(_ids(await self._conn.fetch(_SQL["purge_live"], ids)))

        return await self._commit(do)

    async def purge_dead(self, ids: Sequence[int], between: tuple[datetime, datetime]) -> Batch:
        """Delete dead letters for good."""

        async def do(_operation_id: int) -> Batch:
            return Batch(_ids(await self._conn.fetch(_SQL["purge_dead"], ids, *between)))

        return await self._commit(do)

    async def _tally(self, queues: Iterable[str]) -> None:
        """What this operation ends is counted with it, in its transaction."""
        if ended := sorted(Counter(map(self._queue, queues)).items()):
            names, numbers = zip(*ended, strict=True)
            await self._conn.execute(_SQL["tally"], names, numbers)

    async def _commit(self, do: Callable[[int], Awaitable[Batch]]) -> Batch:
        """The batch and its share of the audit, or neither; nothing at all when no row was changed."""
        transaction = self._conn.transaction()
        await transaction.start()
        try:
            operation_id = self.id or await write_audit(self._conn, self._order, self._chosen)
            batch = await do(operation_id)
            if batch.changed or batch.asked:
                first = [*batch.changed, *batch.asked][:IDS_KEPT]
                await self._conn.execute(_SQL["add_up"], operation_id, len(batch.changed), len(batch.asked), first)
        except BaseException:
            await transaction.rollback()
            raise
        if batch.changed or batch.asked:
            await transaction.commit()
            self.id = operation_id
        else:
            await transaction.rollback()
        return batch


async def restore(conn: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> None:
    """Give rows that were inserted again, in this transaction, what an insert may not bring, if they had any of it."""
    rows = [row for row in rows if row["idempotency_key"] is not None or row["attempt"] or row["crashes"]]
    if rows:
        columns = ("id", "idempotency_key", "attempt", "crashes")
        await conn.execute(_SQL["restore"], *([row[column] for row in rows] for column in columns))


async def write_audit(conn: asyncpg.Connection, order: Order, detail: Mapping[str, Any] | None = None) -> int:
    """In the transaction of the deed."""
    text = None if detail is None else json_text(detail)
    audit_id: int = await conn.fetchval(_AUDIT, order.actor, order.action, order.subject, order.reason, text)
    return audit_id


def _ids(rows: Sequence[asyncpg.Record]) -> list[int]:
    return sorted(row["id"] for row in rows)
