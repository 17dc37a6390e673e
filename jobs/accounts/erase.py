"""The verb `erase_account`: nothing that was a deleted account's is left, in any table, and its request says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

import sql
from jobs.accounts.clearing import Clearing, fetched
from jobs.accounts.held import Held, held, needs, placed
from jobs.accounts.mine import BLOCKS, Account, account_columns, mine
from jobs.accounts.settings import EraseSettings, place
from jobs.accounts.ties import Edge
from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Fault, Need, NeedsColumn, NeedsTable
from jobs.catalogue.skeleton import NOTHING, ROW, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Result, Verb, Work
from jobs.model import Retry

_SQL = sql.load("accounts.sql")

PAGE = 100
"""Accounts that are looked up at once."""

MOST, SAMPLE, COUNT_MAX = 1_000, 5, 1_000_000
"""A rehearsal counts so many accounts, and of so many of them so many rows of a table."""

PASSES = 3
"""Rows that come while an account is erased are looked for so often."""


@dataclass(frozen=True, slots=True)
class Next:
    """Where a run is in the accounts."""

    account: str
    deleted: str


def _needs(settings: EraseSettings) -> Iterator[Need]:
    yield from needs(settings)
    yield NeedsTable("table", settings.table, ("select", "delete"), keyed=True)
    for name in settings.revoke:
        yield NeedsTable("revoke", name, ("select", "delete"), keyed=True)
    for name, columns in settings.blank.items():
        yield NeedsTable(f"blank.{name}", name, ("select", "update"), keyed=True)
        for column in columns:
            yield NeedsColumn(f"blank.{name}", name, column, written=True)
    for name in settings.files:
        yield from placed("files", name)
    if settings.requests is not None:
        yield NeedsTable("requests", settings.requests)
        yield NeedsColumn("requests", settings.requests, "completed_at", "time", written=True)
        yield NeedsColumn("requests", settings.requests, "rows_deleted", "number", written=True)


async def _inspect(conn: Any, settings: EraseSettings, known: Mapping[str, Table]) -> list[Fault]:
    """What only the map of all tables shows."""
    found = await held(conn, settings, known, settings.blank)
    return [*found.faults, *_unfit(settings, known, found)]


def _unfit(settings: EraseSettings, known: Mapping[str, Table], found: Held) -> Iterator[Fault]:
    stay = {str(known[name].sql) for name in settings.blank}
    for holding in found.ties.holdings:
        table = found.tables[holding.table]
        if holding.table not in stay and not _lets_go(holding.own) and "delete" not in table.rights:
            yield Fault(
                "table", f"role {table.role} may not delete: grant select, delete on {table.sql} to {table.role}"
            )
    for name, columns in settings.blank.items():
        blanked = found.holding(known[name])
        own = set() if blanked is None else {c for edge in blanked.own for c in edge.columns}
        if not own:
            yield Fault(f"blank.{name}", f"no column of {name} holds an account")
        elif left := own - set(columns):
            yield Fault(f"blank.{name}", f"{', '.join(sorted(left))} would go on naming the account; empty it, too")
    for name in settings.revoke:
        opening = found.holding(known[name])
        if opening is None or not opening.own:
            yield Fault("revoke", f"no column of {name} holds an account")
    if settings.requests is not None and _request_column(settings.requests, known, found) is None:
        yield Fault("requests", f"no column of {settings.requests} that can be null holds an account")


def _lets_go(own: tuple[Edge, ...]) -> bool:
    return bool(own) and all(edge.action in ("n", "d") for edge in own)


def _request_column(name: str, known: Mapping[str, Table], found: Held) -> str | None:
    holding = found.holding(known[name])
    columns = [] if holding is None else [edge.columns[0] for edge in holding.own if len(edge.columns) == 1]
    return next((column for column in columns if not known[name].columns[column].not_null), None)


async def _run(work: Work[EraseSettings]) -> Result:
    found = await held(work.conn, work.settings, work.tables, work.settings.blank)
    await work.conn.execute(_SQL["planned_once"])
    return await Erasing(work, found).run()


class Undeleted(Exception):
    """Somebody has taken the deletion back meanwhile."""


class Erasing:
    """One run: access of all who are deleted goes first, then account after account."""

    def __init__(self, work: Work[EraseSettings], found: Held) -> None:
        self._work, self._held = work, found
        settings, known = work.settings, work.tables
        self._stay = {str(known[name].sql): tuple(columns) for name, columns in settings.blank.items()}
        files = [place(name) for name in settings.files]
        self._requests = None if settings.requests is None else known[settings.requests]
        self._request_column = settings.requests and _request_column(settings.requests, known, found)
        by_table = {str(known[table].sql): column for table, column in files}
        self._clearing = Clearing(work, found, by_table, self._noted, self._noted_each())
        self._erased = self._total = 0
        self._failed: list[str] = []

    async def run(self) -> Result:
        for name in self._work.settings.revoke:
            await self._clearing.revoke(self._work.tables[name])
        after: Next | None = None
        while page := await self._page(after):
            for one in page:
                after = one
                await self._account(one.account)
                if self._enough():
                    return self._result()
        if self._failed:
            raise Retry(f"{len(self._failed)} accounts could not be erased: {self._failed[0]}", code="not_erased")
        return self._result()

    def _enough(self) -> bool:
        most = self._work.args.max_rows
        return most is not None and self._clearing.rows >= most

    def _result(self) -> Result:
        return {"erased": self._erased, "deleted": self._clearing.rows, "failed": len(self._failed)}

    async def _account(self, key: str) -> None:
        """From whatever state a run before this has left it in."""
        account = await self.known(key)
        if account is None:
            return
        refused = ""
        for _ in range(PASSES):
            try:
                await self._clear(account)
                await self._finish(account)
                self._erased += 1
                return
            except Undeleted as error:
                refused = str(error)
                break
            except asyncpg.ForeignKeyViolationError as error:  # a row has come since, or is another account's
                refused = f"{error}: {error.detail}" if error.detail else str(error)
        self._work.ctx.log.warning("account_not_erased", error=refused)
        self._failed.append(refused)

    async def _clear(self, account: Account) -> None:
        for edge in self._held.ties.root_loops:
            await self._clearing.open_root(edge, account)
        for holding in self._held.ties.holdings:
            for edge in holding.loops:
                await self._clearing.open(holding, edge, account)
        for holding in self._held.ties.holdings:
            if holding.table in self._stay:
                await self._clearing.blank(holding, self._stay[holding.table], account)
            elif holding.own and not _lets_go(holding.own):
                await self._clearing.delete(holding, account)
            await self._work.ctx.progress(self._percent(), erased=self._erased, deleted=self._clearing.rows)

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
                    column=self._requests.columns[str(self._request_column)].sql,
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

    def _noted_each(self) -> Sql:
        """The same, of many accounts at once."""
        if self._requests is None or not self._request_column:
            return NOTHING
        column = self._requests.columns[self._request_column]
        return BLOCKS.fill("noted_each", requests=self._requests.sql, column=column.sql)

    def _asked(self, account: Account, parameters: Parameters) -> Sql:
        assert self._requests is not None and self._request_column  # noqa: S101, PT018  inspected before
        column = self._requests.columns[self._request_column]
        return BLOCKS.fill(
            "equal",
            column=of(alias("r", 1), column.sql),
            value=parameters.add(account[self._held.key.name]),
            type=column.type,
        )

    # --- which accounts -----------------------------------------------------------------------------------------------

    async def _page(self, after: Next | None) -> list[Next]:
        rows = await fetched(self._work, *doomed(self._work, self._held, after, PAGE))
        self._total = max(self._total, self._erased + len(rows))
        return [Next(row["account"], row["deleted"]) for row in rows]

    async def known(self, key: str) -> Account | None:
        """What others may hold of it; None: it is not there, or not deleted."""
        accounts, parameters = self._held.accounts, Parameters(self._work.now)
        names = account_columns(self._held)
        text = BLOCKS.fill(
            "account",
            shown=joined(BLOCKS.fill("text", column=of(ROW, accounts.columns[name].sql)) for name in names),
            table=accounts.sql,
            key=of(ROW, self._held.key.sql),
            account=parameters.add(key),
            type=self._held.key.type,
            deleted=of(ROW, accounts.columns[self._work.settings.deleted_column].sql),
        )
        row = await self._work.conn.fetchrow(str(text), *parameters.values)
        return None if row is None else dict(zip(names, row, strict=True))


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
    found = await held(work.conn, work.settings, work.tables, work.settings.blank)
    text, values = doomed(work, found, None, MOST)
    rows = await work.conn.fetch(text, *values)
    erasing = Erasing(work, found)
    tables: dict[str, int] = {}
    for row in rows[:SAMPLE]:
        account = await erasing.known(row["account"])
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
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
    inspect=_inspect,
)
