"""The verb `erase_account`: nothing that was a deleted account's is left, in any table, and its request says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

import sql
from jobs.accounts.clearing import Clearing, Undeleted, fetched
from jobs.accounts.erase_needs import erase_needs, inspect, kept
from jobs.accounts.held import Held, held, request_edges
from jobs.accounts.mine import BLOCKS, Account, comparable, known, mine, pairs
from jobs.accounts.settings import EraseSettings, place
from jobs.accounts.ties import Edge, Holding
from jobs.catalogue.ground import Column, Table
from jobs.catalogue.skeleton import NOTHING, ROW, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Result, Verb, Work
from jobs.model import Retry
from jobs.storage.faults import StorageError

_SQL = sql.load("accounts.sql")

PAGE = 100
"""Accounts that are looked up at once."""

MOST, SAMPLE, COUNT_MAX = 1_000, 5, 1_000_000
"""A rehearsal counts so many accounts, and of so many of them so many rows of a table."""

PASSES = 3
"""Rows that come while an account is erased are looked for so often."""

LOCKED = 3
"""When the last so many failures were locks, these are nobody's own: a table is being altered, and the run ends."""

UNFIT = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, asyncpg.RaiseError)
"""What one account's rows may be refused for; the others' need not be."""


@dataclass(frozen=True, slots=True)
class Next:
    """Where a run is in the accounts."""

    account: str
    deleted: str


async def _run(work: Work[EraseSettings]) -> Result:
    found = await held(work.conn, work.settings, work.tables, kept(work.settings))
    await work.conn.execute(_SQL["planned_once"])
    return await Erasing(work, found).run()


