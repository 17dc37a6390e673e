"""The verb `expire`: rows whose time is over are marked as such, and stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from jobs.catalogue import sampling
from jobs.catalogue.audit import AUDIT_TABLE, AUDIT_VALUES, audit_needs, check_audit, each_row, noted
from jobs.catalogue.conditions import conditions
from jobs.catalogue.facts import facts
from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Need, NeedsColumn, NeedsTable, NeedsValues, of_predicates
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.predicates import plain_text, predicates
from jobs.catalogue.settings import WHERE, BatchSettings, check_columns, check_table, check_where
from jobs.catalogue.skeleton import Blocks, Parameters, Sql, joined
from jobs.catalogue.verb import Result, Verb, Work
from jobs.values import Duration, key

_BLOCKS = Blocks("expire.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireSettings(BatchSettings):
    """Changes rows whose time is over; those that are changed already stay as they are."""

    table: str = key(doc="Whose rows expire.", example='"app.aliases"')
    expires_column: str = key(doc="When a row's time is over; null: never.", example='"expires_at"')
    grace: Duration = key(Duration(0.0), "So much later.", minimum=0)
    set: dict[str, Any] = key(
        factory=dict,
        doc="Columns, and what they become: a string, a number, true or false.",
        example="{ active = false }",
    )
    clear: tuple[str, ...] = key((), "Columns that become null.", example='["token_hash"]')
    stamp_column: str | None = key(None, "Column that gets the time at which it was done.", example='"deactivated_at"')
    where: dict[str, Any] = key(factory=dict, doc=WHERE, example="{ active = true }")
    audit_table: str | None = key(None, AUDIT_TABLE, example='"app.audit_log"')
    audit_values: dict[str, str] = key(
        factory=dict,
        doc=AUDIT_VALUES,
        example='{ actor = "job:{job}", action = "alias.deactivated", subject = "alias {id}" }',
    )
    priority: int = key(2, "Priority of its rows; 1 is first.", minimum=1, maximum=4)

    def __post_init__(self) -> None:
        check_table("table", self.table)
        check_columns("expires_column", self.expires_column)
        check_columns("stamp_column", self.stamp_column)
        check_columns("set", *self.set)
        check_columns("clear", *self.clear)
        check_where("where", self.where)
        check_audit(self.audit_table, self.audit_values)
        try:
            self.texts()
        except ValueError as error:
            raise ValueError(f"set: {error}") from None
        if not self.set and not self.clear:
            raise ValueError("set: say what changes: set, clear or both")
        if twice := {*self.set} & {*self.clear, self.stamp_column}:
            raise ValueError(f"set: {min(map(str, twice))} is changed twice")

    def texts(self) -> dict[str, str]:
        """What is set, as Postgres reads it."""
        return {name: plain_text(value) for name, value in self.set.items()}


def _needs(settings: ExpireSettings) -> Iterator[Need]:
    table = settings.table
    yield NeedsTable("table", table, ("select", "update"), keyed=True)
    yield NeedsColumn("expires_column", table, settings.expires_column, "time")
    for name, text in settings.texts().items():
        yield NeedsColumn(f"set.{name}", table, name, written=True)
        yield NeedsValues(f"set.{name}", table, name, (text,))
    for name in settings.clear:
        yield NeedsColumn("clear", table, name, "nullable", written=True)
    if settings.stamp_column is not None:
        yield NeedsColumn("stamp_column", table, settings.stamp_column, "time", written=True)
    yield from of_predicates("where", table, predicates(settings.where))
    yield from audit_needs(table, settings.audit_table, settings.audit_values)


def _advise(settings: ExpireSettings, tables: Mapping[str, Table]) -> Iterator[str]:
    table = tables[settings.table]
    if not table.leads(settings.expires_column, facts(predicates(settings.where), table)):
        yield table.wants_index(settings.expires_column, why="each run reads the whole table")


def _below(work: Work[ExpireSettings]) -> datetime:
    return work.now - timedelta(seconds=work.settings.grace)


async def _run(work: Work[ExpireSettings]) -> Result:
    table = work.tables[work.settings.table]
    expired = 0

    def left() -> int | None:
        return None if work.args.max_rows is None else work.args.max_rows - expired

    known = facts(predicates(work.settings.where), table)
    pages = Pages(work, table, table.columns[work.settings.expires_column], _below(work), facts=known)
    async for said in pages.run(partial(_statement, work), left):
        expired += said["expired"]
        await work.ctx.progress(pages.percent(said["at"]), expired=expired)
    return {"expired": expired}


def _statement(work: Work[ExpireSettings], page: Page) -> Sql:
    settings, table, parameters = work.settings, page.table, page.parameters
    changed = _BLOCKS.fill("changed")
    return _BLOCKS.fill(
        "page",
        scan=page.scan,
        keys=page.keys,
        table=table.sql,
        same=page.same,
        condition=_due(work, table, parameters),
        changes=joined(_changes(work, table, parameters)),
        returned=_BLOCKS.fill("all_columns" if each_row(settings.audit_values) else "one"),
        beside=noted(work, changed, table, settings.audit_table, settings.audit_values, parameters),
    )


def _changes(work: Work[ExpireSettings], table: Table, parameters: Parameters) -> Iterator[Sql]:
    settings = work.settings
    for name, text in settings.texts().items():
        column = table.columns[name]
        yield _BLOCKS.fill("set", column=column.sql, value=parameters.add(text), type=column.type)
    for name in settings.clear:
        yield _BLOCKS.fill("clear", column=table.columns[name].sql)
    if settings.stamp_column is not None:
        yield _BLOCKS.fill("stamp", column=table.columns[settings.stamp_column].sql, now=parameters.now)


def _due(work: Work[ExpireSettings], table: Table, parameters: Parameters) -> Sql:
    """That its time is over, and that something of it would change: a second run changes nothing."""
    settings = work.settings
    expires = table.columns[settings.expires_column].sql
    other = [
        _BLOCKS.fill("other", column=table.columns[name].sql, value=parameters.add(text), type=table.columns[name].type)
        for name, text in settings.texts().items()
    ]
    other += [_BLOCKS.fill("there", column=table.columns[name].sql) for name in settings.clear]
    return _BLOCKS.fill(
        "due",
        expires=expires,
        below=parameters.once("below", _below(work)),
        other=joined(other, " or "),
        conditions=conditions(predicates(settings.where), table, parameters),
    )


async def _rehearse(work: Work[ExpireSettings]) -> Result:
    settings, table = work.settings, work.tables[work.settings.table]
    condition = partial(_due, work, table)
    total = await sampling.count(work, table, condition)
    shown = [*settings.set, *settings.where]
    rows = await sampling.sample(work, table, shown, settings.expires_column, condition)
    return sampling.said("expire", total, settings.table, rows)


EXPIRE = Verb(
    name="expire",
    doc="Changes rows whose time is over: an alias is switched off, a token is emptied, a state becomes another.",
    settings=ExpireSettings,
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
    advise=_advise,
)
