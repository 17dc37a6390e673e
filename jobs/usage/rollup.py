"""The verb `rollup`: rows of one table added up in another, by owner and day or week, also those that come late."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

import sql
from jobs.catalogue.ground import Column, Table
from jobs.catalogue.needs import Need, NeedsColumn, NeedsPair, NeedsTable, NeedsUnique
from jobs.catalogue.pages import Pages
from jobs.catalogue.settings import BatchSettings, check_columns, check_table
from jobs.catalogue.steps import Steps
from jobs.catalogue.verb import Result, Verb, Work
from jobs.usage.buckets import Buckets, Unit
from jobs.usage.stale import forget
from jobs.usage.sums import Bucket, Sums
from jobs.values import Duration, duration, key

_SQL = sql.load("rollups.sql")

BUCKETS = 10_000
"""So many are gathered before they are computed: each is computed once then, however many rows came for it."""

LATE_BY_ARRIVAL, LATE_BY_TIME = duration("1h"), duration("7d")
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
ROWS_MAX = 1_000_000
"""A rehearsal reads no further."""

SAMPLE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupSettings(BatchSettings):
    """Adds up rows of `source` in `into`, a row for each owner and bucket."""

    source: str = key(doc="The rows to add up; only ever added to.", example='"app.bandwidth"')
    into: str = key(doc="Where the sums are, unique by owner and bucket.", example='"app.bandwidth_daily"')
    by: tuple[str, ...] = key(doc="Whose they are: columns of both tables.", example='["account_id"]')
    time_column: str = key(doc="When a row of the source happened.", example='"happened_at"')
    bucket: Unit = key("day", "How long a bucket is; weeks begin on Monday.")
    bucket_column: str = key(doc="Where `into` has when a bucket begins.", example='"day"')
    bucket_timezone: str = key("UTC", 'Whose days they are, like "Europe/Warsaw".')
    sums: dict[str, str] = key(
        factory=dict,
        doc="Columns of `into`, and the column of the source that each is the sum of.",
        example='{ bytes_used = "bytes", emails = "emails" }',
    )
    count_column: str | None = key(None, "Where `into` has how many rows they are.", example='"requests"')
    computed_column: str | None = key(None, "Where `into` has when its row was last changed.", example='"computed_at"')
    arrived_column: str | None = key(
        None,
        "When a row of the source came to the table, by its default now(): only what is new is read, and rows are "
        "counted in however late. Unset: rows are looked for by time_column.",
        example='"recorded_at"',
    )
    late: Duration | None = key(
        None,
        "So much of what was read is read again: how long a transaction that adds rows may last; unset: 1h. Without "
        "arrived_column: how late rows may come; unset: 7d.",
        minimum=0,
        example='"1h"',
    )
    source_retention: Duration | None = key(
        None,
        "Rows of the source are purged after this: buckets from before that are left as they are.",
        minimum=3600,
        example='"90d"',
    )
    retention: Duration | None = key(
        None, "Buckets that began longer ago are deleted from `into`; unset: none.", minimum=3600, example='"400d"'
    )
    batch: int = key(
        10_000,
        "Rows or buckets of one transaction at most; fewer when it takes longer than 100ms.",
        minimum=1,
        maximum=50_000,
    )

    def __post_init__(self) -> None:
        for field in ("source", "into"):
            check_table(field, getattr(self, field))
        for field in ("time_column", "bucket_column", "count_column", "computed_column", "arrived_column"):
            check_columns(field, getattr(self, field))
        check_columns("by", *self.by)
        check_columns("sums", *self.sums, *self.sums.values())
        if not self.by:
            raise ValueError("by: name at least one column")
        if not self.sums and self.count_column is None:
            raise ValueError("sums: add up a column, or count rows in count_column")
        try:
            ZoneInfo(self.bucket_timezone)
        except (KeyError, ValueError, OSError):  # none of that name, none that can be one
            raise ValueError(
                f'bucket_timezone: {self.bucket_timezone!r} is none; write it like "Europe/Warsaw"'
            ) from None
        written = [*self.by, self.bucket_column, *self.sums, self.count_column, self.computed_column]
        twice = {name for name in written if name is not None and written.count(name) > 1}
        if twice:
            raise ValueError(f"sums: {', '.join(sorted(twice))} of `into` would be written twice")
        if self.source == self.into:
            raise ValueError("into: is the source")


class Anew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Args of a roll-up.  `anew`: add up everything, and not only what has come."""

    anew: bool = False


