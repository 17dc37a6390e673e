"""The sample application in schema `app`: made, filled and dropped; nothing else of a database is touched."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

import asyncpg

import sql
from daemon.exits import FAILED, USAGE, Exit

_SCHEMA = sql.text("reference/schema.sql")
_SQL = sql.load("reference/sample.sql")
_ROWS = sql.load("reference/generate.sql")

TABLES = tuple(re.findall(r"^create table app\.(\w+)", _SCHEMA, re.MULTILINE))
VIEWS = tuple(re.findall(r"^create view app\.(\w+)", _SCHEMA, re.MULTILINE))

_INDEXES: Mapping[str, str] = {
    match[1]: match[0] for match in re.finditer(r"^create (?:unique )?index (\w+) on [^;]+;", _SCHEMA, re.MULTILINE)
}

SHARES: Mapping[str, float] = {
    "organisations": 0.001,
    "accounts": 0.01,
    "deletion_requests": 0.01,
    "subscriptions": 0.01,
    "billing_cycles": 0.02,
    "sessions": 0.05,
    "magic_links": 0.03,
    "custom_domains": 0.003,
    "aliases": 0.04,
    "destinations": 0.025,
    "destination_tokens": 0.005,
    "alias_destinations": 0.04,
    "webhooks": 0.002,
    "messages": 0.2,
    "header_snapshots": 0.08,
    "message_statistics": 0.05,
    "failed_emails": 0.02,
    "failed_forwards": 0.005,
    "overflow_hold": 0.02,
    "spam_quarantine": 0.13,
    "bandwidth": 0.15,
    "notifications": 0.03,
    "exports": 0.001,
    "audit_log": 0.1,
}
"""Of all rows, what is pointed to first.  What jobs write themselves (roll-ups, usage events) begins empty."""

LEAST = 5
"""Rows of each table, however small the sample."""

CHUNK = 50_000
"""Rows in one transaction: half a second or so."""

_OF_EACH = {
    "header_snapshots": ("messages", 1),
    "destination_tokens": ("destinations", 1),
    "alias_destinations": ("aliases", 1),
    "deletion_requests": ("accounts", 50),
    "subscriptions": ("accounts", 1),
    "billing_cycles": ("accounts", 0.5),
}
"""So many of another table for each row of this."""

Conn = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

_MARK = "Sample application of jobsd"


@dataclass(frozen=True, slots=True)
class Filling:
    """`size` rows in all, or of table `only` alone and what its rows point to; same seed and `now`, same rows."""

    size: int
    seed: int = 1
    now: datetime | None = None
    only: str | None = None


async def install(conn: Conn) -> bool:
    """Make the schema if it is not there, and let the daemon's role do its jobs in it; whether it was made.

    Exit if a schema `app` is there that is not this version's sample.
    """
    await conn.fetchval(_SQL["lock"])
    found = await conn.fetchval(_SQL["mark"])
    async with conn.transaction():
        if found is None:
            await conn.execute(_SCHEMA)
            await conn.execute(f"comment on schema app is '{_mark()}'")
        elif found != _mark():
            raise Exit(FAILED, _whose(found))
        if await conn.fetchval(_SQL["has_role"]):
            await conn.execute(sql.text("reference/grants.sql"))
    return found is None


async def drop(conn: Conn) -> bool:
    """Whether there was one.  Exit, and nothing is gone, where others' objects lie in it or build on it."""
    await conn.fetchval(_SQL["lock"])
    if not await _is_there(conn):
        return False
    try:
        async with conn.transaction():
            await conn.execute(f"drop view if exists {_places(VIEWS)}")
            await conn.execute(f"drop table if exists {_places(TABLES)}")
            await conn.execute("drop schema app")
    except asyncpg.DependentObjectsStillExistError as error:
        said = f"{error}: {error.detail}" if error.detail else str(error)
        raise Exit(FAILED, f"nothing was dropped, since not all in schema app is the sample's own: {said}") from error
    return True


async def size_bytes(conn: Conn) -> int | None:
    """Of the sample's tables with their indexes; None if it is not there."""
    if not await _is_there(conn):
        return None
    found: int = await conn.fetchval(_SQL["size"], TABLES)
    return found


