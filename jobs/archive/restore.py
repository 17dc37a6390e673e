"""Rows out of an archive, back into a table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import asyncpg

from jobs.archive.manifest import Manifest
from jobs.archive.reading import check, lines
from jobs.archive.table import Column, Table, lossless, quoted
from jobs.storage.storage import Storage

AT_ONCE = 500


class Unfit(ValueError):
    """The table cannot take these rows as they were; the message says which column."""


def columns_for(manifest: Manifest, into: Table) -> tuple[Column, ...]:
    """Those that are put back: all but computed ones.  Unfit if the table lacks one, or has it with another type."""
    there = {column.name: column for column in into.columns}
    for column in manifest.table.columns:
        found = there.get(column.name)
        if found is None:
            raise Unfit(f"{into} has no column {column.name}, which the archive has; add it, or restore into another")
        if found.type != column.type:
            raise Unfit(f"{into}.{column.name} is {found.type}, and was {column.type}; restore into another table")
    return tuple(c for c in manifest.table.columns if not there[c.name].generated)


def statement(columns: tuple[Column, ...], into: Table) -> str:
    """Inserts the lines $1, each value read as its column's type; a row that is there already stays as it is."""
    names = ", ".join(quoted(c.name) for c in columns)
    values = ", ".join(f"x.{quoted(c.name)}::{c.type}" for c in columns)
    texts = ", ".join(f"{quoted(c.name)} text" for c in columns)
    return (
        f"insert into {into.sql} ({names}) overriding system value "  # noqa: S608  names and types are the catalogue's
        f"select {values} from unnest($1::text[]) with ordinality as l(line, place) "
        f"cross join lateral json_to_record(l.line::json) as x({texts}) order by l.place on conflict do nothing"
    )


async def restore(
    conn: asyncpg.Connection, storage: Storage, manifest: Manifest, into: Table, told: Callable[[int], None]
) -> int:
    """Put the file's rows into a table, in one transaction; how many were added.  Others were there already.

    The file is verified first: Changed, NotThere, and nothing is added.  `told` hears how many were read.
    """
    await check(storage, manifest)
    insert = statement(columns_for(manifest, into), into)
    added = 0
    async with conn.transaction():
        await lossless(conn)
        async with aclosing(lines(storage, manifest, at_once=AT_ONCE)) as found:
            async for some in found:
                added += int((await conn.execute(insert, some)).rpartition(" ")[2])
                told(len(some))
    return added