def _needs(settings: RollupSettings) -> Iterator[Need]:
    source, into = settings.source, settings.into
    yield NeedsTable("source", source, keyed=True)
    yield NeedsTable("into", into, ("select", "insert", "update", "delete"), keyed=True)
    for column in settings.by:
        yield NeedsColumn("by", source, column)
        yield NeedsColumn("by", into, column, written=True)
        yield NeedsPair("by", source, column, into, column)
    yield NeedsColumn("time_column", source, settings.time_column, "time")
    yield NeedsColumn(
        "bucket_column", into, settings.bucket_column, "moment" if settings.bucket == "hour" else "time", written=True
    )
    yield NeedsUnique("bucket_column", into, (*settings.by, settings.bucket_column))
    for name, column in settings.sums.items():
        yield NeedsColumn(f"sums.{name}", source, column, "number")
        yield NeedsColumn(f"sums.{name}", into, name, "number", written=True)
    if settings.count_column is not None:
        yield NeedsColumn("count_column", into, settings.count_column, "number", written=True)
    if settings.computed_column is not None:
        yield NeedsColumn("computed_column", into, settings.computed_column, "moment", written=True)
    if settings.arrived_column is not None:
        yield NeedsColumn("arrived_column", source, settings.arrived_column, "moment")


def _advise(settings: RollupSettings, tables: Mapping[str, Table]) -> Iterator[str]:
    source = tables[settings.source]
    found = settings.arrived_column or settings.time_column
    if not source.leads(found):
        yield source.wants_index(found, why="each run reads the whole table")
    if not any(source.found_by(column) for column in settings.by):
        yield source.wants_index(settings.by[0], settings.time_column, why="each bucket reads the whole table")


@dataclass(frozen=True, slots=True)
class Reach:
    """What a run reads: rows that came `since`; buckets that began before `first` are left alone; `upto`: where the
    next one goes on."""

    since: datetime
    first: datetime
    upto: datetime


async def _run(work: Work[RollupSettings]) -> Result:
    reach, sums, found = await _reach(work), sums_of(work), dict[Bucket, None]()
    said = {"read": 0, "computed": 0, "emptied": 0, "passed_over": 0}
    pages = _pages(work, sums, reach)
    async for page in pages.run(sums.touched(reach.first)):
        said["read"] += page["scanned"]
        said["passed_over"] += page["passed"]
        found |= dict.fromkeys(_buckets(page["touched"]))
        if len(found) >= BUCKETS:
            await _compute(work, sums, found, said)
            found.clear()
            await _note_so_far(work, sums, page["at"], reach)
        await work.ctx.progress(pages.percent(page["at"]), **said)
    await _compute(work, sums, found, said)
    await _note(work, reach.upto)
    if work.settings.retention is not None:
        said["deleted"] = await forget(work, work.settings.into, work.settings.bucket_column, work.settings.retention)
    return said


async def _compute(work: Work[RollupSettings], sums: Sums, found: Iterable[Bucket], said: dict[str, int]) -> None:
    """In the order of the owners, as the index of the source has them."""
    async for done in _steps(work, sorted(found), sums.write):
        said["computed"] += done["computed"]
        said["emptied"] += done["emptied"]


