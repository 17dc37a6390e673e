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
    delete of the parent does by itself, as pg_constraint has it; `-` for a link of the config.  `emptied`: the columns
    that this sets, () for all; `loose`: all columns can be null."""

    child: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    action: str = "-"
    emptied: tuple[str, ...] = ()
    loose: bool = True

    @property
    def lets_go(self) -> bool:
        """The row stays, and points nowhere."""
        return self.action in KEEPS


@dataclass(frozen=True, slots=True)
class Holding:
    """A table that names accounts, or whose rows hang on rows that do.  `own`: edges to the account itself.
    `parents`: where no such edge says whose a row is, those by which it goes with something of an account's.  `loops`:
    edges that lead back here, to be cut first."""

    table: str
    own: tuple[Edge, ...]
    parents: tuple[Edge, ...]
    loops: tuple[Edge, ...] = ()

    @property
    def taking(self) -> tuple[Edge, ...]:
        """By these a row goes with its account, and with nothing else."""
        return tuple(edge for edge in self.own if not edge.lets_go)

    @property
    def letting(self) -> tuple[Edge, ...]:
        """By these it stays, and forgets the account."""
        return tuple(edge for edge in self.own if edge.lets_go)

    @property
    def goes(self) -> bool:
        """Whether any of its rows goes with an account."""
        return bool(self.taking or self.parents)


@dataclass(frozen=True)
class Ties:
    """`holdings`: children before what they point to.  `root_loops`: of the accounts' own table to itself."""

    root: str
    holdings: tuple[Holding, ...]
    root_loops: tuple[Edge, ...]
    dependents: Mapping[str, tuple[Edge, ...]] = field(default_factory=dict)
    """table -> edges of tables whose rows go when its rows do."""

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
        into[edge.parent].append(edge)
    own = [edge for edge in into[root] if edge.child != root]
    takers = {edge.child for edge in own if not edge.lets_go}
    going = _going(root, takers, into, kept)
    between = [e for parent in sorted(going) for e in into[parent] if e.child in going and not e.lets_go]
    order, loops = _order(sorted(going | {edge.child for edge in own}), between, takers)

    def whole(edge: Edge) -> bool:
        """It says whose a row is: the table does not say so itself, and it was not cut."""
        return edge.child not in takers and edge not in loops

    holdings = tuple(
        Holding(
            table,
            tuple(edge for edge in own if edge.child == table),
            tuple(edge for edge in between if edge.child == table and whole(edge)),
            tuple(edge for edge in loops if edge.child == table),
        )
        for table in order
    )
    dependents = {table: tuple(e for e in between if e.parent == table and whole(e)) for table in order}
    return Ties(root, holdings, tuple(edge for edge in into[root] if edge.child == root), dependents)


def strangers(
    found: Ties,
    columns: Mapping[str, Collection[str]],
    named: Collection[str],
    known: Collection[tuple[str, str]],
    keys: Mapping[str, Collection[str]],
) -> list[tuple[str, str]]:
    """Columns, with their tables, that are called as those which hold accounts are, and of which nobody has said whose
    they are.  `keys`: the key of each table.  A column that is its table's whole key teaches no name: each table has an
    `id`, and if one of them is an account's, the others are not."""
    own = [edge for h in found.holdings for edge in h.own]
    names = {edge.columns[0] for edge in own if len(edge.columns) == 1 and edge.columns != tuple(keys[edge.child])}
    names |= set(named)
    told = {(edge.child, column) for edge in own for column in edge.columns} | set(known)
    return [
        (table, column)
        for table, has in sorted(columns.items())
        for column in has
        if column in names and table != found.root and (table, column) not in told
    ]


def _going(root: str, takers: Collection[str], into: Mapping[str, list[Edge]], kept: Collection[str]) -> set[str]:
    """Tables whose rows go with an account."""
    going: set[str] = set()
    todo = [table for table in takers if table not in kept]
    while todo:
        table = todo.pop()
        if table not in going:
            going.add(table)
            todo += [e.child for e in into[table] if not e.lets_go and e.child != root and e.child not in kept]
    return going


def _order(tables: list[str], between: list[Edge], takers: Collection[str]) -> tuple[list[str], frozenset[Edge]]:
    """Children before their parents, and the edges that close a circle.  Of a circle that one is cut whose columns can
    be null, and without which every row is still somebody's."""
    loops = {edge for edge in between if edge.child == edge.parent}
    left, order = dict.fromkeys(tables), list[str]()
    into: dict[str, list[Edge]] = defaultdict(list)
    for edge in between:
        if edge not in loops:
            into[edge.parent].append(edge)

    def waits_for(table: str) -> list[Edge]:
        return [edge for edge in into[table] if edge.child in left]

    def price(table: str) -> tuple[int, int, int]:
        cut = {*loops, *waits_for(table)}
        owned = _owned(takers, [edge for edge in between if edge not in cut])
        return -len(owned), sum(not edge.loose for edge in waits_for(table)), len(cut)

    while left:
        chosen = next((table for table in left if not waits_for(table)), None)
        if chosen is None:
            chosen = min(left, key=price)
            loops.update(waits_for(chosen))
        order.append(chosen)
        del left[chosen]
    return order, frozenset(loops)


def _owned(takers: Collection[str], between: Iterable[Edge]) -> set[str]:
    """Tables of whose rows something says whose they are."""
    into: dict[str, list[str]] = defaultdict(list)
    for edge in between:
        into[edge.parent].append(edge.child)
    owned, todo = set[str](), list(takers)
    while todo:
        table = todo.pop()
        if table not in owned:
            owned.add(table)
            todo += into[table]
    return owned
