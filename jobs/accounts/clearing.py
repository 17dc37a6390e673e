"""One account's rows, deleted batch by batch, children before what they point to; each batch is a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from jobs.accounts.held import Held
from jobs.accounts.mine import BLOCKS, Account, among, mine, own, pairs
from jobs.accounts.settings import EraseSettings
from jobs.accounts.ties import Edge, Holding
from jobs.catalogue.ground import Column, Table
from jobs.catalogue.pace import Pace
from jobs.catalogue.pages import AGAIN_S, REFUSED, TRIES
from jobs.catalogue.skeleton import ROW, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Work
from jobs.model import Retry
from jobs.storage.names import is_path

THEIRS, FOUND, FILE = alias("a", 1), alias("u", 1), alias("f", 1)

Condition = Callable[[Parameters], Sql]
Noted = Callable[[Account, Parameters], Sql]


async def fetched(work: Work[Any], text: str, values: Sequence[Any]) -> list[Any]:
    rows: list[Any] = await work.conn.fetch(text, *values)
    return rows


class Stuck:
    """Counts batches that changed nothing: a trigger or a policy that keeps rows must not keep us for ever."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._idle = 0

    def after(self, count: int) -> None:
        self._idle = 0 if count else self._idle + 1
        if self._idle >= TRIES:
            raise Retry(f"rows of {self._table.asked} stay, whatever is done; look at its triggers", code="stuck")


