"""The verb `threshold`: whoever has used a good part of what is allowed is told, once for each threshold and period."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from jobs.catalogue.ground import Column, Table
from jobs.catalogue.needs import Fault
from jobs.catalogue.skeleton import Blocks, Parameters, Sql, alias, joined
from jobs.catalogue.steps import Steps
from jobs.catalogue.verb import Result, Verb, Work
from jobs.usage.fits import fitting, misfit
from jobs.usage.threshold_settings import ThresholdSettings, needs

_BLOCKS = Blocks("threshold.sql")
_INSTANT = "timestamp with time zone"
_PLAIN = {"@threshold": "threshold", "@used": "used", "@allowed": "allowed", "@percent": "percent", "@event": "event"}

QUEUE = "notification"
MAIL_PRIORITY = 2
SAMPLE = 5


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Args of such a job: none."""


class Look:
    """One look at all periods, page by page.  `last`: the end and the key of the last one that was seen, as texts."""

    def __init__(self, work: Work[ThresholdSettings]) -> None:
        self._work = work
        self._settings = work.settings
        self._cycles = work.tables[work.settings.cycles]
        self._events = work.tables[work.settings.events]
        self.last: list[str] | None = None

    def emit(self, rows: int, parameters: Parameters) -> Sql:
        """Insert the events of the next page, and what is to be told of them."""
        settings = self._settings
        beside, counted = [], []
        if settings.notify is not None:
            table = self._work.tables[settings.notify]
            columns, values = self._values(table, settings.notify_columns, parameters)
            beside.append(_BLOCKS.fill("notify", table=table.sql, columns=columns, values=values))
            counted.append(_BLOCKS.fill("notified"))
        if settings.email_column is not None:
            beside.append(self._mail(parameters))
            counted.append(_BLOCKS.fill("mailed"))
        columns, values = self._values(self._events, settings.event_columns, parameters)
        key, threshold = self._event_key()
        return _BLOCKS.fill(
            "emit",
            page=self._page(rows, parameters),
            crossed=self._crossed(parameters),
            events=self._events.sql,
            columns=columns,
            values=values,
            unique=joined([key, threshold]),
            event_key=key,
            event_threshold=threshold,
            beside=joined(beside, " "),
            last=_BLOCKS.fill("last"),
            counted=joined(counted, " "),
        )

    def would(self, rows: int, parameters: Parameters) -> Sql:
        key, threshold = self._event_key()
        return _BLOCKS.fill(
            "would",
            page=self._page(rows, parameters),
            crossed=self._crossed(parameters),
            events=self._events.sql,
            event_key=key,
            event_threshold=threshold,
            last=_BLOCKS.fill("last"),
        )

    def _page(self, rows: int, parameters: Parameters) -> Sql:
        settings, columns = self._settings, self._cycles.columns
        key, ends, starts = (
            columns[name] for name in (settings.key_column, settings.ends_column, settings.starts_column)
        )
        if self.last is None:
            since = self._work.now - timedelta(seconds=settings.grace)
            beyond = _BLOCKS.fill("since", ends=ends.sql, since=self._bound(ends, parameters.add(since), parameters))
        else:
            beyond = _BLOCKS.fill(
                "after",
                ends=ends.sql,
                key=key.sql,
                last_end=parameters.add(self.last[0]),
                ends_type=ends.type,
                last_key=parameters.add(self.last[1]),
                key_type=key.type,
            )
        return _BLOCKS.fill(
            "page",
            key=key.sql,
            ends=ends.sql,
            starts_column=starts.sql,
            starts=self._moment(starts, parameters),
            ended=self._moment(ends, parameters),
            allowed=_BLOCKS.fill("moment", column=columns[settings.allowed_column].sql),
            copied=joined(self._copied(), " "),
            cycles=self._cycles.sql,
            until=self._bound(starts, parameters.now, parameters),
            beyond=beyond,
            limit=parameters.add(rows),
        )

    def _copied(self) -> Iterator[Sql]:
        settings, columns = self._settings, self._cycles.columns
        for name, number in self._numbers().items():
            yield _BLOCKS.fill("copied", column=columns[name].sql, name=alias("v", number))
        places = {"owner": settings.by, "address": settings.email_column, "organisation": settings.org_column}
        for block, given in places.items():
            if given is not None:
                yield _BLOCKS.fill(block, column=columns[given].sql)
        if settings.usage is None:
            yield _BLOCKS.fill("own", column=columns[settings.used_column].sql)

    def _numbers(self) -> dict[str, int]:
        """The columns of the periods that go into other tables."""
        values = [*self._settings.event_columns.values(), *self._settings.notify_columns.values()]
        names = dict.fromkeys(value for value in values if not value.startswith(("@", "=")))
        return {name: number for number, name in enumerate(names, start=1)}

    def _moment(self, column: Column, parameters: Parameters) -> Sql:
        if column.base == _INSTANT:
            return _BLOCKS.fill("moment", column=column.sql)
        return _BLOCKS.fill("local_moment", column=column.sql, zone=self._zone(parameters))

    def _bound(self, column: Column, value: Sql, parameters: Parameters) -> Sql:
        """A moment to compare the column with, as it has them."""
        if column.base == _INSTANT:
            return _BLOCKS.fill("instant", value=value)
        return _BLOCKS.fill("local", value=value, zone=self._zone(parameters))

    def _crossed(self, parameters: Parameters) -> Sql:
        settings = self._settings
        return _BLOCKS.fill(
            "crossed",
            used=self._used(parameters),
            now=parameters.now,
            thresholds=parameters.add(sorted(set(settings.thresholds))),
            sliding=parameters.add(settings.sliding),
            from_share=parameters.add(str(settings.sliding_from)),
        )

    def _used(self, parameters: Parameters) -> Sql:
        settings = self._settings
        if settings.usage is None or settings.by is None or settings.time_column is None:
            return _BLOCKS.fill("used_own")
        table = self._work.tables[settings.usage]
        time = table.columns[settings.time_column]
        bounds = {name: _BLOCKS.fill(name) for name in ("starts", "ends")}
        if time.base != _INSTANT:
            zone = self._zone(parameters)
            bounds = {name: _BLOCKS.fill("at_local", time=bound, zone=zone) for name, bound in bounds.items()}
        within = _BLOCKS.fill(
            "between" if table.ranged([settings.by], time.name) else "within",
            by=table.columns[settings.by].sql,
            time=time.sql,
            **bounds,
        )
        return _BLOCKS.fill("added_up", used=table.columns[settings.used_column].sql, usage=table.sql, within=within)

    def _values(self, table: Table, given: Mapping[str, str], parameters: Parameters) -> tuple[Sql, Sql]:
        """The columns, and what goes in."""
        numbers = self._numbers()
        columns = [table.columns[name] for name in given]
        values = []
        for column, value in zip(columns, given.values(), strict=True):
            if value.startswith("="):
                said = _BLOCKS.fill("constant", value=parameters.add(value[1:]), type=column.type)
            elif value == "@now":
                said = _BLOCKS.fill("now", now=parameters.now)
            elif value == "@elapsed":
                said = _BLOCKS.fill("elapsed")
            elif value in _PLAIN:
                said = _BLOCKS.fill(_PLAIN[value])
            else:
                said = _BLOCKS.fill("copy", name=alias("v", numbers[value]))
            values.append(_BLOCKS.fill("as", value=said, type=column.type))
        return joined(column.sql for column in columns), joined(values)

    def _mail(self, parameters: Parameters) -> Sql:
        settings = self._settings
        fixed = {} if settings.email_from is None else {"from": settings.email_from}
        key, threshold = self._event_key()
        return _BLOCKS.fill(
            "mail",
            queue=parameters.add(QUEUE),
            priority=parameters.add(MAIL_PRIORITY),
            org=_BLOCKS.fill("of_nobody" if settings.org_column is None else "of_org"),
            args=parameters.add(msgspec.json.encode(fixed).decode()),
            subject_said=_BLOCKS.fill("said", text=parameters.add(settings.email_subject)),
            text_said=_BLOCKS.fill("said", text=parameters.add(settings.email_text)),
            events=self._events.sql,
            event_key=key,
            event_threshold=threshold,
        )

    def _event_key(self) -> tuple[Sql, Sql]:
        names = (self._settings.event_column(self._settings.key_column), self._settings.event_column("@threshold"))
        key, threshold = (self._events.columns[name].sql for name in names)
        return key, threshold

    def _zone(self, parameters: Parameters) -> Sql:
        return parameters.once("zone", self._settings.usage_timezone)


