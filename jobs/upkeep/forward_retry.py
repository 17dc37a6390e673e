"""The verb `forward_retry`: forwards of a table that failed are handed to jobsd, which tries them again by age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from jobs.catalogue import sampling
from jobs.catalogue.conditions import conditions
from jobs.catalogue.facts import facts
from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Need, NeedsColumn, NeedsTable, NeedsValues, of_predicates
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.predicates import Predicate, predicates
from jobs.catalogue.settings import WHERE, BatchSettings, check_columns, check_table, check_where
from jobs.catalogue.skeleton import Blocks, Parameters, Sql, joined
from jobs.catalogue.verb import Result, Verb, Work
from jobs.values import Duration, duration, key

_BLOCKS = Blocks("forward_retry.sql")

FORWARDS = "email_forwards"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRetrySettings(BatchSettings):
    """Hands forwards that failed to `email_forwards`, with their age; their rows are told what became of them."""

    table: str = key(doc="Where they are.", example='"app.failed_forwards"')
    sender_column: str = key(doc="The envelope's sender, as it came; '' is the null path.", example='"sender"')
    recipient_column: str = key(doc="Where it goes: an address, or an array of them.", example='"recipient"')
    raw_column: str = key(doc="The message, byte for byte (bytea).", example='"raw"')
    failed_at_column: str = key(
        doc="When it failed first: the ages of email.forward count from there.", example='"first_failed_at"'
    )
    forward_column: str = key(
        doc="A bigint that gets the id in email_forwards; null: not handed over.", example='"forward_id"'
    )
    ended_column: str = key(doc="Gets the time of its end; rows that have one are left alone.", example='"ended_at"')
    outcome_column: str | None = key(None, "Gets `delivered` or `failed`.", example='"outcome"')
    delivered: str = key("delivered", "What outcome_column gets when it is there.", example='"sent"')
    failed: str = key("failed", "What outcome_column gets when it is given up.")
    reason_column: str | None = key(None, "Gets why it was given up.", example='"reason"')
    empty_raw: bool = key(False, "At the end the row's own bytes become null.")
    org_column: str | None = key(None, "Whose mail: jobs.org_id.", example='"org_id"')
    notify_column: str | None = key(
        None, "Who is told, once, when it is given up: not one of the recipients.", example='"owner_email"'
    )
    relay: str | None = key(None, "One of [email.relays]; unset: main.", example='"forwards"')
    after: Duration = key(duration("1h"), "The first try of ours is so long after the first failure.", minimum=0)
    where: dict[str, Any] = key(factory=dict, doc=WHERE, example="{ spam = false }")
    priority: int = key(1, "Priority of its rows; 1 is first: retries come before clean-up.", minimum=1, maximum=4)

    def __post_init__(self) -> None:
        check_table("table", self.table)
        for name in self.__dataclass_fields__:
            if name.endswith("_column"):
                check_columns(name, getattr(self, name))
        check_where("where", self.where)
        if self.relay is not None and (not 1 <= len(self.relay) <= 64 or self.relay.startswith("endpoint:")):
            raise ValueError(f"relay: {self.relay!r} is no name of a relay")


def _needs(settings: ForwardRetrySettings) -> Iterator[Need]:
    table = settings.table
    yield NeedsTable("verb", FORWARDS, ("select",), keyed=True)
    yield NeedsTable("table", table, ("select", "update"), keyed=True)
    yield NeedsColumn("sender_column", table, settings.sender_column, "text")
    yield NeedsColumn("recipient_column", table, settings.recipient_column)
    yield NeedsColumn("raw_column", table, settings.raw_column, "bytes")
    yield NeedsColumn("failed_at_column", table, settings.failed_at_column, "time")
    yield NeedsColumn("forward_column", table, settings.forward_column, "number", written=True)
    yield NeedsColumn("ended_column", table, settings.ended_column, "time", written=True)
    if settings.outcome_column is not None:
        yield NeedsColumn("outcome_column", table, settings.outcome_column, written=True)
        yield NeedsValues("delivered", table, settings.outcome_column, (settings.delivered,))
        yield NeedsValues("failed", table, settings.outcome_column, (settings.failed,))
    if settings.reason_column is not None:
        yield NeedsColumn("reason_column", table, settings.reason_column, "text", written=True)
    if settings.empty_raw:
        yield NeedsColumn("raw_column", table, settings.raw_column, "nullable", written=True)
    for name in ("org_column", "notify_column"):
        if (column := getattr(settings, name)) is not None:
            yield NeedsColumn(name, table, column)
    yield from of_predicates("where", table, predicates(settings.where))


def _advise(settings: ForwardRetrySettings, tables: Mapping[str, Table]) -> Iterator[str]:
    table = tables[settings.table]
    if not table.leads(settings.failed_at_column, _open(settings, table)):
        yield table.wants_index(settings.failed_at_column, why="each run reads the whole table")


async def _run(work: Work[ForwardRetrySettings]) -> Result:
    settings, table = work.settings, work.tables[work.settings.table]
    counted: Counter[str] = Counter(handed=0, refused=0, delivered=0, failed=0)
    age = table.columns[settings.failed_at_column]

    def left() -> int | None:
        return None if work.args.max_rows is None else work.args.max_rows - counted["handed"] - counted["refused"]

    known = _open(settings, table)
    waiting = known | facts([Predicate(settings.forward_column, "null")], table)
    handing = Pages(work, table, age, _below(work), facts=waiting)
    async for said in handing.run(partial(_hand_over, work), left):
        counted.update(handed=said["handed"], refused=said["refused"])
        await work.ctx.progress(handing.percent(said["at"]) / 2, **counted)
    telling = Pages(work, table, age, _below(work), facts=known)
    async for said in telling.run(partial(_tell, work)):
        counted.update(delivered=said["delivered"], failed=said["failed"])
        await work.ctx.progress(50 + telling.percent(said["at"]) / 2, **counted)
    return dict(counted)


def _open(settings: ForwardRetrySettings, table: Table) -> frozenset[str]:
    """What holds of rows that have not ended.  Whoever is told of is so whatever `where` says."""
    return facts([Predicate(settings.ended_column, "null")], table)


def _below(work: Work[ForwardRetrySettings]) -> datetime:
    return work.now - timedelta(seconds=work.settings.after)


def _waits(work: Work[ForwardRetrySettings], parameters: Parameters) -> Sql:
    settings, table = work.settings, work.tables[work.settings.table]
    return _BLOCKS.fill(
        "waits",
        forward=table.columns[settings.forward_column].sql,
        ended=table.columns[settings.ended_column].sql,
        failed_at=table.columns[settings.failed_at_column].sql,
        below=parameters.once("below", _below(work)),
        conditions=conditions(predicates(settings.where), table, parameters),
    )


def _hand_over(work: Work[ForwardRetrySettings], page: Page) -> Sql:
    settings, table, parameters = work.settings, page.table, page.parameters
    to = table.columns[settings.recipient_column]
    return _BLOCKS.fill(
        "hand_over",
        scan=page.scan,
        keys=page.keys,
        sender=_text(table, settings.sender_column),
        recipients=_BLOCKS.fill("several" if to.category == "A" else "one", column=to.sql),
        raw=table.columns[settings.raw_column].sql,
        org=_text(table, settings.org_column),
        notify=_text(table, settings.notify_column),
        failed_at=table.columns[settings.failed_at_column].sql,
        table=table.sql,
        same=page.same,
        condition=_waits(work, parameters),
        why=_BLOCKS.fill("why"),
        relay=parameters.add(settings.relay),
        forward=table.columns[settings.forward_column].sql,
        refusal=joined(_refusal(work, table, parameters), " "),
    )


def _text(table: Table, column: str | None) -> Sql:
    return _BLOCKS.fill("nobody") if column is None else _BLOCKS.fill("text", column=table.columns[column].sql)


def _refusal(work: Work[ForwardRetrySettings], table: Table, parameters: Parameters) -> Iterator[Sql]:
    """What becomes of a row that can never be sent."""
    settings = work.settings
    yield _BLOCKS.fill("refused_ended", column=table.columns[settings.ended_column].sql, now=parameters.now)
    if settings.outcome_column is not None:
        column = table.columns[settings.outcome_column]
        value = parameters.add(settings.failed)
        yield _BLOCKS.fill("refused_outcome", column=column.sql, value=value, type=column.type)
    if settings.reason_column is not None:
        yield _BLOCKS.fill("refused_reason", column=table.columns[settings.reason_column].sql)


def _tell(work: Work[ForwardRetrySettings], page: Page) -> Sql:
    settings, table = work.settings, page.table
    return _BLOCKS.fill(
        "tell",
        scan=page.scan,
        keys=page.keys,
        table=table.sql,
        same=page.same,
        forward=table.columns[settings.forward_column].sql,
        ended=table.columns[settings.ended_column].sql,
        changes=joined(_told(settings, table, page.parameters)),
    )


def _told(settings: ForwardRetrySettings, table: Table, parameters: Parameters) -> Iterator[Sql]:
    yield _BLOCKS.fill("told_ended", column=table.columns[settings.ended_column].sql)
    if settings.outcome_column is not None:
        column = table.columns[settings.outcome_column]
        yield _BLOCKS.fill(
            "told_outcome",
            column=column.sql,
            delivered=parameters.add(settings.delivered),
            failed=parameters.add(settings.failed),
            type=column.type,
        )
    if settings.reason_column is not None:
        yield _BLOCKS.fill("told_reason", column=table.columns[settings.reason_column].sql)
    if settings.empty_raw:
        yield _BLOCKS.fill("told_raw", column=table.columns[settings.raw_column].sql)


async def _rehearse(work: Work[ForwardRetrySettings]) -> Result:
    settings, table = work.settings, work.tables[work.settings.table]
    total = await sampling.count(work, table, partial(_waits, work))
    shown = (settings.sender_column, settings.recipient_column)
    rows = await sampling.sample(work, table, shown, settings.failed_at_column, partial(_waits, work))
    return sampling.said("hand_over", total, settings.table, rows)


FORWARD_RETRY = Verb(
    name="forward_retry",
    doc="Hands forwards that failed to jobsd, which tries them again by their age, and tells their rows the outcome.",
    settings=ForwardRetrySettings,
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
    advise=_advise,
)
