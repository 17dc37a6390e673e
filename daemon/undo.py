"""Take an operation back, row by row, where nothing has run since."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import asyncpg
import orjson

import sql
from daemon.operation import BATCH, restore, write_audit
from daemon.operator_store import Order, Row

_SQL = sql.load("orders.sql")
_CALL = sql.load("holds.sql")["call"]

UNDOABLE = ("jobs.cancel", "jobs.retry", "jobs.postpone", "dead.retry")


@dataclass(frozen=True, slots=True)
class Taken:
    """Of a page of rows, those that are as they were before, and those that are not: they ran or changed since."""

    back: Sequence[int]
    left: Sequence[int]


async def find(conn: asyncpg.Connection, operation_id: int) -> Row | None:
    """Who ordered what; None when there is no such row in job_audit."""
    row = await conn.fetchrow(_SQL["operation"], operation_id)
    return None if row is None else {**row, "detail": orjson.loads(row["detail"] or "{}")}


async def pages(conn: asyncpg.Connection, operation_id: int) -> AsyncIterator[list[asyncpg.Record]]:
    """What it did and has not been taken back, in the order of ids."""
    after = 0
    while page := await conn.fetch(_SQL["undo_page"], operation_id, after, BATCH):
        yield page
        after = page[-1]["job_id"]


class Undo:
    """Takes one operation back.  Its `id` is its own row in job_audit, None until a row was taken back."""

    def __init__(self, conn: asyncpg.Connection, operation_id: int, order: Order) -> None:
        self._conn = conn
        self._operation_id = operation_id
        self._order = order
        self.id: int | None = None

    async def page(self, rows: Sequence[asyncpg.Record], *, dry_run: bool = False) -> Taken:
        """One commit; a row that has run or changed since stays as it is.  A dry run does it all and rolls it back."""
        transaction = self._conn.transaction()
        await transaction.start()
        try:
            back: list[int] = []
            for did, group in groupby(sorted(rows, key=_did), key=_did):
                back += await self._take(did, list(group))
            audit_id = await self._audit(len(back)) if back and not dry_run else self.id
        except BaseException:
            await transaction.rollback()
            raise
        if dry_run:
            await transaction.rollback()
        else:
            await transaction.commit()
            self.id = audit_id
            await self._conn.execute(_CALL)
        done = set(back)
        return Taken(sorted(back), [row["job_id"] for row in rows if row["job_id"] not in done])

    async def _take(self, did: str, rows: Sequence[asyncpg.Record]) -> list[int]:
        ids = sorted(row["job_id"] for row in rows)
        given: tuple[Any, ...] = (self._operation_id, ids)
        if did == "cancelled":
            times = [row["at"] for row in rows]
            found = await self._conn.fetch(_SQL["undo_cancel"], *given, min(times), max(times))
            await restore(self._conn, found)
        else:
            found = await self._conn.fetch(_SQL["undo_retry" if did == "retried" else "undo_postpone"], *given)
        return [row["id"] for row in found]

    async def _audit(self, count: int) -> int:
        if self.id is None:
            return await write_audit(self._conn, self._order, {"undoes": self._operation_id, "rows": count})
        await self._conn.execute(_SQL["add_up"], self.id, count, 0, None)
        return self.id


def _did(row: asyncpg.Record) -> str:
    return str(row["did"])
