"""What a test says must be so of the rows; where it is not, what is there instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

import sql
from jobs.testing.rows import Row, Wish, fitting, nearest, row

_SQL = sql.load("testing.sql")
ROWS_MAX = 10_000
WAITING = ("ready", "scheduled", "running")


class Expect:
    """Assertions.  Each names a job by its kind or its id; `args` is a subset of the row's, further names are columns.
    Each returns the row that fits, the last of several."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def jobs(self) -> list[Row]:
        """The rows that wait or run, in the order of their ids; the first 10,000."""
        return [row(found) for found in await self._pool.fetch(_SQL["live"], ROWS_MAX)]

    async def history(self) -> list[Row]:
        """The rows that ended, in the order in which they did; the last 10,000."""
        return [row(found) for found in await self._pool.fetch(_SQL["ended"], ROWS_MAX)]

    async def assert_enqueued(
        self, kind: str | int, args: Any = None, *, count: int | None = None, **columns: Any
    ) -> Row:
        """Such a row waits or runs; `count`: exactly so many."""
        wish = Wish(kind, (), args, columns)
        rows = await self.jobs()
        found = fitting(wish, rows)
        if not found or (count is not None and len(found) != count):
            wanted = "no" if count is None else f"{len(found)}, not {count},"
            raise AssertionError(f"{wanted} {wish}; {nearest(wish, rows or await self.history())}")
        return found[-1]

    async def assert_not_enqueued(self, kind: str | int | None = None, args: Any = None, **columns: Any) -> None:
        """No such row waits or runs; without a kind: no row at all."""
        if found := fitting(Wish(kind, (), args, columns), await self.jobs()):
            raise AssertionError("waiting:\n" + "\n".join(f"  {row}" for row in found[:ROWS_MAX]))

    async def assert_done(self, job: str | int, args: Any = None, **columns: Any) -> Row:
        """It ended well; `result=` what the handler returned."""
        return await self._one(Wish(job, ("done",), args, columns))

    async def assert_dead(self, job: str | int, args: Any = None, **columns: Any) -> Row:
        """It is a dead letter; `code=`, `reason=` why."""
        return await self._one(Wish(job, ("dead",), args, columns))

    async def assert_cancelled(self, job: str | int, args: Any = None, **columns: Any) -> Row:
        return await self._one(Wish(job, ("cancelled",), args, columns))

    async def assert_retrying(self, job: str | int, args: Any = None, **columns: Any) -> Row:
        """It failed, and waits for its next attempt; `attempt=` how many it has had, `code=` what the last came to."""
        wish = Wish(job, ("ready", "scheduled"), args, columns)
        everything = [*await self.jobs(), *await self.history()]
        return _last(wish, fitting(wish, [row for row in everything if row.attempt > 0 and row.code]), everything)

    async def _one(self, wish: Wish) -> Row:
        everything = [*await self.jobs(), *await self.history()]
        return _last(wish, fitting(wish, everything), everything)


def _last(wish: Wish, found: Sequence[Row], everything: Sequence[Row]) -> Row:
    if not found:
        raise AssertionError(f"no {wish}; {nearest(wish, everything)}")
    return found[-1]
