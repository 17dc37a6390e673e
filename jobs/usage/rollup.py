"""The verb `rollup`: rows of one table added up in another, by owner and day or week, also those that come late."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

import sql
from jobs.catalogue.ground import Column, Table
from jobs.catalogue.needs import Fault
from jobs.catalogue.pages import Pages
from jobs.catalogue.steps import Steps
from jobs.catalogue.verb import Result, Verb, Work
from jobs.usage.buckets import Buckets
from jobs.usage.fits import fitting, misfit
from jobs.usage.rollup_settings import RollupSettings, needs
from jobs.usage.stale import forget
from jobs.usage.sums import Bucket, Sums
from jobs.values import duration

_SQL = sql.load("rollups.sql")

BUCKETS = 10_000
"""So many are gathered before they are computed: each is computed once then, however many rows came for it."""

LATE_BY_ARRIVAL, LATE_BY_TIME = duration("1h"), duration("7d")
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
"""The driver takes it for -infinity: nothing is before it, and it does not come back as it went."""

NOTHING_READ = BEGINNING + timedelta(days=1)
ROWS_MAX = 1_000_000
"""A rehearsal reads no further."""

SAMPLE = 5


class Anew(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Args of a roll-up.  `anew`: add up everything, and not only what has come."""

    anew: bool = False


def _advise(settings: RollupSettings, tables: Mapping[str, Table]) -> Iterator[str]:
    source = tables[settings.source]
    found = settings.arrived_column or settings.time_column
    if not source.leads(found):
        yield source.wants_index(found, why="each run reads the whole table")
    if not any(source.found_by(column) for column in settings.by):
        yield source.wants_index(settings.by[0], settings.time_column, why="each bucket reads the whole table")


async def _inspect(_conn: Any, settings: RollupSettings, tables: Mapping[str, Table]) -> Iterable[Fault]:
    """Whoever is in a row of `into` must be found again in the source."""
    return [
        fault
        for column in settings.by
        for fault in misfit("by", tables, (settings.source, column), (settings.into, column))
    ]


@dataclass(frozen=True, slots=True)
class Reach:
    """What a run reads: rows that came `since`; buckets that began before `first` are left alone; `upto`: where the
    next one goes on.  `otherwise`: what stands in `into` may be of other sums, so all of it is computed anew too."""

    since: datetime
    first: datetime
    upto: datetime
    otherwise: bool


async def _run(work: Work[RollupSettings]) -> Result:
    reach, sums, found = await _reach(work), sums_of(work), dict[Bucket, None]()
    said = {"read": 0, "computed": 0, "emptied": 0, "passed_over": 0}
    if reach.otherwise:
        async for standing in _standing(work, sums, reach.first):
            await _compute(work, sums, standing, said)
        await _note(work, NOTHING_READ)
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


async def _standing(work: Work[RollupSettings], sums: Sums, first: datetime) -> AsyncIterator[list[Bucket]]:
    """The buckets that `into` has, page by page: of other days or other rows, some would not be met in the source.
    What began before the oldest row of the source stays, since its rows may have been purged."""
    time = sums.buckets.time
    ordered, oldest = sums.source.leads(time.name), None
    async for page in Pages(work, sums.source, time, more=sums.lands).run(sums.oldest(first)):
        oldest = min(filter(None, (oldest, page["oldest"])), default=None)
        if ordered:
            break
    if oldest is not None:
        async for page in Pages(work, sums.into, more=sums.stands).run(sums.touched(oldest)):
            yield list(_buckets(page["touched"]))


async def _compute(work: Work[RollupSettings], sums: Sums, found: Iterable[Bucket], said: dict[str, int]) -> None:
    """In the order of the owners, as the index of the source has them."""
    with fitting(work.settings.into):
        async for done in _steps(work, sorted(found), sums.write):
            said["computed"] += done["computed"]
            said["emptied"] += done["emptied"]


async def _rehearse(work: Work[RollupSettings]) -> Result:
    reach, sums, found, read = await _reach(work), sums_of(work), dict[Bucket, None](), 0
    if reach.otherwise:
        async for standing in _standing(work, sums, reach.first):
            found |= dict.fromkeys(islice(standing, ROWS_MAX - len(found)))
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
    known = await work.conn.fetchrow(_SQL["reached"], work.name)
    otherwise = known is not None and (work.args.anew or known["said"] != _digest(settings))
    late = settings.late
    if late is None:
        late = LATE_BY_TIME if settings.arrived_column is None else LATE_BY_ARRIVAL
    # the clock of the server may have been put back since
    since = BEGINNING if known is None or otherwise else _before(min(known["upto"], upto), late)
    kept = [kept for kept in (settings.source_retention, settings.retention) if kept is not None]
    return Reach(since, _before(work.now, min(kept)) if kept else BEGINNING, upto, otherwise)


def _before(moment: datetime, seconds: float) -> datetime:
    """So much earlier, but not before there are dates."""
    return BEGINNING + max(moment - BEGINNING - timedelta(seconds=seconds), timedelta())


def _pages(work: Work[RollupSettings], sums: Sums, reach: Reach) -> Pages:
    age, since = _age(work.settings, sums.source), reach.since
    if age == sums.buckets.time and since > BEGINNING:
        since = sums.buckets.hands(since)
    return Pages(work, sums.source, age, since=since, more=sums.lands)


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
        kept_s=settings.source_retention,
    )


def _buckets(touched: str) -> Iterator[Bucket]:
    return (tuple(bucket) for bucket in msgspec.json.decode(touched))


def _age(settings: RollupSettings, source: Table) -> Column:
    """What rows are looked for by."""
    return source.columns[settings.arrived_column or settings.time_column]


async def _note_so_far(work: Work[RollupSettings], sums: Sums, at: float | None, reach: Reach) -> None:
    """Where rows are read in the order of their times, a run that is killed need not begin anew."""
    age = _age(work.settings, sums.source)
    if at is not None and 0 < at < reach.upto.timestamp() and sums.source.leads(age.name):
        upto = datetime.fromtimestamp(at, UTC)
        await _note(work, sums.buckets.moment(upto) if age == sums.buckets.time else upto)


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
    needs=needs,
    run=_run,
    rehearse=_rehearse,
    advise=_advise,
    inspect=_inspect,
    args=Anew,
)
