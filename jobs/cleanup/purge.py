"""The verb `purge`: rows that a table keeps no longer are deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from jobs.catalogue.conditions import conditions
from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Need, NeedsColumn, NeedsTable, of_predicates
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.predicates import predicates
from jobs.catalogue.settings import BatchSettings, check_columns, check_table
from jobs.catalogue.skeleton import NOTHING, ROW, Blocks, Parameters, Sql, joined, of
from jobs.catalogue.verb import Result, Verb, Work
from jobs.values import Duration, key

_BLOCKS = Blocks("purge.sql")

COUNT_MAX = 1_000_000
"""A rehearsal counts no further."""

SAMPLE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeSettings(BatchSettings):
    """Deletes rows whose age is past `retention`."""

    table: str = key(doc="Where rows are deleted.", example='"app.spam_quarantine"')
    age_column: str = key(doc="When a row became what it is; a row without a time is kept.", example='"quarantined_at"')
    retention: Duration = key(doc="Rows older than this are deleted.", minimum=0, example='"30d"')
    where: dict[str, Any] = key(
        factory=dict,
        doc="Only rows that fit: a value, a list, or {not, null, above, at_least, below, at_most, older_than}.",
        example='{ status = ["archived", "spam"], flagged = false }',
    )
    idle_column: str | None = key(
        None,
        "When a row was last of use: rows go as well when that is longer ago than idle_retention.",
        example='"last_seen_at"',
    )
    idle_retention: Duration | None = key(None, "See idle_column.", minimum=0, example='"14d"')
    longer_where: dict[str, Any] = key(
        factory=dict, doc="Rows that fit this are kept for longer_retention.", example="{ critical = true }"
    )
    longer_retention: Duration | None = key(None, "See longer_where.", minimum=0, example='"2557d"')
    queue: str = key("cleanup", "Queue of its rows.")
    priority: int = key(4, "Priority of its rows; 1 is first: notifications and retries come before clean-up.")

    def __post_init__(self) -> None:
        check_table("table", self.table)
        check_columns("age_column", self.age_column)
        check_columns("idle_column", self.idle_column)
        for field in ("where", "longer_where"):
            try:
                predicates(getattr(self, field))
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from None
        _together(idle_column=self.idle_column, idle_retention=self.idle_retention)
        _together(longer_where=self.longer_where or None, longer_retention=self.longer_retention)
        if self.longer_retention is not None and self.longer_retention < self.retention:
            raise ValueError("longer_retention: is shorter than retention")


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows whose `column` is before `below`; `longer`: and of some rows before this."""

    column: str
    below: datetime
    longer: datetime | None = None


def _together(**keys: object) -> None:
    given = [name for name, value in keys.items() if value is not None]
    if len(given) == 1:
        other = next(name for name in keys if name not in given)
        raise ValueError(f"{other}: belongs to {given[0]}; give both")


def _needs(settings: PurgeSettings) -> Iterator[Need]:
    table = settings.table
    yield NeedsTable("table", table, ("select", "delete", "update"), keyed=True)
    yield NeedsColumn("age_column", table, settings.age_column, "time")
    if settings.idle_column is not None:
        yield NeedsColumn("idle_column", table, settings.idle_column, "time")
    yield from of_predicates("where", table, predicates(settings.where))
    yield from of_predicates("longer_where", table, predicates(settings.longer_where))


def _advise(settings: PurgeSettings, tables: Mapping[str, Table]) -> Iterator[str]:
    table = tables[settings.table]
    for name in (settings.age_column, settings.idle_column):
        if name is not None and not table.leads(name):
            column = table.columns[name].sql
            yield (
                f"no index of {settings.table} begins with {column}: each run reads the whole table; "
                f"create index concurrently on {table.sql} ({column})"
            )


