"""One account's rows, deleted batch by batch, children before what they point to; each batch is a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, TypeVar

from jobs.accounts.held import Held
from jobs.accounts.mine import BLOCKS, Account, among, comparable, going, known, own
from jobs.accounts.settings import EraseSettings
from jobs.accounts.ties import Edge, Holding
from jobs.archive.manifest import FOLDER
from jobs.catalogue.ground import Column, Table
from jobs.catalogue.pace import Pace
from jobs.catalogue.pages import AGAIN_S, REFUSED, TRIES
from jobs.catalogue.skeleton import ROW, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Work
from jobs.model import Retry
from jobs.storage.names import is_path

FILE = alias("f", 1)

AHEAD = 20_000
"""Rows that are looked for at once; they are some MB."""

IDLE = 3

T = TypeVar("T")
Condition = Callable[[Parameters], Sql]
Noted = Callable[[Account, Parameters], Sql]


async def fetched(work: Work[Any], text: str, values: Sequence[Any]) -> list[Any]:
    rows: list[Any] = await work.conn.fetch(text, *values)
    return rows


class Stuck:
    """Counts pages of which nothing went: a trigger or a policy that keeps rows must not keep us for ever."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._idle = 0

    def after(self, count: int) -> None:
        self._idle = 0 if count else self._idle + 1
        if self._idle >= IDLE:
            raise Retry(f"rows of {self._table.asked} stay, whatever is done; look at its triggers", code="stuck")


class Undeleted(Exception):
    """Somebody has taken the deletion back meanwhile: from then on nothing more goes."""


