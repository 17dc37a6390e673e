"""Before rows go their owners are told: the mail and the mark that it was asked for are one commit."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from jobs.catalogue import sampling
from jobs.catalogue.facts import facts
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.predicates import Predicate, predicates
from jobs.catalogue.skeleton import Blocks, Parameters, Sql, joined, of
from jobs.catalogue.verb import Work
from jobs.cleanup.doom import Pass, bound, doom, joins, passes
from jobs.cleanup.purge_settings import PurgeSettings

_BLOCKS = Blocks("warning.sql")


async def warn(work: Work[PurgeSettings]) -> int:
    """Tell the owners of rows that will soon be old enough, once each; how many rows that were."""
    settings, table, warned = work.settings, work.tables[work.settings.table], 0
    untold = Predicate(str(settings.warn_column), "null")
    known = facts([*predicates(settings.where), untold], table)
    for one in await _soon(work):
        pages = Pages(work, table, table.columns[one.column], one.below, facts=known)
        async for said in pages.run(partial(_statement, work, one)):
            warned += said["warned"]
            await work.ctx.progress(0.0, warned=warned)
    return warned


async def count(work: Work[PurgeSettings]) -> int | None:
    """Whose owners would be told; one that is due by its age and idle too is counted twice."""
    table, whose = work.tables[work.settings.table], joins(work.settings, work.tables)
    soon = await _soon(work)
    return sampling.added([await sampling.count(work, table, partial(_due, work, one), whose) for one in soon])


async def _soon(work: Work[PurgeSettings]) -> list[Pass]:
    return [one.later(work.settings.warn_before or 0.0) for one in await passes(work)]


def _statement(work: Work[PurgeSettings], one: Pass, page: Page) -> Sql:
    settings, table, parameters = work.settings, page.table, page.parameters
    return _BLOCKS.fill(
        "page",
        scan=page.scan,
        keys=page.keys,
        table=table.sql,
        same=page.same,
        joins=joins(settings, work.tables),
        email=_email(work),
        due=_due(work, one, parameters),
        column=table.columns[str(settings.warn_column)].sql,
        now=parameters.now,
        mail=parameters.add(_mail(work)),
        name=parameters.add(work.name),
    )


def _due(work: Work[PurgeSettings], one: Pass, parameters: Parameters) -> Sql:
    """That a row will be old enough by then, and nobody was told."""
    table = work.tables[work.settings.table]
    untold = _BLOCKS.fill("untold", column=table.columns[str(work.settings.warn_column)].sql)
    return joined([doom(work, one, table, parameters), bound(work, one, table, parameters), untold], " ")


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