class Erasing:
    """One run: access of all who are deleted goes first, then account after account."""

    def __init__(self, work: Work[EraseSettings], found: Held) -> None:
        self._work, self._held = work, found
        settings, known = work.settings, work.tables
        self._stay = {str(known[name].sql): tuple(columns) for name, columns in settings.blank.items()}
        files = [place(name) for name in settings.files]
        self._requests = None if settings.requests is None else known[settings.requests]
        self._request = None if self._requests is None else request_edges(settings, self._requests, found)[0]
        by_table = {str(known[table].sql): column for table, column in files}
        self._clearing = Clearing(work, found, by_table, self._noted)
        self._erased = self._total = 0
        self._failed: list[Retry] = []

    async def run(self) -> Result:
        try:
            return await self._run()
        except StorageError as error:
            raise Retry(str(error), code="storage") from error

    async def _run(self) -> Result:
        for name in self._work.settings.revoke:
            await self._revoke(self._work.tables[name])
        after: Next | None = None
        while page := await self._page(after):
            for one in page:
                after = one
                await self._account(one.account)
                if self._enough():
                    return self._result()
        if self._failed:
            first = self._failed[0]
            raise Retry(f"{len(self._failed)} accounts could not be erased: {first.reason}", code=first.code)
        return self._result()

    def _enough(self) -> bool:
        most = self._work.args.max_rows
        return most is not None and self._clearing.rows >= most

    def _result(self) -> Result:
        return {"erased": self._erased, "deleted": self._clearing.rows, "failed": len(self._failed)}

    # --- one account --------------------------------------------------------------------------------------------------

    async def _account(self, key: str) -> None:
        """From whatever state a run before this has left it in."""
        account = await known(self._work, self._held, key)
        if account is not None and await self._done(account, self._erase):
            self._erased += 1

    async def _done(self, account: Account, step: Callable[[Account], Awaitable[None]]) -> bool:
        """False: it could not be done, which is noted, and the other accounts have their turn."""
        refused = Retry("")
        for _ in range(PASSES):
            try:
                await step(account)
            except Undeleted as error:
                refused = Retry(str(error), code="not_erased")
                break
            except Retry as error:  # a row that stays locked, or stays whatever is done
                refused = error
                break
            except UNFIT as error:  # a row has come since, or is another account's, or a trigger refuses
                refused = Retry(f"{error}: {error.detail}" if error.detail else str(error), code="not_erased")
            else:
                return True
        self._work.ctx.log.warning("account_not_erased", error=refused.reason)
        self._failed.append(refused)
        if {one.code for one in self._failed[-LOCKED:]} == {"locked"} and len(self._failed) >= LOCKED:
            raise refused
        return False

    async def _erase(self, account: Account) -> None:
        await self._clear(account)
        await self._finish(account)

    async def _clear(self, account: Account) -> None:
        clearing, holdings = self._clearing, self._held.ties.holdings
        for edge in self._held.ties.root_loops:
            await clearing.forget(edge, edge.columns, account)
        for holding in holdings:
            for edge in holding.loops:
                await clearing.open(holding, edge, account)
        for holding in holdings:
            for edge, columns in self._emptied(holding):
                await clearing.forget(edge, columns, account)
            if holding.taking and not self._stays(holding):
                await clearing.delete(holding, account)
            await self._work.ctx.progress(self._percent(), erased=self._erased, deleted=clearing.rows)

    def _stays(self, holding: Holding) -> bool:
        return holding.table in self._stay or (self._requests is not None and holding.table == str(self._requests.sql))

    def _emptied(self, holding: Holding) -> Iterator[tuple[Edge, Sequence[str]]]:
        """What of rows that stay is emptied, by the edge that names the account.  Columns that name another account are
        that one's."""
        table = self._held.tables[holding.table]
        for edge in holding.own:
            others = {c for other in holding.own if other != edge for c in other.columns} - set(edge.columns)
            if holding.table in self._stay:
                yield edge, [column for column in self._stay[holding.table] if column not in others]
            elif self._stays(holding):
                if edge != self._request:  # that one marks the end
                    yield edge, edge.columns
            elif edge.action == "n" and "update" in table.rights:  # else Postgres does it, all rows in one statement
                yield edge, edge.emptied or edge.columns

    async def _revoke(self, table: Table) -> None:
        """The rows that any deleted account has in it."""
        holding, last = self._held.ties.by_name[str(table.sql)], None

        async def revoked(account: Account) -> None:
            await self._clearing.revoke(holding, account)

        while found := await self._with_access(table, holding, last):
            for last in found:
                account = await known(self._work, self._held, last)
                if account is not None:
                    await self._done(account, revoked)

    async def _with_access(self, table: Table, holding: Holding, last: str | None) -> list[str]:
        accounts, key, parameters = self._held.accounts, self._held.key, Parameters(self._work.now)
        beyond = NOTHING
        if last is not None:
            beyond = BLOCKS.fill("beyond", key=key.sql, last=parameters.add(last), type=key.type)
        there = (
            pairs(
                alias("a", 1), [table.columns[c] for c in edge.columns],
                ROW, [accounts.columns[c] for c in edge.parent_columns],
            )
            for edge in holding.own
        )  # fmt: skip
        text = BLOCKS.fill(
            "with_access",
            key=key.sql,
            accounts=accounts.sql,
            deleted=accounts.columns[self._work.settings.deleted_column].sql,
            after=beyond,
            table=table.sql,
            joined=joined(there, " or "),
            limit=parameters.add(PAGE),
        )
        return [row["account"] for row in await fetched(self._work, str(text), parameters.values)]

    def _percent(self) -> float:
        return min(99.0, 100.0 * self._erased / max(self._total, 1))

    async def _finish(self, account: Account) -> None:
        """Its request is marked and its row goes, in one transaction: the end is there, or it is not."""
        conn = self._work.conn
        async with conn.transaction():
            if self._requests is not None:
                parameters = Parameters(self._work.now)
                text = BLOCKS.fill(
                    "completed",
                    requests=self._requests.sql,
                    column=self._request_column.sql,
                    asked=self._asked(account, parameters),
                )
                await conn.execute(str(text), *parameters.values)
            parameters = Parameters(self._work.now)
            accounts, key = self._held.accounts, self._held.key
            text = BLOCKS.fill(
                "finish",
                accounts=accounts.sql,
                key=of(ROW, key.sql),
                account=parameters.add(account[key.name]),
                type=key.type,
                deleted=of(ROW, accounts.columns[self._work.settings.deleted_column].sql),
            )
            if not await conn.fetchval(str(text), *parameters.values):
                raise Undeleted("an account that was being erased is not deleted any more")

    def _noted(self, account: Account, parameters: Parameters) -> Sql:
        """What counts deleted rows in the request."""
        if self._requests is None:
            return NOTHING
        return BLOCKS.fill("noted", requests=self._requests.sql, asked=self._asked(account, parameters))

    @property
    def _request_column(self) -> Column:
        assert self._requests is not None and self._request is not None  # noqa: S101, PT018  inspected before
        return self._requests.columns[self._request.columns[0]]

    def _asked(self, account: Account, parameters: Parameters) -> Sql:
        column = self._request_column
        return BLOCKS.fill(
            "equal",
            column=of(alias("r", 1), column.sql),
            value=parameters.add(account[self._held.key.name]),
            type=comparable(column, self._held.key),
        )

    # --- which accounts -----------------------------------------------------------------------------------------------

    async def _page(self, after: Next | None) -> list[Next]:
        rows = await fetched(self._work, *doomed(self._work, self._held, after, PAGE))
        self._total = max(self._total, self._erased + len(rows))
        return [Next(row["account"], row["deleted"]) for row in rows]


