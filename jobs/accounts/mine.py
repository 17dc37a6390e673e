"""Which rows of a table are one account's, as a piece of a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.accounts.held import Held
from jobs.accounts.ties import Edge, Holding
from jobs.catalogue.ground import Column
from jobs.catalogue.skeleton import ROW, Blocks, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Work

BLOCKS = Blocks("accounts.sql")

Account = Mapping[str, str | None]
"""What is known of an account: columns of its row, as texts."""


def account_columns(held: Held) -> list[str]:
    """The columns of the accounts that others point to, its key first."""
    edges = [*held.ties.root_loops, *(edge for holding in held.ties.holdings for edge in holding.own)]
    pointed = {column for edge in edges for column in edge.parent_columns}
    return list(dict.fromkeys([held.key.name, *sorted(pointed)]))


async def known(work: Work[Any], found: Held, key: str) -> Account | None:
    """What others may hold of an account; None: it is not there, or not deleted."""
    accounts, parameters, names = found.accounts, Parameters(work.now), account_columns(found)
    text = BLOCKS.fill(
        "account",
        shown=joined(BLOCKS.fill("text", column=of(ROW, accounts.columns[name].sql)) for name in names),
        table=accounts.sql,
        key=of(ROW, found.key.sql),
        account=parameters.add(key),
        type=found.key.type,
        deleted=of(ROW, accounts.columns[work.settings.deleted_column].sql),
    )
    row = await work.conn.fetchrow(str(text), *parameters.values)
    return None if row is None else dict(zip(names, row, strict=True))


def mine(held: Held, holding: Holding, account: Account, parameters: Parameters) -> Sql:
    """The rows of `holding` that are this account's: those that say so, and those that go with rows which do."""
    said = [own(held, edge, account, parameters) for edge in holding.own]
    return joined([*said, *(_through(held, edge, account, parameters, ROW, 1) for edge in holding.parents)], " or ")


def going(
    held: Held, holding: Holding, account: Account, parameters: Parameters, row: Sql = ROW, depth: int = 0
) -> Sql:
    """The rows of `holding` that go with this account: fewer than are its, since some stay and forget it."""
    if holding.taking:
        return joined((own(held, edge, account, parameters, row) for edge in holding.taking), " or ")
    return joined((_through(held, edge, account, parameters, row, depth + 1) for edge in holding.parents), " or ")


def own(held: Held, edge: Edge, account: Account, parameters: Parameters, row: Sql = ROW) -> Sql:
    """A column of the account that is null is held by nobody."""
    table, accounts = held.tables[edge.child], held.accounts
    return joined(
        (
            BLOCKS.fill(
                "equal",
                column=of(row, table.columns[column].sql),
                value=parameters.add(account[parent_column]),
                type=comparable(table.columns[column], accounts.columns[parent_column]),
            )
            for column, parent_column in zip(edge.columns, edge.parent_columns, strict=True)
        ),
        " and ",
    )


def comparable(column: Column, other: Column) -> Sql:
    """The type as which a value of `other` is compared with `column`.  Never one that would make another value of it: a
    text cut off at the column's length, a number that is too large, would be somebody else's."""
    return other.unbounded if column.category == other.category == "N" else column.unbounded


def _through(held: Held, edge: Edge, account: Account, parameters: Parameters, row: Sql, depth: int) -> Sql:
    table, parent = held.tables[edge.child], held.tables[edge.parent]
    above, name = held.ties.by_name[edge.parent], alias("p", depth)
    return BLOCKS.fill(
        "through",
        parent=parent.sql,
        alias=name,
        same=pairs(
            row, [table.columns[c] for c in edge.columns], name, [parent.columns[c] for c in edge.parent_columns]
        ),
        condition=going(held, above, account, parameters, name, depth),
    )


def pairs(left: Sql, of_left: Sequence[Column], right: Sql, of_right: Sequence[Column]) -> Sql:
    """`t.a = p.b and …`."""
    return joined(
        (
            BLOCKS.fill("pair", left=of(left, one.sql), right=of(right, other.sql))
            for one, other in zip(of_left, of_right, strict=True)
        ),
        " and ",
    )


def among(
    columns: Sequence[Column], values: Sequence[Sequence[str | None]], parameters: Parameters, types: Sequence[Sql] = ()
) -> Sql:
    """Rows whose columns are one of these; `values` row by row, as texts.  `types`: theirs, if not the columns'."""
    types = types or [column.type for column in columns]
    if len(columns) == 1:  # a third of the time of a join
        values_of_one = parameters.add([value[0] for value in values])
        return BLOCKS.fill("any_of", column=of(ROW, columns[0].sql), value=values_of_one, type=types[0])
    names = [alias("k", n) for n in range(1, len(columns) + 1)]
    arrays = [BLOCKS.fill("array", value=parameters.add([value[n] for value in values])) for n in range(len(columns))]
    return BLOCKS.fill(
        "one_of",
        columns=joined(of(ROW, column.sql) for column in columns),
        casts=joined(BLOCKS.fill("cast", name=name, type=type_) for name, type_ in zip(names, types, strict=True)),
        arrays=joined(arrays),
        names=joined(names),
    )
