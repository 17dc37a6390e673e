"""Statements about tables that the config names: skeletons out of .sql files, whose places are filled here and nowhere
else.

What may fill a place is `Sql`: a name or a type as Postgres itself has quoted it, a number of a parameter, or another
skeleton that was filled.  Values go in as parameters, texts that Postgres casts to the column's type; so nothing that
stands in a config ever becomes a part of a statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sql

_PLACE = re.compile(r"\{(\w+)\}")


class Sql(str):
    """A piece of a statement that no user has written."""

    __slots__ = ()


NOTHING = Sql("")
ROW = Sql("t")
"""What our statements call a row of the table they are about."""


def trusted(text: str) -> Sql:
    """What the database's own catalogue has quoted (`quote_ident`, `format_type`); for jobs.catalogue.ground alone."""
    return Sql(text)


def alias(letter: str, number: int) -> Sql:
    """A name of our own: k1, k2."""
    return Sql(f"{letter}{number:d}")


def of(row: Sql, column: Sql) -> Sql:
    """`t.column`."""
    return Sql(f"{row}.{column}")


def joined(pieces: Iterable[Sql], by: str = ", ") -> Sql:
    return Sql(by.join(pieces))


class Blocks:
    """The named blocks of a file in sql/catalogue."""

    def __init__(self, file: str) -> None:
        self._blocks = sql.load(f"catalogue/{file}")

    def fill(self, name: str, /, **places: Sql) -> Sql:
        """The block `name` with every place filled; KeyError for one that is not given, ValueError for one too many,
        TypeError for text that is not Sql."""
        block = self._blocks[name]
        if unknown := places.keys() - set(_PLACE.findall(block)):
            raise ValueError(f"{name} has no place {', '.join(sorted(unknown))}")
        for place, piece in places.items():
            if not isinstance(piece, Sql):
                raise TypeError(f"{place} of {name} is text, not Sql")
        return Sql(_PLACE.sub(lambda found: places[found[1]], block))


class Parameters:
    """The parameters of one statement: $1, $2, … in the order in which they are added.  `now`: of the run."""

    def __init__(self, now: datetime) -> None:
        self.values: list[Any] = []
        self._now = now
        self._named: dict[str, Sql] = {}

    def add(self, value: Any) -> Sql:
        """Its place in the statement."""
        self.values.append(value)
        return Sql(f"${len(self.values)}")

    def once(self, name: str, value: Any) -> Sql:
        """The same place each time; Postgres refuses a parameter that a statement does not have."""
        if name not in self._named:
            self._named[name] = self.add(value)
        return self._named[name]

    @property
    def now(self) -> Sql:
        """Where the statement has what the run takes for now."""
        return self.once("now", self._now)
