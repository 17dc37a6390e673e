"""The verb `purge`: rows that a table keeps no longer are deleted, with what belongs to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from jobs.catalogue.audit import each_row, noted
from jobs.catalogue.ground import Table
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.skeleton import NOTHING, ROW, Blocks, Parameters, Sql, alias, joined, of
from jobs.catalogue.verb import Result, Verb, Work
from jobs.cleanup import warning
from jobs.cleanup.doom import Pass, doom, joins, passes, rest
from jobs.cleanup.purge_settings import PurgeSettings, advise, needs
from jobs.cleanup.totals import kept

_BLOCKS = Blocks("purge.sql")

COUNT_MAX = 1_000_000
"""A rehearsal counts no further."""

SAMPLE = 5


async def _run(work: Work[PurgeSettings]) -> Result:
    settings, table = work.settings, work.tables[work.settings.table]
    counted: Counter[str] = Counter(deleted=0)
    if settings.warn_before is not None:
        counted["warned"] = await warning.warn(work)

    def left() -> int | None:
        return None if work.args.max_rows is None else work.args.max_rows - counted["deleted"]

    for one in await passes(work):
        pages = Pages(work, table, table.columns[one.column], one.below)
        async for said in pages.run(partial(statement, work, one), left):
            counted["deleted"] += said["deleted"]
            counted.update({child: said[name] for child, name in _children(settings)})
            await work.ctx.progress(pages.percent(said["at"]), **counted)
    return dict(counted)


def statement(work: Work[PurgeSettings], one: Pass, page: Page) -> Sql:
    settings, table, parameters = work.settings, page.table, page.parameters
    returned = settings.totals_table is not None or each_row(settings.audit_values)
    return _BLOCKS.fill(
        "page",
        scan=page.scan,
        keys=page.keys,
        table=table.sql,
        same=page.same,
        joins=joins(settings, work.tables),
        doom=doom(work, one, table, parameters),
        conditions=rest(work, one, table, parameters),
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


async def _rehearse(work: Work[PurgeSettings]) -> Result:
    table = work.tables[work.settings.table]
    total, sample = 0, list[Any]()
    asked = await passes(work)
    for number, one in enumerate(asked):
        total += await work.conn.fetchval(*_question(work, table, "count", one, asked[:number]))
        if len(sample) < SAMPLE:
            rows = await work.conn.fetch(*_question(work, table, "sample", one, asked[:number]))
            sample += [msgspec.json.decode(row[0]) for row in rows][: SAMPLE - len(sample)]
    said: Result = {"would_delete": total, "table": work.settings.table, "sample": sample}
    if total >= COUNT_MAX:
        said["or_more"] = True
    if work.settings.warn_before is not None:
        said["would_warn"] = await warning.count(work)
    return said


def _question(work: Work[PurgeSettings], table: Table, what: str, one: Pass, before: Iterable[Pass]) -> list[Any]:
    """The statement that counts, or shows some, and its parameters."""
    settings, parameters = work.settings, Parameters(work.now)
    age = table.columns[one.column].sql
    newer = [
        _BLOCKS.fill(
            "newer",
            age=table.columns[other.column].sql,
            below=parameters.add(other.below),
            conditions=rest(work, other, table, parameters),
        )
        for other in before
    ]
    places = {
        "table": table.sql,
        "joins": joins(settings, work.tables),
        "doom": doom(work, one, table, parameters),
        "conditions": joined([rest(work, one, table, parameters), *newer], " "),
        "most": parameters.add(COUNT_MAX if what == "count" else SAMPLE),
    }
    if what == "sample":
        named = [*(column.name for column in table.key), one.column, *settings.where]
        columns = [of(ROW, table.columns[name].sql) for name in dict.fromkeys(named)]
        places |= {"shown": joined(columns), "order": of(ROW, age)}
    return [str(_BLOCKS.fill(what, **places)), *parameters.values]


PURGE = Verb(
    name="purge",
    doc="Deletes the rows that a table keeps no longer: those whose age is past their retention. By age, where an "
    "index has the rows in that order; else by going through the whole table.",
    settings=PurgeSettings,
    needs=needs,
    run=_run,
    rehearse=_rehearse,
    advise=advise,
)
