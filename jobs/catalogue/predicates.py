"""Which rows a job is about, said in TOML, never in SQL: `where = { status = "archived", size = { above = 10 } }`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.catalogue.names import column_name
from jobs.values import duration

Test = Literal["any", "none", "null", "not_null", "above", "at_least", "below", "at_most", "older_than"]
OPERATORS = ("not", "null", "above", "at_least", "below", "at_most", "older_than")
VALUES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Predicate:
    """One condition on one column.  `values` are texts that Postgres reads as the column's type; of `older_than` it is
    the one number of seconds."""

    column: str
    test: Test
    values: tuple[str, ...] = ()


def predicates(where: Mapping[str, Any]) -> tuple[Predicate, ...]:
    """All of them must hold.  ValueError names the column and what is wrong."""
    return tuple(p for column, wanted in where.items() for p in _of(column, wanted))


def _of(column: str, wanted: Any) -> list[Predicate]:
    try:
        column_name(column)
        if not isinstance(wanted, Mapping):
            return [Predicate(column, "any", _texts(wanted))]
        if not wanted:
            raise ValueError(f"an empty table says nothing; give one of {', '.join(OPERATORS)}")
        return [_operated(column, word, value) for word, value in wanted.items()]
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _operated(column: str, word: str, value: Any) -> Predicate:
    match word:
        case "null" if isinstance(value, bool):
            return Predicate(column, "null" if value else "not_null")
        case "null":
            raise ValueError("null is true or false")
        case "not":
            return Predicate(column, "none", _texts(value))
        case "older_than" if isinstance(value, str):
            return Predicate(column, "older_than", (str(float(duration(value))),))
        case "older_than":
            raise ValueError('older_than is a duration, like "30d"')
        case "above" | "at_least" | "below" | "at_most":
            return Predicate(column, word, (plain_text(value),))
    close = difflib.get_close_matches(word, OPERATORS, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(OPERATORS)}"
    raise ValueError(f"{word!r} is no comparison; {hint}")


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(values) <= VALUES_MAX:
        raise ValueError(f"takes 1 to {VALUES_MAX} values")
    return tuple(plain_text(each) for each in values)


def plain_text(value: Any) -> str:
    """As Postgres reads it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ValueError(f"{value!r} is no value to compare with: a string, a number, true or false")