class Clearing:
    """`files`: by table, the column with paths in the storage.  `noted`: what is written beside a deletion of
    one account's rows, `noted_each` beside one of many accounts'."""

    def __init__(
        self, work: Work[EraseSettings], found: Held, files: Mapping[str, str], noted: Noted, noted_each: Sql
    ) -> None:
        self._noted_each = noted_each
        self._work, self._held, self._files, self._noted = work, found, files, noted
        self._paces: dict[str, Pace] = {}
        self.rows = 0

    async def revoke(self, table: Table) -> None:
        """The rows that any deleted account has in it."""
        holding = self._held.holding(table)
        for edge in () if holding is None else holding.own:
            while await self._paced(table, partial(self._revoked, table, edge), rest=True):
                pass

    async def delete(self, holding: Holding, account: Account) -> None:
        """All that is the account's in this table, and before it what hangs on it alone."""
        await self._delete(holding.table, account, lambda parameters: mine(self._held, holding, account, parameters))

    async def blank(self, holding: Holding, columns: Sequence[str], account: Account) -> None:
        """Rows that stay: these columns are emptied."""
        table = self._held.tables[holding.table]
        await self._set(table, columns, lambda parameters: mine(self._held, holding, account, parameters))

    async def open(self, holding: Holding, edge: Edge, account: Account) -> None:
        """A circle of foreign keys, cut on the side that can be null."""
        table = self._held.tables[holding.table]

        def condition(parameters: Parameters) -> Sql:
            points = joined((BLOCKS.fill("held", column=of(ROW, table.columns[c].sql)) for c in edge.columns), " or ")
            return BLOCKS.fill("both", one=mine(self._held, holding, account, parameters), other=points)

        await self._set(table, edge.columns, condition)

    async def open_root(self, edge: Edge, account: Account) -> None:
        """Accounts that point to this one."""
        accounts = self._held.accounts

        def condition(parameters: Parameters) -> Sql:
            return own(edge, accounts, account, parameters, ROW)

        await self._set(accounts, edge.columns, condition)

    # --- batches ------------------------------------------------------------------------------------------------------

    async def _delete(self, name: str, account: Account, condition: Condition, by: Sequence[str] = ()) -> None:
        """`by`: columns that the condition is about, where it is dear to ask again: the rows are named by them, too."""
        table = self._held.tables[name]
        dependents = self._held.ties.dependents.get(name, ())
        named = [*table.key, *(table.columns[column] for column in by)]
        again = _nothing_more if by else condition
        stuck = Stuck(table)
        while page := await self._paced(table, partial(self._page, table, named, dependents, condition)):
            for edge in dependents:
                await self._dependents(edge, account, page)
            rows = [row[: len(named)] for row in page]
            await self._remove_files(name, page)
            stuck.after(await self._paced(table, partial(self._deleted, table, named, rows, account, again), rest=True))

    async def _dependents(self, edge: Edge, account: Account, page: Sequence[Any]) -> None:
        """Rows of a table that says nothing of accounts, by the rows that they point to."""
        child = self._held.tables[edge.child]
        names = _pointed(self._held.ties.dependents[edge.parent])
        values = [[row[names[column]] for column in edge.parent_columns] for row in page]
        columns = [child.columns[column] for column in edge.columns]
        await self._delete(edge.child, account, lambda parameters: among(columns, values, parameters), edge.columns)

    async def _set(self, table: Table, columns: Sequence[str], condition: Condition) -> None:
        stuck = Stuck(table)
        while page := await self._paced(table, partial(self._page, table, table.key, (), condition)):
            rows = [row[: len(table.key)] for row in page]
            stuck.after(await self._paced(table, partial(self._blanked, table, rows, columns, condition), rest=True))

    async def _page(
        self, table: Table, named: Sequence[Column], dependents: Sequence[Edge], condition: Condition, rows: int
    ) -> tuple[list[Any], int]:
        parameters = Parameters(self._work.now)
        shown = [_shown(column, alias("k", n)) for n, column in enumerate(named, 1)]
        shown += [_shown(table.columns[column], name) for column, name in _pointed(dependents).items()]
        if table.sql in self._files:
            shown.append(_shown(table.columns[self._files[str(table.sql)]], FILE))
        text = BLOCKS.fill(
            "page", shown=joined(shown), table=table.sql, condition=condition(parameters), limit=parameters.add(rows)
        )
        found = await fetched(self._work, str(text), parameters.values)
        return found, len(found)

    async def _deleted(
        self,
        table: Table,
        named: Sequence[Column],
        rows: Sequence[Sequence[str]],
        account: Account,
        again: Condition,
        _most: int,
    ) -> tuple[int, int]:
        parameters = Parameters(self._work.now)
        text = BLOCKS.fill(
            "delete",
            table=table.sql,
            same=among(named, rows, parameters),
            condition=again(parameters),
            noted=self._noted(account, parameters),
        )
        count: int = await self._work.conn.fetchval(str(text), *parameters.values)
        self.rows += count
        return count, count

    async def _blanked(
        self, table: Table, rows: Sequence[Sequence[str]], columns: Sequence[str], condition: Condition, _most: int
    ) -> tuple[int, int]:
        parameters = Parameters(self._work.now)
        text = BLOCKS.fill(
            "blank",
            table=table.sql,
            sets=joined(_emptying(table.columns[column]) for column in columns),
            same=among(table.key, rows, parameters),
            condition=condition(parameters),
        )
        count: int = await self._work.conn.fetchval(str(text), *parameters.values)
        return count, count

    async def _revoked(self, table: Table, edge: Edge, rows: int) -> tuple[int, int]:
        parameters, accounts = Parameters(self._work.now), self._held.accounts
        mine_, theirs = [table.columns[c] for c in edge.columns], [accounts.columns[c] for c in edge.parent_columns]
        names = [alias("k", n) for n in range(1, len(table.key) + 1)]
        text = BLOCKS.fill(
            "revoke",
            keys=joined(
                BLOCKS.fill("named", column=of(ROW, c.sql), name=n) for c, n in zip(table.key, names, strict=True)
            ),
            table=table.sql,
            accounts=accounts.sql,
            joined=pairs(ROW, mine_, THEIRS, theirs),
            deleted=accounts.columns[self._work.settings.deleted_column].sql,
            limit=parameters.add(rows),
            key=self._held.key.sql,
            noted=self._noted_each,
            same=joined(
                (
                    BLOCKS.fill("pair", left=of(ROW, c.sql), right=of(FOUND, n))
                    for c, n in zip(table.key, names, strict=True)
                ),
                " and ",
            ),
        )
        count: int = await self._work.conn.fetchval(str(text), *parameters.values)
        self.rows += count
        return count, count

    async def _remove_files(self, name: str, page: Sequence[Any]) -> None:
        if name in self._files:
            paths = [row[FILE] for row in page if row[FILE] is not None and is_path(row[FILE])]
            await self._work.ctx.storage.delete(paths)

    async def _paced(
        self, table: Table, batch: Callable[[int], Awaitable[tuple[Any, int]]], *, rest: bool = False
    ) -> Any:
        """One batch, made smaller and tried again where it is in somebody's way.  `rest`: it has changed something."""
        pace = self._paces.setdefault(str(table.sql), Pace(self._work.settings.batch))
        for tried in range(1, TRIES + 1):
            began = perf_counter()
            try:
                found, count = await batch(pace.rows)
            except REFUSED as error:
                pace.refused()
                refused = str(error)
                await asyncio.sleep(AGAIN_S * tried)
            else:
                took_s = perf_counter() - began
                pace.took(took_s, count)
                if rest:
                    await asyncio.sleep(min(self._work.settings.pause, took_s))
                return found
        raise Retry(f"{table.asked}: a batch was refused {TRIES} times: {refused}", code="locked")


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
