"""The verb `export_account`: all that an account has in one file, for its owner, while the link is good."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, TypeGuard

import asyncpg
import msgspec

import sql
from jobs.accounts.bundle import Bundle, csv_text, file_names, json_text
from jobs.accounts.held import Held, held, needs, placed, request_edges, request_faults
from jobs.accounts.mine import BLOCKS, Account, account_columns, mine
from jobs.accounts.settings import ExportSettings, place
from jobs.archive.table import lossless
from jobs.catalogue.ground import Column, Table
from jobs.catalogue.needs import Fault, Need, NeedsColumn, NeedsTable
from jobs.catalogue.pages import REFUSED
from jobs.catalogue.skeleton import ROW, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Result, Verb, Work
from jobs.model import Retry
from jobs.storage.faults import StorageError
from jobs.storage.names import is_path, segment
from jobs.storage.settings import LONGEST_LINK_S
from jobs.storage.writing import Written

_SQL = sql.load("accounts.sql")

FOLDER = "exports"
ROWS, FIRST_ROWS, PAGE_BYTES = 500, 10, 4 << 20
"""So many are in memory at once, fewer where they are large, and few at first: nobody knows how large they are."""

UNFIT = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.InternalServerError, *REFUSED)
"""What the rows of one account may be refused for (a value too large to be printed, a table that is locked): those of
others need not be, and have their turn."""

EXPIRED_AT_ONCE = 100
STRAY_S = 86400.0
"""A file that no request knows of goes so long after the last link to it can be about."""

_COLUMNS: dict[str, Any] = {
    "id": "any", "state": "text", "location": "text", "size_bytes": "number", "sha256": "any", "requested_at": "time",
    "ready_at": "time", "expires_at": "time",
}  # fmt: skip


def _needs(settings: ExportSettings) -> Iterator[Need]:
    yield from needs(settings)
    yield NeedsColumn("address_column", settings.table, settings.address_column, "text")
    if settings.org_column is not None:
        yield NeedsColumn("org_column", settings.table, settings.org_column)
    yield NeedsTable("requests", settings.requests, ("select", "update"), keyed=True)
    for column, family in _COLUMNS.items():
        yield NeedsColumn("requests", settings.requests, column, family)
    for name in settings.leave_out:
        yield from placed("leave_out", name)


async def _inspect(conn: Any, settings: ExportSettings, known: Mapping[str, Table]) -> list[Fault]:
    """What only the map of all tables shows."""
    found = await held(conn, settings, known)
    unreadable = [
        Fault("table", f"role {t.role} may not read: grant select on {t.sql} to {t.role}")
        for t in found.tables.values()
        if "select" not in t.rights
    ]
    requests = known[settings.requests]
    wrong = request_faults(settings, requests, request_edges(settings, requests, found))
    return [*found.faults, *unreadable, *wrong]


@dataclass(frozen=True, slots=True)
class Request:
    """One export that is wanted; `there`: its account is, and was not deleted."""

    id: str
    account: str | None
    there: bool
    address: str | None
    org: str | None
    location: str | None


async def _run(work: Work[ExportSettings]) -> Result:
    return await Exporting(work, await held(work.conn, work.settings, work.tables)).run()


class Exporting:
    """One run: what is over goes, then request after request."""

    def __init__(self, work: Work[ExportSettings], found: Held) -> None:
        self._work, self._held = work, found
        self._requests = work.tables[work.settings.requests]
        self._key_type = self._requests.columns["id"].type
        (edge,) = request_edges(work.settings, self._requests, found)
        self._column = self._requests.columns[edge.columns[0]]
        self._left_out = {(str(work.tables[t].sql), column) for t, column in map(place, work.settings.leave_out)}
        self._folder = f"{FOLDER}/{segment(work.name)}"

    async def run(self) -> Result:
        expired = await self._expire()
        exported, refused, rows = 0, 0, 0
        seen: list[str] = []
        failed: list[str] = []
        while (request := await self._wanted(seen)) is not None and not self._enough(exported):
            seen.append(request.id)
            try:
                count = await self._export(request)
            except UNFIT as error:
                failed.append(str(error))
                self._work.ctx.log.warning("account_not_exported", request=request.id, error=str(error))
                continue
            exported, refused = (exported, refused + 1) if count is None else (exported + 1, refused)
            rows += count or 0
        if failed:
            raise Retry(f"{len(failed)} exports could not be made: {failed[0]}", code="not_exported")
        return {"exported": exported, "rows": rows, "refused": refused, "expired": expired}

    def _enough(self, exported: int) -> bool:
        most = self._work.args.max_rows
        return most is not None and exported >= most

    # --- one request --------------------------------------------------------------------------------------------------

    async def _export(self, request: Request) -> int | None:
        """How many rows there are in the file; None: there is no such account any more."""
        path = self._place(request)
        if not request.there or request.account is None or request.address is None:
            await self._refuse(request, path)
            return None
        storage = self._work.ctx.storage
        try:
            await storage.link(path, name=self._name)  # nobody reads all tables for a file that nobody would get
            await self._set("begun", id=request.id, location=path)
            written, rows = await self._write(request.account, path)
            await storage.verify(written)
            told = await self._tell(request, path, written)
        except StorageError as error:
            raise Retry(str(error), code="storage") from error
        if not told:
            await self._refuse(request, path)
            return None
        return rows

    def _place(self, request: Request) -> str:
        """Where a killed run began it, else a place that nobody had before: a link that is still about must not lead to
        another's file because a table of requests was restored, or there are two that count alike."""
        if self._is_ours(request.location):
            return request.location
        return f"{self._folder}/{segment(request.id)}-{token_hex(8)}.zip"

    def _is_ours(self, path: str | None) -> TypeGuard[str]:
        return path is not None and is_path(path) and path.startswith(f"{self._folder}/")

    @property
    def _name(self) -> str:
        return f"export-{self._work.now:%Y-%m-%d}.zip"

    async def _refuse(self, request: Request, path: str) -> None:
        """No file for an account that is not there: not the one that was begun, either."""
        await self._work.ctx.storage.delete([path])
        await self._set("failed", id=request.id)

    async def _write(self, account: str, path: str) -> tuple[Written, int]:
        """One snapshot of all tables: rows that belong together are there together."""
        out = self._work.ctx.storage.writing(path, content_type="application/zip", name=self._name)
        counts: dict[str, int] = {}
        async with out, self._work.conn.transaction(isolation="repeatable_read", readonly=True):
            await lossless(self._work.conn)
            await self._work.conn.execute(_SQL["snapshot"])
            known = await self._known(account)
            async with Bundle(out, self._work.now) as bundle:
                tables = self._tables()
                names = file_names([str(table.sql) for table in tables])
                for number, (table, name) in enumerate(zip(tables, names, strict=True)):
                    counts[str(table.sql)] = await self._table(bundle, table, name, known)
                    percent = 100.0 * (number + 1) / (len(tables) + 1)
                    await self._work.ctx.progress(percent, table=str(table.sql), rows=sum(counts.values()))
                await bundle.add("export.json", _once(self._about(account, counts)))
        return out.written, sum(counts.values())

    def _tables(self) -> list[Table]:
        """The account itself, then what it has, parents before what hangs on them."""
        return [self._held.accounts, *(self._held.tables[name] for name in reversed(self._held.ties.tables))]

    def _about(self, account: str, counts: Mapping[str, int]) -> str:
        about = {"account": account, "made_at": self._work.now.isoformat(), "rows": counts}
        return msgspec.json.format(msgspec.json.encode(about), indent=2).decode() + "\n"

    async def _table(self, bundle: Bundle, table: Table, name: str, known: Account) -> int:
        """How many rows; both files are of the same snapshot."""
        columns = [c for c in table.columns.values() if (str(table.sql), c.name) not in self._left_out]
        count = 0

        async def as_json() -> AsyncGenerator[str, None]:
            nonlocal count
            yield "[\n"
            async with aclosing(self._rows("rows_json", table, columns, known)) as pages:
                async for page in pages:
                    yield json_text([row[0] for row in page], first=count == 0)
                    count += len(page)
            yield "\n]\n"

        async def as_csv() -> AsyncGenerator[str, None]:
            are_texts = [column.category in "SEU" for column in columns]
            yield csv_text([[column.name for column in columns]], [True] * len(columns))
            async with aclosing(self._rows("rows_text", table, columns, known)) as pages:
                async for page in pages:
                    yield csv_text([row[0] for row in page], are_texts)

        await bundle.add(f"json/{name}.json", as_json())
        await bundle.add(f"csv/{name}.csv", as_csv())
        return count

    async def _rows(
        self, block: str, table: Table, columns: Sequence[Column], known: Account
    ) -> AsyncGenerator[list[Any], None]:
        parameters = Parameters(self._work.now)
        shown = [of(ROW, column.sql) for column in columns]
        places = {"table": table.sql, "condition": self._condition(table, known, parameters)}
        if block == "rows_json":
            places["columns"] = joined(shown)
        else:
            places["texts"] = joined(BLOCKS.fill("text", column=column) for column in shown)
        cursor = await self._work.conn.cursor(str(BLOCKS.fill(block, **places)), *parameters.values)
        rows = FIRST_ROWS
        while page := await cursor.fetch(rows):
            yield page
            of_one = sum(len(row[0]) if isinstance(row[0], str) else _length(row[0]) for row in page) // len(page)
            rows = max(1, min(ROWS, 4 * rows, PAGE_BYTES // max(of_one, 1)))

    def _condition(self, table: Table, known: Account, parameters: Parameters) -> Sql:
        holding = self._held.holding(table)
        if holding is not None:
            return mine(self._held, holding, known, parameters)
        key = self._held.key
        return BLOCKS.fill("everybody", key=of(ROW, key.sql), account=parameters.add(known[key.name]), type=key.type)

    async def _known(self, account: str) -> Account:
        """What other tables may hold of it."""
        accounts, parameters, names = self._held.accounts, Parameters(self._work.now), account_columns(self._held)
        key = self._held.key
        text = BLOCKS.fill(
            "alive",
            shown=joined(BLOCKS.fill("text", column=of(ROW, accounts.columns[name].sql)) for name in names),
            table=accounts.sql,
            key=of(ROW, key.sql),
            account=parameters.add(account),
            type=key.type,
        )
        row = await self._work.conn.fetchrow(str(text), *parameters.values)
        return {key.name: account} if row is None else dict(zip(names, row, strict=True))

    async def _tell(self, request: Request, path: str, written: Written) -> bool:
        """The request is ready and its owner is told, in one commit, once; False: the account is gone meanwhile."""
        settings, conn, parameters = self._work.settings, self._work.conn, Parameters(self._work.now)
        accounts, key = self._held.accounts, self._held.key
        link = await self._work.ctx.storage.link(path, name=self._name, valid_s=settings.keep)
        text = BLOCKS.fill(
            "ready",
            accounts=accounts.sql,
            key=key.sql,
            account=parameters.add(request.account),
            type=key.type,
            deleted=accounts.columns[settings.deleted_column].sql,
            requests=self._requests.sql,
            location=parameters.add(path),
            size=parameters.add(written.size_bytes),
            sha256=parameters.add(written.sha256),
            seconds=parameters.add(str(float(settings.keep))),
            id=parameters.add(request.id),
            key_type=self._key_type,
        )
        async with conn.transaction():
            expires_at = await conn.fetchval(str(text), *parameters.values)
            if expires_at is None:
                return False
            body = settings.mail_text.replace("{link}", link).replace("{expires}", f"{expires_at:%Y-%m-%d %H:%M} UTC")
            mail = {"to": request.address, "subject": settings.mail_subject, "text": body}
            if settings.mail_from is not None:
                mail["from"] = settings.mail_from
            once = f"{request.org}:" if request.org is not None else ""
            await conn.execute(
                _SQL["told"], msgspec.json.encode(mail).decode(), request.org, f"{once}{self._work.name}:{request.id}"
            )
        return True

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _wanted(self, seen: Sequence[str]) -> Request | None:
        settings, accounts, parameters = self._work.settings, self._held.accounts, Parameters(self._work.now)

        def shown(name: str | None) -> Sql:
            if name is None:
                return BLOCKS.fill("nothing")
            return BLOCKS.fill("text", column=of(alias("a", 1), accounts.columns[name].sql))

        text = BLOCKS.fill(
            "wanted",
            account=self._column.sql,
            deleted=accounts.columns[settings.deleted_column].sql,
            address=shown(settings.address_column),
            org=shown(settings.org_column),
            requests=self._requests.sql,
            accounts=accounts.sql,
            key=self._held.key.sql,
            passed=parameters.add(list(seen)),
        )
        row = await self._work.conn.fetchrow(str(text), *parameters.values)
        return None if row is None else Request(**row)

    async def _set(self, block: str, **values: Any) -> None:
        parameters = Parameters(self._work.now)
        places = {name: parameters.add(value) for name, value in values.items()}
        await self._work.conn.execute(
            str(BLOCKS.fill(block, requests=self._requests.sql, key_type=self._key_type, **places)), *parameters.values
        )

    async def _expire(self) -> int:
        """Files go before their requests say so: one that is killed between comes again."""
        expired = 0
        while page := await self._over():
            await self._work.ctx.storage.delete([row["location"] for row in page if self._is_ours(row["location"])])
            await self._set("over", ids=[row["id"] for row in page])
            expired += len(page)
        await self._work.ctx.storage.expire(f"{self._folder}/", LONGEST_LINK_S + STRAY_S)
        return expired

    async def _over(self) -> list[Any]:
        parameters = Parameters(self._work.now)
        text = BLOCKS.fill("expired", requests=self._requests.sql, limit=parameters.add(EXPIRED_AT_ONCE))
        rows: list[Any] = await self._work.conn.fetch(str(text), *parameters.values)
        return rows


def _length(values: Sequence[str | None]) -> int:
    return sum(len(value) for value in values if value is not None)


async def _once(text: str) -> AsyncGenerator[str, None]:
    yield text


async def _rehearse(work: Work[ExportSettings]) -> Result:
    found = await held(work.conn, work.settings, work.tables)
    waiting = await work.conn.fetchrow(str(BLOCKS.fill("waiting", requests=work.tables[work.settings.requests].sql)))
    return {**dict(waiting), "tables": [str(found.accounts.sql), *reversed(found.ties.tables)]}


EXPORT = Verb(
    name="export_account",
    doc="Makes the exports that are asked for: all rows of an account, over every table that holds some, as JSON and "
    "CSV in one zip file, and a mail with a link that expires. Removes files whose time is over.",
    settings=ExportSettings,
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
    inspect=_inspect,
)