def doomed(work: Work[EraseSettings], found: Held, after: Next | None, limit: int) -> tuple[str, list[Any]]:
    """The next accounts whose grace is over."""
    accounts, parameters = found.accounts, Parameters(work.now)
    key, deleted = of(ROW, found.key.sql), of(ROW, accounts.columns[work.settings.deleted_column].sql)
    beyond = NOTHING
    if after is not None:
        beyond = BLOCKS.fill(
            "after",
            deleted=deleted,
            key=key,
            from_deleted=parameters.add(after.deleted),
            from_key=parameters.add(after.account),
            type=found.key.type,
        )
    text = BLOCKS.fill(
        "doomed",
        key=key,
        deleted=deleted,
        table=accounts.sql,
        now=parameters.now,
        seconds=parameters.add(str(float(work.settings.grace))),
        after=beyond,
        limit=parameters.add(limit),
    )
    return str(text), parameters.values


async def _rehearse(work: Work[EraseSettings]) -> Result:
    """How many accounts, and for the first of them how many rows of which table."""
    found = await held(work.conn, work.settings, work.tables, kept(work.settings))
    text, values = doomed(work, found, None, MOST)
    rows = await work.conn.fetch(text, *values)
    tables: dict[str, int] = {}
    for row in rows[:SAMPLE]:
        account = await known(work, found, row["account"])
        for holding in found.ties.holdings if account is not None else ():
            parameters = Parameters(work.now)
            condition = mine(found, holding, account or {}, parameters)
            asked = BLOCKS.fill(
                "count", table=found.tables[holding.table].sql, condition=condition, limit=parameters.add(COUNT_MAX)
            )
            tables[holding.table] = tables.get(holding.table, 0) + await work.conn.fetchval(
                str(asked), *parameters.values
            )
    return {
        "would_erase": len(rows),
        **({} if len(rows) < MOST else {"or_more": True}),
        "rows_of_the_first": {name: count for name, count in tables.items() if count},
    }


ERASE = Verb(
    name="erase_account",
    doc="Erases what deleted accounts had: access first, then every table that holds rows of theirs, found along "
    "foreign keys and `links`, in batches; last the account itself.",
    settings=EraseSettings,
    needs=erase_needs,
    run=_run,
    rehearse=_rehearse,
    inspect=inspect,
)