async def run(work: Work[ThresholdSettings]) -> Result:
    look = Look(work)
    said = {"looked_at": 0, "events": 0, "notified": 0, "mailed": 0}
    with fitting(" or ".join(filter(None, [work.settings.events, work.settings.notify]))):
        async for page in Steps(work, work.settings.events).pages(look.emit):
            look.last = page["last"]
            said["looked_at"] += page["scanned"]
            for name in ("events", "notified", "mailed"):
                said[name] += page.get(name, 0)
            await work.ctx.progress(50.0, **said)
    return said


async def _rehearse(work: Work[ThresholdSettings]) -> Result:
    look, would, looked_at, sample = Look(work), 0, 0, list[Any]()
    async for page in Steps(work, work.settings.events).pages(look.would):
        look.last = page["last"]
        looked_at += page["scanned"]
        would += page["events"]
        sample += msgspec.json.decode(page["sample"])[: SAMPLE - len(sample)]
    return {"would_emit": would, "would_look_at": looked_at, "table": work.settings.events, "sample": sample}


def _advise(settings: ThresholdSettings, tables: Mapping[str, Table]) -> Iterator[str]:
    cycles, ends, key = tables[settings.cycles], settings.ends_column, settings.key_column
    if cycles.kind in "rp" and not cycles.ranged([ends], key):
        yield cycles.wants_index(ends, key, why="each page looks at all that end then or later")
    if settings.usage is not None and settings.by is not None and settings.time_column is not None:
        usage = tables[settings.usage]
        if usage.kind in "rp" and not usage.found_by(settings.by):
            yield usage.wants_index(settings.by, settings.time_column, why="each period reads the whole table")


async def _inspect(_conn: Any, settings: ThresholdSettings, tables: Mapping[str, Table]) -> Iterable[Fault]:
    """An event must be found again by the key of its period."""
    column = settings.event_column(settings.key_column)
    of, into = (settings.cycles, settings.key_column), (settings.events, column)
    return misfit(f"event_columns.{column}", tables, of, into)


THRESHOLD = Verb(
    name="threshold",
    doc="Tells of those who have used 60, 70, 80 or 100 % of what they may: one event for each threshold and period.",
    settings=ThresholdSettings,
    needs=needs,
    run=run,
    rehearse=_rehearse,
    advise=_advise,
    inspect=_inspect,
    args=Nothing,
)
