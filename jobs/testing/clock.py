"""The time of one test's database: it stands still until the test moves it."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg

import sql
from jobs.values import duration

_SQL = sql.load("testing.sql")


class Clock:
    """What `now()` says in the test's database, to the engine's statements and to everybody else's."""

    def __init__(self, pool: asyncpg.Pool, now: datetime) -> None:
        self._pool = pool
        self.now = now

    async def advance(self, by: str | float | timedelta) -> datetime:
        """Let this much time pass: "90s", "1h30m", seconds or a timedelta.  Nothing runs by it."""
        seconds = duration(by)
        if seconds < 0:
            raise ValueError("time does not run backwards; begin another queue, with start=")
        return await self._set(self.now + timedelta(seconds=seconds))

    async def travel(self, to: datetime) -> datetime:
        """Make it that time, which is later than now and has a zone."""
        if to.tzinfo is None:
            raise ValueError(f"{to} has no time zone: datetime(…, tzinfo=UTC)")
        if to < self.now:
            raise ValueError(f"{to} is before {self.now}, and time does not run backwards")
        return await self._set(to)

    async def _set(self, to: datetime) -> datetime:
        self.now = await self._pool.fetchval(_SQL["set_clock"], to)
        return self.now


async def still(dsn: str, start: datetime | None) -> datetime:
    """Stop the clock of a new database, at `start` or at the time of day."""
    conn = await asyncpg.connect(dsn)
    try:
        now: datetime = await conn.fetchval(_SQL["set_clock"], start)
    finally:
        await conn.close()
    return now


async def install(conn: asyncpg.Connection, database: str) -> None:
    """Give a database its clock; what is made in it from now on goes by it, on connections opened from now on."""
    await conn.execute(_SQL["clock"])
    await conn.execute(in_sight(database))


async def rebind(conn: asyncpg.Connection) -> None:
    """Have what stands in the database go by its clock."""
    await conn.execute(_SQL["rebind"])


def in_sight(database: str) -> str:
    """The statement by which every connection to the database sees its clock."""
    return f'alter database "{database}" set search_path = public, jobsd_clock, pg_catalog'
