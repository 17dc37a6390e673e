"""The tables that hold what is an account's, as the database is now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sql
from jobs.accounts.settings import AccountSettings, place
from jobs.accounts.ties import KEEPS, Edge, Holding, Ties, strangers, ties
from jobs.catalogue.ground import Column, Table, survey
from jobs.catalogue.names import table_name
from jobs.catalogue.needs import Fault, Need, NeedsColumn, NeedsTable

_SQL = sql.load("accounts.sql")


@dataclass(frozen=True, slots=True)
class Held:
    """`tables`: by the name that Postgres quotes, the accounts' own among them."""

    ties: Ties
    tables: Mapping[str, Table]
    faults: tuple[Fault, ...]

    @property
    def accounts(self) -> Table:
        return self.tables[self.ties.root]

    @property
    def key(self) -> Column:
        return self.accounts.key[0]

    def holding(self, table: Table) -> Holding | None:
        return self.ties.by_name.get(str(table.sql))


def needs(settings: AccountSettings) -> Iterator[Need]:
    """Of both verbs; each adds its own."""
    yield NeedsTable("table", settings.table, keyed=True)
    yield NeedsColumn("deleted_column", settings.table, settings.deleted_column, "time")
    for name, to in settings.links.items():
        yield from placed(f"links.{name}", name)
        if "." in to:
            yield from placed(f"links.{name}", to)
        else:
            yield NeedsColumn(f"links.{name}", settings.table, to)


def placed(field: str, name: str) -> Iterator[Need]:
    """A column, written as table.column."""
    table, column = place(name)
    yield NeedsTable(field, table)
    yield NeedsColumn(field, table, column)


async def held(conn: Any, settings: AccountSettings, known: Mapping[str, Table], kept: Iterable[str] = ()) -> Held:
    """`known`: the tables that the settings name.  `kept`: of those, whose rows stay."""
    root = str(known[settings.table].sql)
    edges = [_edge(row) for row in await conn.fetch(_SQL["edges"])]
    edges += [_link(settings, known, name, to) for name, to in settings.links.items()]
    stay = {str(known[name].sql) for name in kept} | _left_by_themselves(root, edges)
    found = ties(root, edges, stay)
    tables = {str(t.sql): t for t in (await survey(conn, [root, *found.tables])).values()}
    ignored = [(str(known[t].sql) if t in known else t, c) for t, c in map(place, settings.ignore)]
    schemas = sorted({table_name(name).schema or "" for name in tables})
    columns = {row["table"]: row["columns"] for row in await conn.fetch(_SQL["columns"], schemas)}
    lost = strangers(found, columns, settings.account_columns, ignored)
    return Held(found, tables, (*_strange(lost), *_faults(found, tables)))


def _edge(row: Mapping[str, Any]) -> Edge:
    return Edge(row["child"], tuple(row["columns"]), row["parent"], tuple(row["parent_columns"]), row["action"])


def _link(settings: AccountSettings, known: Mapping[str, Table], name: str, to: str) -> Edge:
    child, column = place(name)
    parent, parent_column = place(to) if "." in to else (settings.table, to)
    return Edge(str(known[child].sql), (column,), str(known[parent].sql), (parent_column,))


def _left_by_themselves(root: str, edges: Iterable[Edge]) -> set[str]:
    """Tables that let go of an account by themselves: their rows stay."""
    own = [edge for edge in edges if edge.parent == root and edge.child != root]
    letting_go = {edge.child for edge in own if edge.action in KEEPS}
    return letting_go - {edge.child for edge in own if edge.action not in KEEPS}


def _strange(lost: Iterable[tuple[str, str]]) -> Iterator[Fault]:
    for table, column in lost:
        yield Fault(
            "links",
            f"{table}.{column} is called like the columns that hold accounts, and neither a foreign key nor links says "
            f'whose it is: links = {{ "{table}.{column}" = "id" }}, or ignore = ["{table}.{column}"]',
        )


def _faults(found: Ties, tables: Mapping[str, Table]) -> Iterator[Fault]:
    root = tables[found.root]
    if len(root.key) != 1:
        yield Fault("table", f"{found.root} has no key of one column, by which an account could be named")
    for edge in found.root_loops:
        yield from _loose(edge, root)
    for holding in found.holdings:
        table = tables[holding.table]
        if not table.key:
            yield Fault("table", f"{holding.table} holds rows of accounts, and has no primary key to name them by")
        for edge in holding.loops:
            yield from _loose(edge, table)
        if holding.loops and not holding.own and not holding.parents:
            yield Fault("table", f"rows of {holding.table} point in a circle, and nothing else says whose they are")


def _loose(edge: Edge, table: Table) -> Iterator[Fault]:
    """A circle is cut where a column can be null."""
    if any(table.columns[column].not_null for column in edge.columns):
        columns = ", ".join(edge.columns)
        yield Fault("table", f"{edge.child} ({columns}) closes a circle of foreign keys, and cannot be null to open it")
