"""A table as archives see it, and its rows as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

import sql

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection | asyncpg.Pool

_SQL = sql.load("archives.sql")


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`type` as Postgres prints it: `timestamp with time zone`, `numeric(12,2)`.  `generated`: computed from others."""

    name: str
    type: str
    generated: bool = False


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """`key`: the columns of the primary key in their order; () if it has none."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def sql(self) -> str:
        """Its name in a statement."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class NoTable(LookupError):
    """There is no such table, or not for this login."""


async def table_of(conn: Connection, schema: str, name: str) -> Table:
    """As it is now; NoTable."""
    rows = await conn.fetch(_SQL["columns"], schema, name)
    if not rows:
        raise NoTable(f"there is no table {schema}.{name}, or this login may not see it")
    key = sorted((row["place"], row["name"]) for row in rows if row["place"] is not None)
    return Table(
        schema=schema,
        name=name,
        columns=tuple(Column(name=r["name"], type=r["type"], generated=r["generated"]) for r in rows),
        key=tuple(column for _place, column in key),
    )


async def named(conn: Connection, text: str) -> Table:
    """The table that `text` means in a statement: `app.users`, `app."Odd"`; NoTable."""
    found = await conn.fetchrow(_SQL["named"], text)
    if found is None:
        raise NoTable(f"there is no table {text}, or this login may not see it")
    return await table_of(conn, found["schema"], found["name"])


async def lossless(conn: asyncpg.Connection) -> None:
    """Call it in the transaction that reads lines, before the first."""
    await conn.fetch(_SQL["lossless"])


def line(table: Table, alias: str = "t") -> str:
    """What to select for a row's line, where the statement calls the table `alias`: one JSON object without line ends,
    each value the text that Postgres prints for it, or null.

    One rule for all types, since JSON has no room for what Postgres tells apart: SQL's null and JSON's, 1.10 and 1.1,
    infinity, arrays that begin at 0, bytes.
    """
    columns = ", ".join(f"{quoted(alias)}.{quoted(c.name)}::text as {quoted(c.name)}" for c in table.columns)
    return f"(select row_to_json(x)::text from (select {columns}) x)"  # noqa: S608  names as the catalogue has them


def quoted(name: str) -> str:
    """A name in a statement."""
    return '"' + name.replace('"', '""') + '"'
