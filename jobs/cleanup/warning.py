"""Before rows go their owners are told: the mail and the mark that it was asked for are one commit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.skeleton import Blocks, Parameters, Sql, of
from jobs.catalogue.verb import Work
from jobs.cleanup.doom import fits, joins
from jobs.cleanup.purge_settings import PurgeSettings

_BLOCKS = Blocks("warning.sql")

COUNT_MAX = 1_000_000


async def warn(work: Work[PurgeSettings]) -> int:
    """Tell the owners of rows that will soon be old enough, once each; how many rows that were."""
    settings, table = work.settings, work.tables[work.settings.table]
    warned = 0
    pages = Pages(work, table, table.columns[settings.age_column], soon(work))

    def statement(page: Page) -> Sql:
        parameters = page.parameters
        return _BLOCKS.fill(
            "page",
            scan=page.scan,
            keys=page.keys,
            table=table.sql,
            same=page.same,
            joins=joins(settings, work.tables),
            email=_email(work),
            due=_due(work, parameters, page.below),
            conditions=fits(work, table, parameters),
            column=table.columns[str(settings.warn_column)].sql,
            now=parameters.now,
            mail=parameters.add(_mail(work)),
            name=parameters.add(work.name),
        )

    async for said in pages.run(statement):
        warned += said["warned"]
        await work.ctx.progress(0.0, warned=warned)
    return warned


async def count(work: Work[PurgeSettings]) -> int:
    """Whose owners would be told."""
    table, parameters = work.tables[work.settings.table], Parameters(work.now)
    statement = _BLOCKS.fill(
        "count",
        table=table.sql,
        joins=joins(work.settings, work.tables),
        due=_due(work, parameters, parameters.add(soon(work))),
        conditions=fits(work, table, parameters),
        most=parameters.add(COUNT_MAX),
    )
    found: int = await work.conn.fetchval(str(statement), *parameters.values)
    return found


def soon(work: Work[PurgeSettings]) -> datetime:
    """Rows from before this are warned of."""
    settings = work.settings
    return work.now - timedelta(seconds=settings.retention - (settings.warn_before or 0.0))


def _due(work: Work[PurgeSettings], parameters: Parameters, below: Sql) -> Sql:
    table, settings = work.tables[work.settings.table], work.settings
    age, column = table.columns[settings.age_column].sql, table.columns[str(settings.warn_column)].sql
    return _BLOCKS.fill("due", age=age, below=below, column=column)


def _email(work: Work[PurgeSettings]) -> Sql:
    settings = work.settings
    owner = work.tables[settings.owner_table or settings.table]
    row = _BLOCKS.fill("owner" if settings.owner_table else "row")
    return of(row, owner.columns[str(settings.owner_email)].sql)


def _mail(work: Work[PurgeSettings]) -> str:
    """Args of kind `email`, but for whom it goes to."""
    settings = work.settings
    day = work.now + timedelta(seconds=settings.warn_before or 0.0)
    text = settings.warn_text.replace("{day}", f"{day:%Y-%m-%d}")
    args: dict[str, Any] = {"subject": settings.warn_subject, "text": text}
    if settings.warn_from is not None:
        args["from"] = settings.warn_from
    return msgspec.json.encode(args).decode()
