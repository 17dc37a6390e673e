"""What a job needs of the database: tables, columns and types that its settings name, each under the key that does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from jobs.catalogue.ground import KINDS, Column, Table, near
from jobs.catalogue.predicates import Predicate
from jobs.catalogue.skeleton import Blocks

Family = Literal["time", "moment", "number", "text", "boolean", "json", "span", "nullable", "any"]
Right = Literal["select", "insert", "update", "delete"]

_BLOCKS = Blocks("predicates.sql")
_TIMES = {"date", "timestamp without time zone", "timestamp with time zone"}
_JSON = {"json", "jsonb"}
_WORDS = {
    "time": "a timestamp or a date",
    "moment": "a timestamp with time zone",
    "number": "a number",
    "text": "a text",
    "boolean": "a boolean",
    "json": "json or jsonb",
    "span": "an interval or a number of days",
    "nullable": "one that may be null",
    "any": "any",
}


@dataclass(frozen=True, slots=True)
class NeedsTable:
    """`keyed`: its rows must be told apart by a key; `views`: whatever has rows will do."""

    key: str
    table: str
    rights: tuple[Right, ...] = ("select",)
    keyed: bool = False
    views: bool = False


@dataclass(frozen=True, slots=True)
class NeedsColumn:
    """`written`: values of ours go into it."""

    key: str
    table: str
    column: str
    family: Family = "any"
    written: bool = False


@dataclass(frozen=True, slots=True)
class NeedsValues:
    """These texts must be values of the column's type."""

    key: str
    table: str
    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeedsUnique:
    """Rows of the table must be unique by exactly these columns."""

    key: str
    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeedsPair:
    """A column whose values are looked for in another: `to` None is that table's key, of one column."""

    key: str
    table: str
    column: str
    to_table: str
    to: str | None = None


Need = NeedsTable | NeedsColumn | NeedsValues | NeedsUnique | NeedsPair


@dataclass(frozen=True, slots=True)
class Fault:
    """`key` of [jobs.NAME] and why the database does not fit it."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


def of_predicates(key: str, table: str, found: Iterable[Predicate]) -> Iterator[Need]:
    """What conditions need of their table."""
    for predicate in found:
        here = f"{key}.{predicate.column}"
        yield NeedsColumn(here, table, predicate.column, "time" if predicate.test == "older_than" else "any")
        if predicate.values and predicate.test != "older_than":
            yield NeedsValues(here, table, predicate.column, predicate.values)


def tables_of(needs: Iterable[Need]) -> set[str]:
    """The names to look up."""
    return {name for need in needs for name in (need.table, getattr(need, "to_table", need.table))}


async def faults(conn: Any, needs: Iterable[Need], ground: Mapping[str, Table]) -> list[Fault]:
    """Everything that does not fit, in the order of the needs; of a table that is not there only that."""
    found: dict[Fault, None] = {}
    for need in needs:
        if need.table not in ground:
            if isinstance(need, NeedsTable):
                found[await _missing(conn, need)] = None
            continue
        for fault in await _faults(conn, need, ground):
            found[fault] = None
    return list(found)


async def _missing(conn: Any, need: NeedsTable) -> Fault:
    plain = need.table if "." in need.table else f".{need.table}"
    close = difflib.get_close_matches(plain, await near(conn), 1, 0.7)
    hint = f"; did you mean {close[0]}?" if close else ""
    return Fault(need.key, f"there is no table {need.table}{hint}")


async def _faults(conn: Any, need: Need, ground: Mapping[str, Table]) -> list[Fault]:
    table = ground[need.table]
    match need:
        case NeedsTable():
            return list(_table_faults(need, table))
        case NeedsColumn():
            return list(_column_faults(need, table))
        case NeedsUnique():
            return list(_unique_faults(need, table))
        case NeedsPair():
            other = ground.get(need.to_table)
            return [] if other is None else list(_pair_faults(need, table, other))
    return await _value_faults(conn, need, table)


def _table_faults(need: NeedsTable, table: Table) -> Iterator[Fault]:
    if table.kind in KINDS and not need.views:
        yield Fault(need.key, f"{need.table} is {KINDS[table.kind]}, not a table")
        return
    lacking = [right for right in need.rights if right not in table.rights]
    if lacking:
        words = ", ".join(lacking)
        yield Fault(need.key, f"role {table.role} may not {words}: grant {words} on {table.sql} to {table.role}")
    if need.keyed and not table.key:
        yield Fault(need.key, f"{need.table} has no primary key, by which its rows could be told apart")


def _column_faults(need: NeedsColumn, table: Table) -> Iterator[Fault]:
    column = table.columns.get(need.column)
    if column is None:
        yield _no_column(need.key, need.column, table)
    elif need.family != "any" and not _is_of(need.family, column):
        yield Fault(need.key, f"{need.table}.{need.column} is {_shown(need, column)}, not {_WORDS[need.family]}")
    elif need.written and column.generated:
        yield Fault(need.key, f"{need.table}.{need.column} is generated: nothing can be written into it")


def _no_column(key: str, name: str, table: Table) -> Fault:
    close = difflib.get_close_matches(name, table.columns, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(table.columns)}"
    return Fault(key, f"{table.asked} has no column {name!r}; {hint}")


def _shown(need: NeedsColumn, column: Column) -> str:
    return "not null" if need.family == "nullable" else column.type


def _is_of(family: Family, column: Column) -> bool:
    match family:
        case "time":
            return column.base in _TIMES
        case "moment":
            return column.base == "timestamp with time zone"
        case "json":
            return column.base in _JSON
        case "nullable":
            return not column.not_null
        case "span":
            return column.category in "NT"
        case "number":
            return column.category == "N"
        case "text":
            return column.category in "SE" or column.base == "citext"
        case "boolean":
            return column.category == "B"
    return True


def _unique_faults(need: NeedsUnique, table: Table) -> Iterator[Fault]:
    if set(need.columns) <= table.columns.keys() and not table.unique_over(need.columns):
        columns = ", ".join(table.columns[name].sql for name in need.columns)
        yield Fault(need.key, f"{need.table} has no unique index over exactly ({columns}): add one")


def _pair_faults(need: NeedsPair, table: Table, other: Table) -> Iterator[Fault]:
    column = table.columns.get(need.column)
    if need.to is None and len(other.key) != 1:
        yield Fault(need.key, f"{need.to_table} has no key of one column that {need.column!r} could name")
        return
    target = other.key[0] if need.to is None else other.columns.get(need.to)
    if column is not None and target is not None and column.category != target.category:
        yield Fault(
            need.key,
            f"{need.table}.{need.column} is {column.type}, and {need.to_table}.{target.name} is {target.type}",
        )


async def _value_faults(conn: Any, need: NeedsValues, table: Table) -> list[Fault]:
    """Asks Postgres to read them."""
    column = table.columns.get(need.column)
    if column is None:
        return []
    try:
        await conn.fetchval(str(_BLOCKS.fill("readable", type=column.type)), list(need.values))
    except (asyncpg.DataError, asyncpg.CannotCoerceError, asyncpg.IntegrityConstraintViolationError) as error:
        said = str(error).partition("\n")[0]
        return [Fault(need.key, f"is no value of {need.table}.{need.column}, which is {column.type}: {said}")]
    return []
