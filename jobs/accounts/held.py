"""The tables that hold what is an account's, as the database is now."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sql
from jobs.accounts.settings import AccountSettings, place
from jobs.accounts.ties import Edge, Holding, Ties, strangers, ties
from jobs.catalogue.ground import Column, Table, survey
from jobs.catalogue.needs import Fault, Need, NeedsColumn, NeedsTable

_SQL = sql.load("accounts.sql")

MOST = 20_000
"""Foreign keys that are looked at."""


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
    rows = await conn.fetch(_SQL["edges"])
    edges = [_edge(row) for row in rows]
    edges += [_link(settings, known, name, to) for name, to in settings.links.items()]
    found = ties(root, edges, {str(known[name].sql) for name in kept})
    tables = {str(t.sql): t for t in (await survey(conn, [root, *found.tables])).values()}
    hidden = [row["table"] for row in await conn.fetch(_SQL["hidden"], list(tables))]
    lost = await _lost(conn, settings, found, tables)
    too_many = [Fault("table", "there are more foreign keys than can be looked at")] if len(rows) >= MOST else []
    return Held(found, tables, (*too_many, *lost, *_veiled(hidden, tables), *_faults(found, tables)))


async def _lost(conn: Any, settings: AccountSettings, found: Ties, tables: Mapping[str, Table]) -> list[Fault]:
    """Whatever is called as if it held accounts, in any schema, and that nobody has explained."""
    ignored = [place(name) for name in settings.ignore]
    surveyed = await survey(conn, {table for table, _ in ignored})
    known = [(str(surveyed[table].sql), column) for table, column in ignored if table in surveyed]
    rows = await conn.fetch(_SQL["columns"], _ours())
    keys = {name: [column.name for column in table.key] for name, table in tables.items()}
    kinds = {row["table"]: row["kind"] for row in rows}
    columns = {row["table"]: row["columns"] for row in rows}
    strange = strangers(found, columns, settings.account_columns, known, keys)
    return [_strange(table, column, kinds[table]) for table, column in strange]


def request_edges(settings: AccountSettings, table: Table, found: Held) -> list[Edge]:
    """By which a request says whose it is: one, or that is a fault."""
    holding = found.holding(table)
    edges = [edge for edge in (() if holding is None else holding.own) if edge.parent_columns == (found.key.name,)]
    wanted = settings.requests_column
    return [edge for edge in edges if wanted is None or edge.columns == (wanted,)]


def request_faults(settings: AccountSettings, table: Table, edges: Sequence[Edge]) -> Iterator[Fault]:
    if not edges and settings.requests_column is not None:
        yield Fault("requests_column", f"{table.asked}.{settings.requests_column} holds no account")
    elif not edges:
        yield Fault("requests", f"no column of {table.asked} holds an account")
    elif len(edges) > 1:
        columns = ", ".join(edge.columns[0] for edge in edges)
        yield Fault("requests_column", f"whose a row of {table.asked} is, each of {columns} may say: name one of them")


@cache
def _ours() -> list[str]:
    """Tables of jobsd itself: what they keep of people ends with its retention."""
    return [*tomllib.loads(sql.text("manifest.toml"))["tables"]]


def _edge(row: Mapping[str, Any]) -> Edge:
    columns = tuple(row["columns"])
    emptied = tuple(row["emptied"] or ())
    return Edge(
        row["child"], columns, row["parent"], tuple(row["parent_columns"]), row["action"], emptied, row["loose"]
    )


def _link(settings: AccountSettings, known: Mapping[str, Table], name: str, to: str) -> Edge:
    child, column = place(name)
    parent, parent_column = place(to) if "." in to else (settings.table, to)
    loose = not known[child].columns[column].not_null
    return Edge(str(known[child].sql), (column,), str(known[parent].sql), (parent_column,), loose=loose)


def _veiled(hidden: Iterable[str], tables: Mapping[str, Table]) -> Iterator[Fault]:
    """Rows that this role is not shown would be left, or left out."""
    for name in hidden:
        role = tables[name].role
        yield Fault(
            "table",
            f"row security of {name} hides rows from role {role}: create policy jobsd on {name} to {role} using (true)",
        )


def _strange(table: str, column: str, kind: str) -> Fault:
    told = f'ignore = ["{table}.{column}"]'
    if kind not in "rp":
        what = {"m": "a materialized view: refresh it after erasures", "f": "a foreign table: its own server has to"}[
            kind
        ]
        return Fault(
            "links", f"{table}.{column} is called like the columns that hold accounts, and {table} is {what}; {told}"
        )
    return Fault(
        "links",
        f"{table}.{column} is called like the columns that hold accounts, and neither a foreign key nor links says "
        f'whose it is: links = {{ "{table}.{column}" = "id" }}, or {told}',
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
    if any(table.columns[column].not_null or table.columns[column].generated for column in edge.columns):
        columns = ", ".join(edge.columns)
        yield Fault("table", f"{edge.child} ({columns}) closes a circle of foreign keys, and cannot be null to open it")
