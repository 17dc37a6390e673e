"""Goes through a table page by page, each a transaction of its own that is short, holds few locks, and waits for none.

By age, where an index has the rows in that order: only what is old enough is read, and the index ends the reading.
Else by key: the whole table is read, a page at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from time import perf_counter
from typing import Any

import asyncpg

from jobs.catalogue.ground import Column, Table
from jobs.catalogue.pace import Pace
from jobs.catalogue.settings import BatchSettings
from jobs.catalogue.skeleton import NOTHING, ROW, Blocks, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Work
from jobs.model import Retry

_BLOCKS = Blocks("pages.sql")

REFUSED = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
)
"""A batch that was in somebody's way: nothing of it was done."""

TRIES = 20
AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Page:
    """The places of a statement about one page; `parameters` takes more.

    The statement calls a row of the table `t` and one of the page `s`, and has `scanned` from `scan`.
    """

    table: Table
    parameters: Parameters
    scan: Sql
    keys: Sql
    same: Sql
    before: datetime | None

    @property
    def below(self) -> Sql:
        """Where the statement has the time before which a row is old enough."""
        return self.parameters.once("below", self.before)


Prepare = Callable[[Any], Awaitable[None]]
"""Called in the transaction of a page, before its statement."""


class Pages:
    """The pages of one table for one run.  `age` and `below`: rows whose age is before that; without them all rows.

    `since`: where an index has them in that order, only rows whose age is not before this.  `more`: what else a page
    has of each row.  `facts`: what holds of all rows that the run is about, for a partial index that has just these.
    """

    def __init__(
        self,
        work: Work[Any],
        table: Table,
        age: Column | None = None,
        below: datetime | None = None,
        *,
        prepare: Prepare | None = None,
        since: datetime | None = None,
        more: Callable[[Parameters], Sql] = lambda _: NOTHING,
        facts: Collection[str] = (),
    ) -> None:
        self._prepare = prepare
        self._settings: BatchSettings = work.settings
        self._work = work
        self._table = table
        self._age = age
        self._below = below
        self._since = since
        self._more = more
        self._by_age = age is not None and table.leads(age.name, facts)
        self._narrowed = None if age is None else table.narrowed(age.name, facts)
        self._pace = Pace(work.settings.batch)
        self.last: list[str] | None = None
        self._began_at: float | None = None
        self._scanned = 0

    async def run(
        self, statement: Callable[[Page], Sql], left: Callable[[], int | None] = lambda: None
    ) -> AsyncIterator[Mapping[str, Any]]:
        """What the statement says of each page.  It returns `scanned`, `last` and `at` of sql/catalogue/pages.sql, and
        whatever else it has counted.  `left`: the page must not be larger than this."""
        while (most := left()) is None or most > 0:
            rows = self._pace.rows if most is None else min(most, self._pace.rows)
            began = perf_counter()
            said, asked = await self._one(statement, rows)
            took_s = perf_counter() - began
            self._pace.took(took_s, said["scanned"])
            self._scanned += said["scanned"]
            yield said
            if not self._goes_on(said, asked):
                return
            await asyncio.sleep(min(self._settings.pause, took_s))

    def _goes_on(self, said: Mapping[str, Any], asked: int) -> bool:
        """Whether there is another page, after this one of `asked` rows."""
        self.last = said["last"]
        return bool(said["scanned"] >= asked)

    def percent(self, at: float | None) -> float:
        """About how far it is: by time where it goes by age, else by rows."""
        if self._by_age and self._below is not None:
            if at is None:  # nothing is left that is old enough
                return 99.0
            if not isfinite(at):
                return 0.0
            if self._began_at is None:
                self._began_at = at
            whole = self._below.timestamp() - self._began_at
            return 100.0 if whole <= 0 else min(99.0, 100.0 * (at - self._began_at) / whole)
        return min(99.0, 100.0 * self._scanned / max(self._table.rows, self._scanned, 1.0))

    async def _one(self, statement: Callable[[Page], Sql], rows: int) -> tuple[Mapping[str, Any], int]:
        """What it says, and how many rows it was asked to look at: fewer after each refusal."""
        for tried in range(1, TRIES + 1):
            asked = min(rows, self._pace.rows)
            page = self.page(asked)
            text = str(statement(page))  # the driver takes nothing but str itself
            try:
                said = await self._ask(text, page.parameters.values)
            except asyncpg.ForeignKeyViolationError as error:
                pointing = f"{error.schema_name}.{error.table_name}"
                raise Retry(
                    f"rows of {self._table.asked} are still pointed to: purge {pointing} first, or add it to together "
                    f"({error.constraint_name}: {error.detail})",
                    code="referenced",
                ) from error
            except REFUSED as error:
                self._pace.refused()
                refused = str(error)
                await asyncio.sleep(AGAIN_S * tried)
            else:
                return said, asked
        raise Retry(f"{self._table.asked}: a batch was refused {TRIES} times: {refused}", code="locked")

    async def _ask(self, text: str, values: list[Any]) -> Mapping[str, Any]:
        conn = self._work.conn
        said: Mapping[str, Any]
        if self._prepare is None:
            said = await conn.fetchrow(text, *values)
        else:
            async with conn.transaction():
                await self._prepare(conn)
                said = await conn.fetchrow(text, *values)
        return said

    def page(self, rows: int) -> Page:
        table, parameters = self._table, Parameters(self._work.now)
        pairs = _keys(table)
        keys, names = [key for key, _ in pairs], [name for _, name in pairs]
        key_as = _named(pairs)
        order, cursor = list(keys), list(names)
        types = [column.type for column in table.key]
        age = _BLOCKS.fill("ageless") if self._age is None else of(ROW, self._age.sql)
        if self._by_age and self._age is not None:
            order, cursor, types = [age, *order], [_BLOCKS.fill("age"), *cursor], [self._age.type, *types]
        after = NOTHING
        if self.last is not None:
            values = (
                _BLOCKS.fill("cast", value=parameters.add(text), type=type_)
                for text, type_ in zip(self.last, types, strict=True)
            )
            after = _BLOCKS.fill("after", columns=joined(order), values=joined(values))
        limits = [_BLOCKS.fill("all")]
        if self._by_age and self._below is not None:
            limits = [_BLOCKS.fill("older", age=age, below=parameters.once("below", self._below))]
        if self._by_age and self._since is not None:
            limits.append(_BLOCKS.fill("since", age=age, since=parameters.add(self._since)))
        if self._narrowed is not None:
            limits.append(_BLOCKS.fill("narrowed", condition=self._narrowed))
        scan = _BLOCKS.fill(
            "scanned",
            table=table.sql,
            keys=key_as,
            age=age,
            more=self._more(parameters),
            range=joined(limits, " "),
            after=after,
            order=joined(order),
            limit=parameters.add(rows),
            cursor=joined(_BLOCKS.fill("text", name=name) for name in cursor),
            backwards=joined(_BLOCKS.fill("descending", name=name) for name in cursor),
        )
        return Page(table, parameters, scan, key_as, _same(pairs), self._below)