def passes(work: Work[PurgeSettings]) -> list[Pass]:
    settings, now = work.settings, work.now
    longer = None if settings.longer_retention is None else now - timedelta(seconds=settings.longer_retention)
    passes = [Pass(settings.age_column, now - timedelta(seconds=settings.retention), longer)]
    if settings.idle_column is not None and settings.idle_retention is not None:
        passes.append(Pass(settings.idle_column, now - timedelta(seconds=settings.idle_retention), longer))
    return passes


async def _run(work: Work[PurgeSettings]) -> Result:
    table = work.tables[work.settings.table]
    deleted = 0

    def left() -> int | None:
        return None if work.args.max_rows is None else work.args.max_rows - deleted

    for one in passes(work):
        pages = Pages(work, table, table.columns[one.column], one.below)
        async for said in pages.run(partial(statement, work, one), left):
            deleted += said["deleted"]
            await work.ctx.progress(pages.percent(said["at"]), deleted=deleted)
    return {"deleted": deleted}


def statement(work: Work[PurgeSettings], one: Pass, page: Page) -> Sql:
    return _BLOCKS.fill(
        "page",
        scan=page.scan,
        keys=page.keys,
        table=page.table.sql,
        same=page.same,
        joins=NOTHING,
        doom=_BLOCKS.fill("older", age=page.table.columns[one.column].sql, below=page.below),
        conditions=_conditions(work, one, page.table, page.parameters),
        returned=_BLOCKS.fill("one"),
        beside=NOTHING,
        counted=NOTHING,
    )


def _conditions(work: Work[PurgeSettings], one: Pass, table: Table, parameters: Parameters) -> Sql:
    """What must hold beside the age."""
    settings = work.settings
    found = [conditions(predicates(settings.where), table, parameters)]
    if one.longer is not None:
        found.append(
            _BLOCKS.fill(
                "longer",
                age=table.columns[one.column].sql,
                below=parameters.add(one.longer),
                conditions=conditions(predicates(settings.longer_where), table, parameters),
            )
        )
    return joined(found, " ")


async def _rehearse(work: Work[PurgeSettings]) -> Result:
    table = work.tables[work.settings.table]
    total, sample = 0, list[Any]()
    asked = passes(work)
    for number, one in enumerate(asked):
        total += await work.conn.fetchval(*_asked(work, table, "count", one, asked[:number]))
        if len(sample) < SAMPLE:
            rows = await work.conn.fetch(*_asked(work, table, "sample", one, asked[:number]))
            sample += [msgspec.json.decode(row[0]) for row in rows][: SAMPLE - len(sample)]
    exact = total < COUNT_MAX
    return {
        "would_delete": total,
        **({} if exact else {"or_more": True}),
        "table": work.settings.table,
        "sample": sample,
    }


def _asked(work: Work[PurgeSettings], table: Table, what: str, one: Pass, before: Iterable[Pass]) -> list[Any]:
    """The statement that counts, or shows some, and its parameters."""
    parameters = Parameters(work.now)
    age = table.columns[one.column].sql
    newer = [
        _BLOCKS.fill(
            "newer",
            age=table.columns[other.column].sql,
            below=parameters.add(other.below),
            conditions=_conditions(work, other, table, parameters),
        )
        for other in before
    ]
    places = {
        "table": table.sql,
        "joins": NOTHING,
        "doom": _BLOCKS.fill("older", age=age, below=parameters.add(one.below)),
        "conditions": joined([_conditions(work, one, table, parameters), *newer], " "),
        "most": parameters.add(COUNT_MAX if what == "count" else SAMPLE),
    }
    if what == "sample":
        named = [*(column.name for column in table.key), one.column, *work.settings.where]
        columns = [of(ROW, table.columns[name].sql) for name in dict.fromkeys(named)]
        places |= {"shown": joined(columns), "order": of(ROW, age)}
    return [str(_BLOCKS.fill(what, **places)), *parameters.values]


PURGE = Verb(
    name="purge",
    doc="Deletes the rows that a table keeps no longer: those whose age is past their retention. By age, where an "
    "index has the rows in that order; else by going through the whole table.",
    settings=PurgeSettings,
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
    advise=_advise,
)
