"""What holds of all rows that a job is about, as Postgres writes it: so a partial index that has them is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from jobs.catalogue.ground import Column, Table
from jobs.catalogue.predicates import Predicate

_PLAIN = re.compile(r"[A-Za-z0-9_ .:@-]+")
"""Texts that are quoted as they are."""


def facts(found: Iterable[Predicate], table: Table) -> frozenset[str]:
    """For Table.leads and Table.narrowed.  What is not among them is not known, and costs no more than an index."""
    return frozenset(text for predicate in found for text in _written(predicate, table.columns[predicate.column]))


def _written(predicate: Predicate, column: Column) -> Iterator[str]:
    match predicate.test, predicate.values:
        case "null", _:
            yield f"({column.sql} IS NULL)"
        case "not_null", _:
            yield f"({column.sql} IS NOT NULL)"
        case "any", (value,) if column.base == "boolean" and value in ("true", "false"):
            yield column.sql if value == "true" else f"(NOT {column.sql})"
            yield f"({column.sql} = {value})"
        case "any", (value,) if (column.base == "text" or column.category == "E") and _PLAIN.fullmatch(value):
            yield f"({column.sql} = '{value}'::{column.base})"
        case _:
            return
