"""Which rows of a table are one account's, as a piece of a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.accounts.held import Held
from jobs.accounts.ties import Edge, Holding
from jobs.catalogue.ground import Column, Table
from jobs.catalogue.skeleton import ROW, Blocks, Parameters, Sql, alias, joined, of

BLOCKS = Blocks("accounts.sql")

Account = Mapping[str, str | None]
"""What is known of an account: columns of its row, as texts."""


def account_columns(held: Held) -> list[str]:
    """The columns of the accounts that others point to, its key first."""
    edges = [*held.ties.root_loops, *(edge for holding in held.ties.holdings for edge in holding.own)]
    pointed = {column for edge in edges for column in edge.parent_columns}
    return list(dict.fromkeys([held.key.name, *sorted(pointed)]))


def mine(held: Held, holding: Holding, account: Account, parameters: Parameters, row: Sql = ROW, depth: int = 0) -> Sql:
    """The rows of `holding` that are this account's: those that say so; of a table that says nothing, those that belong
    to rows which do."""
    table = held.tables[holding.table]
    if holding.own:
        return joined((own(edge, table, account, parameters, row) for edge in holding.own), " or ")
    return joined((_through(held, edge, account, parameters, row, depth + 1) for edge in holding.parents), " or ")


def own(edge: Edge, table: Table, account: Account, parameters: Parameters, row: Sql) -> Sql:
    """A column of the account that is null is held by nobody."""
    return joined(
        (
            BLOCKS.fill(
                "equal",
                column=of(row, table.columns[column].sql),
                value=parameters.add(account[parent_column]),
                type=table.columns[column].type,
            )
            for column, parent_column in zip(edge.columns, edge.parent_columns, strict=True)
        ),
        " and ",
    )


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
        condition=mine(held, above, account, parameters, name, depth),
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


def among(columns: Sequence[Column], values: Sequence[Sequence[str | None]], parameters: Parameters) -> Sql:
    """Rows whose columns are one of these; `values` row by row, as texts."""
    names = [alias("k", n) for n in range(1, len(columns) + 1)]
    arrays = [BLOCKS.fill("array", value=parameters.add([value[n] for value in values])) for n in range(len(columns))]
    return BLOCKS.fill(
        "one_of",
        columns=joined(of(ROW, column.sql) for column in columns),
        casts=joined(
            BLOCKS.fill("cast", name=name, type=column.type) for name, column in zip(names, columns, strict=True)
        ),
        arrays=joined(arrays),
        names=joined(names),
    )