class Chosen(Pages):
    """Pages of rows that are known already: their keys as texts, and their version (xmin).  Of a row that has changed
    since, nothing is found."""

    def __init__(self, work: Work[Any], table: Table, keys: Sequence[Sequence[str]], versions: Sequence[str]) -> None:
        super().__init__(work, table)
        self._keys = keys
        self._versions = versions
        self._at = 0

    def page(self, rows: int) -> Page:
        table, parameters = self._table, Parameters(self._work.now)
        pairs = _keys(table)
        here = slice(self._at, self._at + rows)
        columns = [[key[n] for key in self._keys[here]] for n in range(len(pairs))]
        scan = _BLOCKS.fill(
            "chosen",
            arrays=joined(_BLOCKS.fill("texts", value=parameters.add(column)) for column in columns),
            versions=parameters.add(list(self._versions[here])),
            names=joined(name for _, name in pairs),
            keys=joined(
                _BLOCKS.fill("typed", name=name, type=column.type)
                for (_, name), column in zip(pairs, table.key, strict=True)
            ),
        )
        return Page(table, parameters, scan, _named(pairs), _same(pairs), None)

    def _goes_on(self, said: Mapping[str, Any], asked: int) -> bool:
        self._at += said["scanned"]
        return self._at < len(self._keys)


def key_texts(table: Table) -> Sql:
    """The key of a row `t` as an array of texts."""
    return _BLOCKS.fill("array", texts=joined(_BLOCKS.fill("text", name=key) for key, _ in _keys(table)))


def _keys(table: Table) -> list[tuple[Sql, Sql]]:
    """The columns of the key, and what a page calls them."""
    return [(of(ROW, column.sql), alias("k", n)) for n, column in enumerate(table.key, 1)]


def _named(pairs: Iterable[tuple[Sql, Sql]]) -> Sql:
    return joined(_BLOCKS.fill("named", column=key, name=name) for key, name in pairs)


def _same(pairs: Iterable[tuple[Sql, Sql]]) -> Sql:
    return joined((_BLOCKS.fill("same", column=key, name=name) for key, name in pairs), " and ")
