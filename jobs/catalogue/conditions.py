"""Conditions of the config as pieces of a statement."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.catalogue.ground import Table
from jobs.catalogue.predicates import Predicate
from jobs.catalogue.skeleton import ROW, Blocks, Parameters, Sql, joined, of

_BLOCKS = Blocks("predicates.sql")


def conditions(found: Iterable[Predicate], table: Table, parameters: Parameters, row: Sql = ROW) -> Sql:
    """`and …` for each; `row` is what the statement calls a row of the table."""
    return joined((_condition(each, table, row, parameters) for each in found), " ")


def _condition(predicate: Predicate, table: Table, row: Sql, parameters: Parameters) -> Sql:
    column = table.columns[predicate.column]
    name, values = of(row, column.sql), predicate.values
    match predicate.test:
        case "null" | "not_null":
            return _BLOCKS.fill(predicate.test, column=name)
        case "older_than":
            return _BLOCKS.fill("older_than", column=name, now=parameters.now, value=parameters.add(values[0]))
        case "any" if len(values) == 1:
            return _BLOCKS.fill("equal", column=name, type=column.type, value=parameters.add(values[0]))
        case "any" | "none":
            value = parameters.add(list(values))
            return _BLOCKS.fill(predicate.test, column=name, type=column.type, value=value)
    return _BLOCKS.fill(predicate.test, column=name, type=column.type, value=parameters.add(values[0]))
