"""Which tables hold an account's rows, found along foreign keys and configured links.  Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

KEEPS = frozenset("nd")
"""`on delete set null` and `set default`: the row that points stays when what it points to goes."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A row of `child` belongs to that row of `parent` whose `parent_columns` are its `columns`.  `action`: what a
    delete of the parent does by itself, as pg_constraint has it; `-` for a link of the config."""

    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    action: str = "-"


@dataclass(frozen=True, slots=True)
class Holding:
    """A table that holds rows of accounts.  `own`: edges to the account itself; a table that has some has those rows
    alone.  `parents`: of one that has none, the edges by which its rows are somebody's.  `loops`: edges that lead back
    here, to be cut first."""

    table: str
    own: tuple[Edge, ...]
    parents: tuple[Edge, ...]
    loops: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class Ties:
    """`holdings`: children before what they point to.  `root_loops`: of the accounts' own table to itself."""

    root: str
    holdings: tuple[Holding, ...]
    root_loops: tuple[Edge, ...]
    dependents: Mapping[str, tuple[Edge, ...]] = field(default_factory=dict)
    """table -> edges of tables that have none of their own: their rows go when its rows do."""

    @cached_property
    def by_name(self) -> Mapping[str, Holding]:
        return {holding.table: holding for holding in self.holdings}

    @property
    def tables(self) -> list[str]:
        return [holding.table for holding in self.holdings]


def ties(root: str, edges: Iterable[Edge], kept: Collection[str] = ()) -> Ties:
    """Everything that is reached from `root`.  `kept`: tables whose rows stay, so that what points to them does too."""
    into: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        if edge.parent not in kept:
            into[edge.parent].append(edge)
    own = [edge for edge in into[root] if edge.child != root]
    reached = _reached(root, into)
    between = [e for parent in reached for e in into[parent] if e.child in reached and e.action not in KEEPS]
    order, loops = _order(sorted(reached), between)
    owners = {edge.child for edge in own}
    holdings = tuple(
        Holding(
            table,
            tuple(edge for edge in own if edge.child == table),
            () if table in owners else tuple(e for e in between if e.child == table and e not in loops),
            tuple(edge for edge in loops if edge.child == table),
        )
        for table in order
    )
    dependents: dict[str, tuple[Edge, ...]] = {
        table: tuple(e for e in between if e.parent == table and e.child not in owners and e not in loops)
        for table in order
    }
    return Ties(root, holdings, tuple(edge for edge in into[root] if edge.child == root), dependents)


def strangers(
    found: Ties, columns: Mapping[str, Collection[str]], named: Collection[str], known: Collection[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Columns, with their tables, that are called as those which hold accounts are, and of which nobody has said whose
    they are."""
    names = {column for h in found.holdings for edge in h.own if len(edge.columns) == 1 for column in edge.columns}
    names |= set(named)
    told = {(edge.child, column) for h in found.holdings for edge in h.own for column in edge.columns} | set(known)
    return [
        (table, column)
        for table, has in sorted(columns.items())
        for column in has
        if column in names and table != found.root and (table, column) not in told
    ]


def _reached(root: str, into: Mapping[str, list[Edge]]) -> set[str]:
    """Tables whose rows are somebody's.  A row that is kept when what it points to goes is nobody's for that, unless it
    points to the account itself."""
    reached: set[str] = set()
    todo = [edge.child for edge in into[root] if edge.child != root]
    while todo:
        table = todo.pop()
        if table not in reached:
            reached.add(table)
            todo += [e.child for e in into[table] if e.action not in KEEPS and e.child != root]
    return reached


def _order(tables: list[str], between: list[Edge]) -> tuple[list[str], frozenset[Edge]]:
    """Children before their parents, and the edges that close a circle."""
    into: dict[str, list[Edge]] = defaultdict(list)
    for edge in between:
        into[edge.parent].append(edge)
    order: list[str] = []
    loops: set[Edge] = set()
    state: dict[str, str] = {}
    for start in tables:
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            table, left = stack.pop()
            if left:
                state[table] = "done"
                order.append(table)
                continue
            if table in state:
                continue
            state[table] = "open"
            stack.append((table, True))
            for edge in into[table]:
                if state.get(edge.child) == "open":
                    loops.add(edge)
                elif edge.child not in state:
                    stack.append((edge.child, False))
    return order, frozenset(loops)