async def fill(
    conn: Conn,
    wanted: Filling,
    *,
    again: bool = False,
    said: Callable[[str, int], None] = lambda *_: None,
) -> dict[str, int]:
    """Rows inserted, by table; `said` hears of each table when it is done.  `again`: empty it first.

    Exit if it is not installed, or not empty.  One that is interrupted leaves what it has made; begin again.
    """
    counts = await planned(conn, wanted)
    await conn.execute("set statement_timeout = 0")
    if again:
        await conn.execute(f"truncate {_places(TABLES)}")
    elif not await conn.fetchval(_SQL["is_empty"]):
        raise Exit(FAILED, "the sample has rows already; --again empties it first")
    await _tell(conn, wanted)
    inserted = {}
    async with _trusted(conn), _without_indexes(conn):
        for table, rows in counts.items():
            inserted[table] = sum([await _insert(conn, table, *chunk) for chunk in _chunks(rows)])
            said(table, inserted[table])
    await conn.execute(_SQL["settle"])
    await conn.execute("drop table pg_temp.fill; reset statement_timeout")
    return inserted


async def planned(conn: Conn, wanted: Filling) -> dict[str, int]:
    """How many rows `fill` would try to make of each table, in its order: what rows point to comes first."""
    if not await _is_there(conn):
        raise Exit(FAILED, "there is no sample in this database; run: jobsd sample install")
    counts = _numbers(wanted)
    if wanted.only is not None:
        if wanted.only not in SHARES:
            raise Exit(USAGE, f"--only {wanted.only}: the sample fills {', '.join(SHARES)}")
        needed = {row["relname"] for row in await conn.fetch(_SQL["needed"], f"app.{wanted.only}")}
        counts = {table: rows for table, rows in counts.items() if table in needed}
    return counts


def _numbers(wanted: Filling) -> dict[str, int]:
    counts = {"plans": 4} | {table: max(LEAST, round(wanted.size * share)) for table, share in SHARES.items()}
    only = wanted.only
    if only is not None:
        counts[only] = max(LEAST, wanted.size)
        if only in _OF_EACH:
            of, each = _OF_EACH[only]
            counts[of] = math.ceil(each * counts[only])
    counts["alias_destinations"] = counts["aliases"]
    counts["subscriptions"] = counts["deletion_requests"] = counts["accounts"]
    counts["billing_cycles"] = 2 * counts["subscriptions"]
    return counts


async def _tell(conn: Conn, wanted: Filling) -> None:
    now = wanted.now or datetime.now(UTC).replace(microsecond=0)
    await conn.execute(_ROWS["helpers"])
    await conn.execute(_ROWS["numbers"])
    await conn.execute("truncate pg_temp.fill")
    await conn.execute(_ROWS["told"], json.dumps({**_numbers(wanted), "seed": wanted.seed}), now)


@asynccontextmanager
async def _trusted(conn: Conn) -> AsyncIterator[None]:
    """Rows point where they should by construction; to look each one up is much of the work, and who may, skips it."""
    try:
        await conn.execute("set session_replication_role = replica")
    except asyncpg.InsufficientPrivilegeError:
        yield
        return
    try:
        yield
    finally:
        await conn.execute("reset session_replication_role")


@asynccontextmanager
async def _without_indexes(conn: Conn) -> AsyncIterator[None]:
    """To build one at the end is a third of the work of keeping it up; who is killed meanwhile fills it `again`."""
    for name in _INDEXES:
        await conn.execute(f"drop index if exists app.{name}")
    yield
    for statement in _INDEXES.values():
        await conn.execute(statement)


async def _insert(conn: Conn, table: str, first: int, last: int) -> int:
    status: str = await conn.execute(_ROWS[table], first, last)
    return int(status.rpartition(" ")[2])


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    return ((first, min(rows, first + CHUNK - 1)) for first in range(1, rows + 1, CHUNK))


async def _is_there(conn: Conn) -> bool:
    found = await conn.fetchval(_SQL["mark"])
    if found is not None and not found.startswith(_MARK):
        raise Exit(FAILED, _whose(found))
    return found is not None


def _mark() -> str:
    return f"{_MARK}, {sha256(_SCHEMA.encode()).hexdigest()[:12]}"


def _whose(found: str) -> str:
    if found.startswith(_MARK):
        return "the sample in this database is another version's; run: jobsd sample drop, then install it anew"
    return "this database has a schema app that is not the sample; nothing was touched. Take another database"


def _places(names: tuple[str, ...]) -> str:
    return ", ".join(f"app.{name}" for name in names)
