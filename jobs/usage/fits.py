"""What a column must be to hold what another has: else two owners became one there, or none was found again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf

import asyncpg

from jobs.catalogue.ground import Column, Table
from jobs.catalogue.needs import Fault
from jobs.model import Retry

_WHOLE = {"smallint", "integer", "bigint"}
"""Of these, what is too large is refused by Postgres, and never another number."""

_TEXTS = {"text", "character varying"}
_LENGTH = re.compile(r"character varying\((\d+)\)")


def misfit(key: str, tables: Mapping[str, Table], of: tuple[str, str], into: tuple[str, str]) -> Iterator[Fault]:
    """A fault where values of the column `of` could become others in `into`: `varchar(5)` cuts them off, `citext` takes
    Ann for ann.  Each is a table and a column, as the config names them."""
    given, takes = (tables[table].columns[column] for table, column in (of, into))
    if not _holds(takes, given):
        yield Fault(
            key,
            f"{into[0]}.{into[1]} is {takes.type}, and {of[0]}.{of[1]} is {given.type}: two of its values could become "
            "one there; give both the same type",
        )


def _holds(into: Column, of: Column) -> bool:
    bases = {into.base, of.base}
    if into.type == of.type or bases <= _WHOLE:
        return True
    if len(bases) > 1 and not bases <= _TEXTS:
        return False
    return "(" not in into.type or (into.base in _TEXTS and _length(of) <= _length(into))


def _length(column: Column) -> float:
    """The longest text it takes for certain."""
    found = _LENGTH.fullmatch(column.type)
    return int(found[1]) if found else inf


@contextmanager
def fitting(tables: str) -> Iterator[None]:
    """Postgres does not say which number was too large for its column."""
    try:
        yield
    except asyncpg.NumericValueOutOfRangeError as error:
        raise Retry(
            f"a number is too large for its column of {tables}: {error}; make that bigint or numeric",
            code="out_of_range",
        ) from error
