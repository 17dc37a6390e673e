"""What the database says of the tables that the config names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

import sql
from jobs.catalogue.names import table_name
from jobs.catalogue.skeleton import Sql, trusted

_SQL = sql.load("catalogue.sql")

KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
"""What has rows and is no table."""


@dataclass(frozen=True, slots=True)
class Column:
    """`sql`: its name as Postgres quotes it; `type`: as Postgres writes it; `base`: of a domain, the type below."""

    name: str
    sql: Sql
    type: Sql
    base: str
    category: str
    not_null: bool
    generated: bool

    @property
    def unbounded(self) -> Sql:
        """Its type without a length: a value that is cast to it stays as it is."""
        return trusted({"character": "bpchar", "bit": "varbit"}.get(self.base, self.base))


@dataclass(frozen=True, slots=True)
class Index:
    """`columns` in order; None for an expression.  `where`: what holds of its rows, as Postgres writes it; None: it has
    all of them.  `ordered`: a btree."""

    name: str
    columns: tuple[str | None, ...]
    unique: bool
    primary: bool
    where: Sql | None
    ordered: bool

    def has_all(self, facts: Collection[str]) -> bool:
        """Whether every row of which these conditions hold is in it."""
        if self.where is None:
            return True
        return self.where in facts or all(part in facts for part in self.where[1:-1].split(" AND "))


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key of another table that points here; `action` is that of `on delete`: c, n, d, r, a."""

    table: str
    name: str
    action: str
    column: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is there.  `sql`: its name as Postgres quotes it; `rights`: what this role may do; `rows`: by the
    last analyze, -1 when there was none; `filtered`: policies decide which of its rows this role sees."""

    asked: str
    sql: Sql
    kind: str
    rows: float
    rights: frozenset[str]
    role: str
    filtered: bool
    columns: Mapping[str, Column]
    indexes: tuple[Index, ...]
    referenced_by: tuple[Reference, ...]

    @property
    def key(self) -> tuple[Column, ...]:
        """What tells its rows apart: the primary key, else a unique index over columns that are never null; else ()."""
        for index in self.indexes:
            columns = [self.columns[name] for name in index.columns if name is not None]
            whole = len(columns) == len(index.columns) and index.where is None and index.unique
            if whole and all(column.not_null for column in columns):
                return tuple(columns)
        return ()

    def leads(self, column: str, facts: Collection[str] = ()) -> bool:
        """Whether an index has the rows of which `facts` hold in the order of this column."""
        return any(index.has_all(facts) for index in self._leading(column))

    def narrowed(self, column: str, facts: Collection[str]) -> Sql | None:
        """What a statement about rows of which `facts` hold must say to ride a partial index in this column's order."""
        found = (index.where for index in self._leading(column) if index.has_all(facts))
        return next((where for where in found if where is not None), None)

    def _leading(self, column: str) -> Iterator[Index]:
        return (index for index in self.indexes if index.columns[:1] == (column,) and index.ordered)

    def ranged(self, by: Collection[str], time: str) -> tuple[str, ...]:
        """`by` in the order of an index that has their rows in the order of `time`; (): there is none."""
        for index in self.indexes:
            owners = index.columns[: len(by)]
            whole = index.ordered and index.where is None and index.columns[len(by) : len(by) + 1] == (time,)
            if whole and set(owners) == set(by):
                return tuple(name for name in owners if name is not None)
        return ()

    def found_by(self, column: str) -> bool:
        """Whether rows are found by a value of this column without reading the table."""
        return any(index.columns[:1] == (column,) and index.where is None for index in self.indexes)

    def wants_index(self, *columns: str, why: str) -> str:
        """Advice for people: the index over these columns that is missing."""
        listed = ", ".join(self.columns[name].sql for name in columns)
        return (
            f"no index of {self.asked} begins with {listed}: {why}; create index concurrently on {self.sql} ({listed})"
        )

    def unique_over(self, columns: Collection[str]) -> bool:
        """Whether an insert may meet another row by exactly these columns."""
        return any(
            index.unique and index.where is None and set(index.columns) == set(columns) for index in self.indexes
        )


async def survey(conn: Any, names: Collection[str]) -> dict[str, Table]:
    """Those of these tables that are there and of a kind that has rows, by the name the config gives them."""
    asked = sorted(set(names))
    parts = [table_name(name) for name in asked]
    rows = await conn.fetch(_SQL["tables"], [part.schema for part in parts], [part.name for part in parts])
    return {name: _table(name, row) for name, row in zip(asked, rows, strict=True) if row["oid"] is not None}


async def near(conn: Any) -> list[str]:
    """Tables there are, for a name that is misspelt."""
    return [row[0] for row in await conn.fetch(_SQL["near"])]


def _table(asked: str, row: Mapping[str, Any]) -> Table:
    columns = [
        Column(
            each["name"], trusted(each["sql"]), trusted(each["type"]), each["base"], each["category"],
            each["not_null"], each["generated"],
        )
        for each in _json(row["columns"])
    ]  # fmt: skip
    indexes = [
        Index(
            i["name"], tuple(i["columns"]), i["unique"], i["primary"],
            None if i["where"] is None else trusted(i["where"]), i["ordered"],
        )
        for i in _json(row["indexes"])
    ]  # fmt: skip
    references = [Reference(f["table"], f["name"], f["action"], f["column"]) for f in _json(row["referenced_by"])]
    return Table(
        asked=asked,
        sql=trusted(row["sql"]),
        kind=row["kind"],
        rows=row["rows"],
        rights=frozenset(row["rights"]) if row["usable"] else frozenset(),
        role=row["role"],
        filtered=bool(row["filtered"]),
        columns={column.name: column for column in columns},
        indexes=tuple(indexes),
        referenced_by=tuple(references),
    )


def _json(text: str | None) -> Any:
    return [] if text is None else msgspec.json.decode(text)
