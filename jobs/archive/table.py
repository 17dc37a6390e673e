"""A table as archives see it, and its rows as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

import sql

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


class Connection(Protocol):
    """What both asyncpg's connections and its pools can do."""

    async def fetch(self, query: str, *args: object) -> Sequence[object]: ...


class NoTable(LookupError):
    """There is no such table, or not for this login."""


async def table_of(conn: object, schema: str, name: str) -> Table:
    """As it is now; NoTable."""
    rows = await conn.fetch(_SQL["columns"], schema, name)  # type: ignore[attr-defined]
    if not rows:
        raise NoTable(f"there is no table {schema}.{name}, or this login may not see it")
    key = sorted((row["place"], row["name"]) for row in rows if row["place"] is not None)
    return Table(
        schema=schema,
        name=name,
        columns=tuple(Column(name=r["name"], type=r["type"], generated=r["generated"]) for r in rows),
        key=tuple(column for _place, column in key),
    )


async def lossless(conn: object) -> None:
    """Call it in the transaction that reads lines, before the first."""
    await conn.fetch(_SQL["lossless"])  # type: ignore[attr-defined]


def line(table: Table, alias: str = "t") -> str:
    """What to select for a row's line, where the statement calls the table `alias`: one JSON object without line ends,
    each value the text that Postgres prints for it, or null.

    One rule for all types, since JSON has no room for what Postgres tells apart: SQL's null and JSON's, 1.10 and 1.1,
    infinity, arrays that begin at 0, bytes.
    """
    columns = ", ".join(f"{quoted(alias)}.{quoted(c.name)}::text as {quoted(c.name)}" for c in table.columns)
    return f"(select row_to_json(x)::text from (select {columns}) x)"


def quoted(name: str) -> str:
    """A name in a statement."""
    return '"' + name.replace('"', '""') + '"'