async def _rehearse(work: Work[RollupSettings]) -> Result:
    reach, sums, found, read = await _reach(work), sums_of(work), dict[Bucket, None](), 0
    async for page in _pages(work, sums, reach).run(sums.touched(reach.first)):
        read += page["scanned"]
        found |= dict.fromkeys(islice(_buckets(page["touched"]), ROWS_MAX - len(found)))
        if read >= ROWS_MAX:
            break
    would, sample = 0, list[Any]()
    async for done in _steps(work, sorted(found), sums.compare):
        would += done["computed"]
        sample += msgspec.json.decode(done["sample"])[: SAMPLE - len(sample)]
    more = {"or_more": True} if read >= ROWS_MAX else {}
    return {"would_compute": would, **more, "would_read": read, "table": work.settings.into, "sample": sample}


async def _steps(work: Work[RollupSettings], found: list[Bucket], statement: Any) -> AsyncIterator[Mapping[str, Any]]:
    steps = Steps(work, work.settings.into)
    async for done in steps.over(found, statement):
        yield done


async def _reach(work: Work[RollupSettings]) -> Reach:
    settings = work.settings
    upto: datetime = await work.conn.fetchval(_SQL["horizon"])
    reached = None if work.args.anew else await work.conn.fetchval(_SQL["reached"], work.name, _digest(settings))
    late = settings.late
    if late is None:
        late = LATE_BY_TIME if settings.arrived_column is None else LATE_BY_ARRIVAL
    since = BEGINNING if reached is None else reached - timedelta(seconds=late)
    kept = [kept for kept in (settings.source_retention, settings.retention) if kept is not None]
    first = work.now - timedelta(seconds=min(kept)) if kept else BEGINNING
    return Reach(since, first, upto)


def _pages(work: Work[RollupSettings], sums: Sums, reach: Reach) -> Pages:
    return Pages(work, sums.source, _age(work.settings, sums.source), since=reach.since, more=sums.lands)


def sums_of(work: Work[RollupSettings]) -> Sums:
    settings = work.settings
    source, into = work.tables[settings.source], work.tables[settings.into]
    sums: list[tuple[Column | None, Column]] = [
        (source.columns[column], into.columns[name]) for name, column in settings.sums.items()
    ]
    if settings.count_column is not None:
        sums.append((None, into.columns[settings.count_column]))
    return Sums(
        source=source,
        into=into,
        by=[(source.columns[name], into.columns[name]) for name in settings.by],
        buckets=Buckets(
            time=source.columns[settings.time_column],
            column=into.columns[settings.bucket_column],
            unit=settings.bucket,
            zone=settings.bucket_timezone,
        ),
        sums=sums,
        computed=None if settings.computed_column is None else into.columns[settings.computed_column],
    )


def _buckets(touched: str) -> Iterator[Bucket]:
    return (tuple(bucket) for bucket in msgspec.json.decode(touched))


def _age(settings: RollupSettings, source: Table) -> Column:
    """What rows are looked for by."""
    return source.columns[settings.arrived_column or settings.time_column]


async def _note_so_far(work: Work[RollupSettings], sums: Sums, at: float | None, reach: Reach) -> None:
    """Where rows are read in the order of their times, a run that is killed need not begin anew."""
    if at is not None and 0 < at < reach.upto.timestamp() and sums.source.leads(_age(work.settings, sums.source).name):
        await _note(work, datetime.fromtimestamp(at, UTC))


async def _note(work: Work[RollupSettings], upto: datetime) -> None:
    await work.conn.execute(_SQL["reach"], work.name, _digest(work.settings), upto)


def _digest(settings: RollupSettings) -> str:
    """Of what decides what the sums are."""
    said = (
        settings.source,
        settings.into,
        settings.by,
        settings.time_column,
        settings.bucket,
        settings.bucket_column,
        settings.bucket_timezone,
        sorted(settings.sums.items()),
        settings.count_column,
        settings.arrived_column,
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


ROLLUP = Verb(
    name="rollup",
    doc="Adds up rows of a table in another, by owner and by hour, day, week or month, and computes anew whatever rows "
    "come late for.",
    settings=RollupSettings,
    needs=_needs,
    run=_run,
    rehearse=_rehearse,
    advise=_advise,
    args=Anew,
)
