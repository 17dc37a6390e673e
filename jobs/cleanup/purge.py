"""The verb `purge`: rows that a table keeps no longer are deleted, with what belongs to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from jobs.catalogue import sampling
from jobs.catalogue.audit import each_row, noted
from jobs.catalogue.facts import facts
from jobs.catalogue.ground import Table
from jobs.catalogue.pages import Chosen, Page, Pages
from jobs.catalogue.predicates import predicates
from jobs.catalogue.skeleton import NOTHING, Blocks, Parameters, Sql, alias, joined
from jobs.catalogue.verb import Result, Verb, Work
from jobs.cleanup import warning
from jobs.cleanup.archived import Archiving
from jobs.cleanup.doom import Pass, doom, joins, passes, rest
from jobs.cleanup.purge_settings import PurgeSettings, advise, inspect, needs
from jobs.cleanup.totals import kept

_BLOCKS = Blocks("purge.sql")


async def run(work: Work[PurgeSettings]) -> Result:
    settings, table = work.settings, work.tables[work.settings.table]
    counted: Counter[str] = Counter(deleted=0, archived=0) if settings.archive else Counter(deleted=0)
    if settings.warn_before is not None:
        counted["warned"] = await warning.warn(work)

    def left() -> int | None:
        return None if work.args.max_rows is None else work.args.max_rows - counted["deleted"]

    async def gone(said: Mapping[str, Any], percent: float) -> None:
        counted["deleted"] += said["deleted"]
        counted.update({child: said[name] for child, name in _children(settings)})
        await work.ctx.progress(percent, **counted)

    known = facts(predicates(settings.where), table)
    for one in await passes(work):
        if settings.archive:
            async for part in Archiving(work, one, left).parts():
                counted["archived"] += len(part.keys)
                chosen = Chosen(work, table, part.keys, part.versions)
                async for said in chosen.run(partial(statement, work, one, unchanged=True)):
                    await gone(said, part.percent)
            continue
        pages = Pages(work, table, table.columns[one.column], one.below, facts=known)
        async for said in pages.run(partial(statement, work, one), left):
            await gone(said, pages.percent(said["at"]))
    return dict(counted)


def statement(work: Work[PurgeSettings], one: Pass, page: Page, *, unchanged: bool = False) -> Sql:
    """`unchanged`: only rows that are what they were when their keys were read."""
    settings, table, parameters = work.settings, page.table, page.parameters
    conditions = rest(work, one, table, parameters)
    returned = settings.totals_table is not None or each_row(settings.audit_values)
    return _BLOCKS.fill(
        "page",
        scan=page.scan,
        keys=page.keys,
        table=table.sql,
        same=page.same,
        joins=joins(settings, work.tables),
        doom=doom(work, one, table, parameters),
        conditions=joined([conditions, _BLOCKS.fill("unchanged")], " ") if unchanged else conditions,
        before=_together(work),
        returned=_BLOCKS.fill("all_columns" if returned else "one"),
        beside=joined([_totals(work, table, parameters), _audit(work, table, parameters)], ""),
        counted=joined((_BLOCKS.fill("count_of", name=name) for _, name in _children(settings)), ""),
    )


def _children(settings: PurgeSettings) -> list[tuple[str, Sql]]:
    """Each table whose rows go with them, and what the statement calls that."""
    return [(child, alias("went", n)) for n, child in enumerate(settings.together, 1)]


def _together(work: Work[PurgeSettings]) -> Sql:
    pieces = []
    for child, name in _children(work.settings):
        table = work.tables[child]
        column = table.columns[work.settings.together[child]].sql
        pieces.append(_BLOCKS.fill("together", name=name, child=table.sql, column=column))
    return joined(pieces, "")


def _totals(work: Work[PurgeSettings], table: Table, parameters: Parameters) -> Sql:
    settings = work.settings
    if settings.totals_table is None:
        return NOTHING
    totals = work.tables[settings.totals_table]
    return kept(table, totals, settings.totals_by, settings.totals_count, settings.totals_sums, parameters)


def _audit(work: Work[PurgeSettings], table: Table, parameters: Parameters) -> Sql:
    gone = _BLOCKS.fill("gone")
    return noted(work, gone, table, work.settings.audit_table, work.settings.audit_values, parameters)


# --- rehearsed --------------------------------------------------------------------------------------------------------


async def rehearse(work: Work[PurgeSettings]) -> Result:
    settings, table = work.settings, work.tables[work.settings.table]
    counts, rows = list[int | None](), list[Any]()
    beside: dict[str, list[int | None]] = {child: [] for child in settings.together}
    asked = await passes(work)
    whose = joins(settings, work.tables)
    for number, one in enumerate(asked):
        condition = partial(_goes, work, table, one, asked[:number])
        counts.append(await sampling.count(work, table, condition, whose))
        rows += await sampling.sample(work, table, settings.where, one.column, condition, whose)
        for child, found in beside.items():
            found.append(await sampling.count(work, table, condition, joined([whose, _pointing(work, child)], " ")))
    total = sampling.added(counts)
    said = sampling.said("delete", total, settings.table, rows)
    if beside:
        said["together"] = {child: sampling.added(found) for child, found in beside.items()}
    if settings.archive:
        said["would_archive"] = total
    if settings.warn_before is not None:
        said["would_warn"] = await warning.count(work)
    return said


def _pointing(work: Work[PurgeSettings], child: str) -> Sql:
    """The rows of `child` that point to a row: one for each of them."""
    table, pointing = work.tables[child], work.settings.together[child]
    key = work.tables[work.settings.table].key[0]
    return _BLOCKS.fill("pointing", child=table.sql, column=table.columns[pointing].sql, key=key.sql)


def _goes(work: Work[PurgeSettings], table: Table, one: Pass, before: Iterable[Pass], parameters: Parameters) -> Sql:
    """That a row goes in this pass, and has not gone in one before it."""
    newer = [
        _BLOCKS.fill(
            "newer",
            age=table.columns[other.column].sql,
            below=parameters.add(other.below),
            conditions=rest(work, other, table, parameters),
        )
        for other in before
    ]
    return joined([doom(work, one, table, parameters), rest(work, one, table, parameters), *newer], " ")


PURGE = Verb(
    name="purge",
    doc="Deletes the rows that a table keeps no longer: those whose age is past their retention. By age, where an "
    "index has the rows in that order; else by going through the whole table.",
    settings=PurgeSettings,
    needs=needs,
    run=run,
    rehearse=rehearse,
    advise=advise,
    inspect=inspect,
)