class Clearing:
    """`files`: by table, the column with paths in the storage.  `noted`: what is written beside a deletion of an
    account's rows."""

    def __init__(self, work: Work[EraseSettings], found: Held, files: Mapping[str, str], noted: Noted) -> None:
        self._work, self._held, self._files, self._noted = work, found, files, noted
        self._paces: dict[str, Pace] = {}
        self.rows = 0

    async def open(self, holding: Holding, edge: Edge, account: Account) -> None:
        """A circle of foreign keys, cut on the side that can be null."""
        table = self._held.tables[holding.table]

        def condition(parameters: Parameters) -> Sql:
            points = joined((BLOCKS.fill("held", column=of(ROW, table.columns[c].sql)) for c in edge.columns), " or ")
            return BLOCKS.fill("both", one=going(self._held, holding, account, parameters), other=points)

        await self._set(table, edge.columns, account, condition)

    async def delete(self, holding: Holding, account: Account) -> None:
        """All that goes with the account of this table, and before it what hangs on it alone."""
        await self._delete(holding.table, account, lambda parameters: going(self._held, holding, account, parameters))

    async def revoke(self, holding: Holding, account: Account) -> None:
        """All that names the account in this table, and what hangs on it."""
        for edge in holding.loops:
            await self.open(holding, edge, account)

        def condition(parameters: Parameters) -> Sql:
            return joined((own(self._held, edge, account, parameters) for edge in holding.own), " or ")

        await self._delete(holding.table, account, condition)

    async def forget(self, edge: Edge, columns: Sequence[str], account: Account) -> None:
        """Rows that stay, and name the account in this way: these columns are emptied."""
        table = self._held.tables[edge.child]
        await self._set(table, columns, account, lambda parameters: own(self._held, edge, account, parameters))

    # --- batches ------------------------------------------------------------------------------------------------------

    async def _delete(self, name: str, account: Account, condition: Condition, edge: Edge | None = None) -> None:
        """`edge`: what the condition is about, where it is dear to ask again: rows are named by its columns, too."""
        table = self._held.tables[name]
        dependents = self._held.ties.dependents.get(name, ())
        named = [*table.key, *(table.columns[column] for column in (edge.columns if edge is not None else ()))]
        again = _nothing_more if edge is not None else condition

        async def gone(page: Sequence[Any]) -> int:
            return await self._in_batches(
                table,
                account,
                page,
                lambda some: self._deleted(table, named, [r[: len(named)] for r in some], account, again),
            )

        stuck = Stuck(table)
        over = False
        while not over:
            ahead = await self._ahead(table, named, dependents, condition)
            count = 0
            for page in self._pages(table, ahead):
                for hanging in dependents:
                    await self._dependents(hanging, account, page)
                await self._remove_files(name, page)
                count += await gone(page)
            over = _was_all(stuck, ahead, count)

    async def _dependents(self, edge: Edge, account: Account, page: Sequence[Any]) -> None:
        """Rows of a table that says nothing of accounts, by the rows that they point to."""
        child, parent = self._held.tables[edge.child], self._held.tables[edge.parent]
        names = _pointed(self._held.ties.dependents[edge.parent])
        values = [[row[names[column]] for column in edge.parent_columns] for row in page]
        columns = [child.columns[column] for column in edge.columns]
        pointed = [parent.columns[column] for column in edge.parent_columns]
        types = [comparable(one, other) for one, other in zip(columns, pointed, strict=True)]
        await self._delete(edge.child, account, lambda parameters: among(columns, values, parameters, types), edge)

    async def _set(self, table: Table, columns: Sequence[str], account: Account, condition: Condition) -> None:
        stuck = Stuck(table)
        over = False
        while not over:
            ahead = await self._ahead(table, table.key, (), condition)
            rows = [row[: len(table.key)] for row in ahead]
            count = await self._in_batches(
                table, account, rows, lambda some: self._blanked(table, some, columns, account, condition)
            )
            over = _was_all(stuck, ahead, count)

    def _pages(self, table: Table, ahead: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """As many rows at a time as a batch has by then."""
        done = 0
        while done < len(ahead):
            page = ahead[done : done + self._pace(table).rows]
            done += len(page)
            yield page

    async def _in_batches(
        self, table: Table, account: Account, rows: Sequence[Any], batch: Callable[[Sequence[Any]], Awaitable[int]]
    ) -> int:
        """How many have changed; Undeleted."""
        changed = done = 0
        while done < len(rows):
            count, asked = await self._paced(table, rows[done:], batch)
            if not count and await known(self._work, self._held, str(account[self._held.key.name])) is None:
                raise Undeleted("an account that was being erased is not deleted any more")
            changed, done = changed + count, done + asked
        return changed

    def _still(self, account: Account, condition: Sql, parameters: Parameters) -> Sql:
        """And that the account is still deleted: asked once a statement."""
        accounts, key = self._held.accounts, self._held.key
        deleted = BLOCKS.fill(
            "still",
            accounts=accounts.sql,
            key=key.sql,
            account=parameters.add(account[key.name]),
            type=key.type,
            deleted=accounts.columns[self._work.settings.deleted_column].sql,
        )
        return BLOCKS.fill("both", one=condition, other=deleted)

    async def _ahead(
        self, table: Table, named: Sequence[Column], dependents: Sequence[Edge], condition: Condition
    ) -> list[Any]:
        """The rows that are next, for many batches: whoever looks for them again goes past all that has gone already,
        as long as some transaction may still see it."""
        parameters = Parameters(self._work.now)
        shown = [_shown(column, alias("k", n)) for n, column in enumerate(named, 1)]
        shown += [_shown(table.columns[column], name) for column, name in _pointed(dependents).items()]
        if table.sql in self._files:
            shown.append(_shown(table.columns[self._files[str(table.sql)]], FILE))
        text = BLOCKS.fill(
            "page", shown=joined(shown), table=table.sql, condition=condition(parameters), limit=parameters.add(AHEAD)
        )
        return await self._tried(table, lambda: fetched(self._work, str(text), parameters.values))

    async def _deleted(
        self,
        table: Table,
        named: Sequence[Column],
        rows: Sequence[Sequence[str]],
        account: Account,
        again: Condition,
    ) -> int:
        parameters = Parameters(self._work.now)
        text = BLOCKS.fill(
            "delete",
            table=table.sql,
            same=among(named, rows, parameters),
            condition=self._still(account, again(parameters), parameters),
            noted=self._noted(account, parameters),
        )
        count: int = await self._work.conn.fetchval(str(text), *parameters.values)
        self.rows += count
        return count

    async def _blanked(
        self,
        table: Table,
        rows: Sequence[Sequence[str]],
        columns: Sequence[str],
        account: Account,
        condition: Condition,
    ) -> int:
        parameters = Parameters(self._work.now)
        text = BLOCKS.fill(
            "blank",
            table=table.sql,
            sets=joined(_emptying(table.columns[column]) for column in columns),
            same=among(table.key, rows, parameters),
            condition=self._still(account, condition(parameters), parameters),
        )
        count: int = await self._work.conn.fetchval(str(text), *parameters.values)
        return count

    async def _remove_files(self, name: str, page: Sequence[Any]) -> None:
        if name in self._files:
            paths = [row[FILE] for row in page if row[FILE] is not None and _may_go(row[FILE])]
            await self._work.ctx.storage.delete(paths)

    def _pace(self, table: Table) -> Pace:
        return self._paces.setdefault(str(table.sql), Pace(self._work.settings.batch))

    async def _paced(
        self, table: Table, rows: Sequence[Any], batch: Callable[[Sequence[Any]], Awaitable[int]]
    ) -> tuple[int, int]:
        """One batch of these rows, smaller each time it is in somebody's way; how many have changed, of how many."""
        pace = self._pace(table)

        async def one() -> tuple[int, int, float]:
            some, began = rows[: pace.rows], perf_counter()
            count = await batch(some)
            return count, len(some), perf_counter() - began

        count, asked, took_s = await self._tried(table, one, pace.refused)
        pace.took(took_s, asked)
        await asyncio.sleep(min(self._work.settings.pause, took_s))
        return count, asked

    async def _tried(
        self, table: Table, step: Callable[[], Awaitable[T]], refused: Callable[[], None] = lambda: None
    ) -> T:
        for tried in range(1, TRIES + 1):
            try:
                return await step()
            except REFUSED as error:
                refused()
                said = str(error)
                await asyncio.sleep(AGAIN_S * tried)
        raise Retry(f"{table.asked}: a batch was refused {TRIES} times: {said}", code="locked")


def _was_all(stuck: Stuck, ahead: Sequence[Any], count: int) -> bool:
    """Whether nothing is left, when so many of the rows that were read have changed."""
    if not ahead:
        return True
    stuck.after(count)
    return len(ahead) < AHEAD and count == len(ahead)


def _may_go(path: str) -> bool:
    """Paths come out of rows that an account may have written: none of them leads into the archives."""
    return is_path(path) and not path.startswith(f"{FOLDER}/")


def _nothing_more(_parameters: Parameters) -> Sql:
    return BLOCKS.fill("all")


def _pointed(dependents: Sequence[Edge]) -> dict[str, Sql]:
    """The columns that rows of other tables point to, by the names they get in a page."""
    columns = dict.fromkeys(column for edge in dependents for column in edge.parent_columns)
    return {column: alias("r", n) for n, column in enumerate(columns, 1)}


def _shown(column: Column, name: Sql) -> Sql:
    return BLOCKS.fill("named", column=BLOCKS.fill("text", column=of(ROW, column.sql)), name=name)


def _emptying(column: Column) -> Sql:
    return BLOCKS.fill("default" if column.not_null else "null", column=column.sql)
