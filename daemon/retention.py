"""How long what ended is kept: days made ahead and dropped, and rows that their queue wants gone before their day."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple

import sql
from daemon.config import Config
from daemon.observe import Observer
from daemon.statements import AWAY
from daemon.upkeep_store import UpkeepStore

_SQL = sql.load("history.sql")
_MONITORS = sql.load("monitors.sql")
_FORWARDS = sql.load("forwards.sql")

BATCH = 1000
"""Rows one transaction deletes."""

PAGES = 128
"""Pages one transaction reads: 1 MiB, a few thousand rows."""

UNUSED_S = 86_400.0
"""A limit's bucket that has been full for so long is forgotten: limits by organisation or lane leave many behind."""

SWEEP_S = 1.0
"""A sweep goes on at its next turn after so long: the rest of the upkeep waits for it."""

DAY_S = 86400.0
SOONEST_S = 300.0

MONITORS_S = 90 * DAY_S
"""However short a time their checks are kept: who forgets that a monitor is down tells of it again."""

TALLIES_S = 8 * DAY_S
"""A week of hours, and some more."""

ITEMS_S = 30 * DAY_S
"""So long are items of a digest kept that no mail tells of."""

BOUNCES_S = 30 * DAY_S
"""So long does a bounce count after what it suppressed has ended."""


class Swept(NamedTuple):
    """A partitioned table that queues have a say in, and its columns."""

    parent: str
    outcome: str  # '': no matter how it ended
    ended: str


HISTORY = Swept("job_history", "state", "finished_at")
ATTEMPTS = Swept("job_attempts", "", "ended_at")


class Days(NamedTuple):
    """A table's days from today on that have a partition, rows that found none, and whether a day is past its time."""

    parent: str
    days: int
    rows: int
    over: bool


class Group(NamedTuple):
    """Rows of one queue and outcome on some pages, and when the oldest of them ended."""

    queue: str
    outcome: str
    oldest: datetime


class Rule(NamedTuple):
    """Rows to delete: those of this queue and outcome that ended before."""

    queue: str
    outcome: str
    before: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to delete from some pages, and when the first row that stays will be due (None: never before its day)."""

    rules: tuple[Rule, ...]
    due_at: datetime | None


class Keeps:
    """The queues' own retention by one config.  Pure.

    `shortest_s` of a table is None where no queue wants less than the table's own retention: then nothing is swept.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        sections = [(name, s.keep_done, s.keep_dead) for name, s in sorted(config.queues.items())]
        whole = (config.retention.history, config.retention.attempts)
        self.digest = hashlib.sha256(repr((sections, whole)).encode()).hexdigest()[:16]

    def of(self, table: Swept, queue: str, outcome: str) -> float | None:
        """Seconds; None: as long as its day.  An attempt is kept as long as what its job may have become."""
        settings = self._config.queue(queue)
        if table is HISTORY:
            kept: float | None = settings.keep_done if outcome == "done" else settings.keep_dead
        else:
            kept = _longest((settings.keep_done, settings.keep_dead))
        return kept if kept is not None and kept < self._whole_s(table) else None

    def shortest_s(self, table: Swept) -> float | None:
        outcomes = ("done", "dead") if table is HISTORY else ("",)
        found = [self.of(table, queue, outcome) for queue in self._config.queues for outcome in outcomes]
        return min((kept for kept in found if kept is not None), default=None)

    def judge(self, table: Swept, groups: Iterable[Group], now: datetime, day_end: datetime) -> Verdict:
        """What of `groups`, in the partition of the day that ends at `day_end`, is to be deleted now."""
        rules, due = [], []
        for group in groups:
            kept = self.of(table, group.queue, group.outcome)
            if kept is None:
                continue
            before = now - timedelta(seconds=kept)
            if group.oldest < before:
                rules.append(Rule(group.queue, group.outcome, before))
            if before < day_end:  # younger rows stay, or may
                oldest_left = max(group.oldest, before)
                due.append(oldest_left + timedelta(seconds=kept + slice_s(kept)))
        return Verdict(tuple(rules), min(due, default=None))

    def _whole_s(self, table: Swept) -> float:
        keep = self._config.retention
        return keep.history if table is HISTORY else keep.attempts


def slice_s(keep_s: float) -> float:
    """How much longer than asked for a row may stay, so that a partition is read a few times and not for each row: a
    quarter of the time, five minutes at least and a day at most."""
    return min(max(keep_s / 4, SOONEST_S), DAY_S)


def _longest(kept: Sequence[float | None]) -> float | None:
    """None is without end."""
    known = [seconds for seconds in kept if seconds is not None]
    return max(known) if len(known) == len(kept) else None


class Retention:
    """Done by every daemon; what one does, the others find done."""

    def __init__(self, store: UpkeepStore, observer: Observer, config: Callable[[], Config]) -> None:
        self._store = store
        self._observer = observer
        self._config = config

    async def partitions(self) -> None:
        """Days to come made ahead, days past their retention dropped; what waits for a lock is tried again later."""
        keep = self._config().retention
        keeps = {
            "job_history": keep.history,
            "job_attempts": keep.attempts,
            "webhook_deliveries": keep.webhook_deliveries,
            "email_deliveries": keep.email_deliveries,
            "domain_checks": keep.domain_checks,
            "job_logs": keep.job_logs,
            "webhook_events": keep.webhook_events,
            "notification_deliveries": keep.notification_deliveries,
            "monitor_checks": keep.monitor_checks,
        }
        tables = await self._days(keeps)
        amiss = [table for table in tables if table.days <= keep.partitions_ahead or table.rows or table.over]
        for table in amiss:
            try:
                await self._partitions_of(table.parent, keep.partitions_ahead, keeps[table.parent])
            except AWAY as error:  # somebody holds a lock on this one; the others do not wait for it
                self._observer.keeper_failed("partitions", error)
        if amiss:
            tables = await self._days(keeps)
        self._observer.upkeep.partitions_sampled({table.parent: (table.days, table.rows) for table in tables})

    async def _days(self, keeps: Mapping[str, float]) -> list[Days]:
        return [Days(*row) for row in await self._store.fetch(_SQL["days"], list(keeps), list(keeps.values()))]

    async def _partitions_of(self, parent: str, ahead: int, keep_s: float) -> None:
        for name in await self._store.make_partitions(parent, ahead):
            self._observer.upkeep.retention(parent, name, "created")
        while names := await self._store.drop_partitions(parent, keep_s, 1):
            self._observer.upkeep.retention(parent, names[0], "dropped")

    async def sweep(self) -> None:
        """Delete rows that their queue keeps for less than their day stays; for a second, then others have a turn."""
        keeps, until = Keeps(self._config()), monotonic() + SWEEP_S
        for table in (HISTORY, ATTEMPTS):
            shortest_s = keeps.shortest_s(table)
            if shortest_s is None:
                continue
            first_s = shortest_s + slice_s(shortest_s)
            await self._store.fetch(_SQL["sweep_known"], table.parent, keeps.digest, first_s)
            deleted, more = 0, True
            while more and monotonic() < until:
                rows, more = await self._sweep_some(table, keeps, shortest_s)
                deleted += rows
            if deleted:
                self._observer.upkeep.swept(table.parent, deleted)

    async def _sweep_some(self, table: Swept, keeps: Keeps, shortest_s: float) -> tuple[int, bool]:
        """One transaction; the rows it deleted, and whether there may be more."""
        async with self._store.connection() as conn, conn.transaction():
            book = await conn.fetchrow(_SQL["sweep_take"], table.parent, keeps.digest)
            if book is None:
                return 0, False
            place = (book["partition"], table.outcome, table.ended, book["page"], PAGES)
            groups = [Group(*row) for row in await conn.fetch(_SQL["survey"], *place)]
            verdict = keeps.judge(table, groups, book["now"], book["day_end"])
            deleted = 0
            if verdict.rules:
                rules = map(list, zip(*verdict.rules, strict=True))
                deleted = await conn.fetchval(_SQL["sweep"], *place, *rules, BATCH)
            if deleted < BATCH:  # else there may be more on these pages
                await self._note(conn, book, keeps, verdict.due_at, shortest_s)
            return deleted, True

    async def _note(self, conn: Any, book: Any, keeps: Keeps, due_at: datetime | None, shortest_s: float) -> None:
        """These pages are swept; after the last ones the partition rests until something in it is due."""
        page, due = book["page"] + PAGES, min(filter(None, (book["due_at"], due_at)), default=None)
        if page < book["pages"]:
            await conn.execute(_SQL["sweep_note"], book["partition"], keeps.digest, page, due)
            return
        now = book["now"]
        if book["day_end"] > now - timedelta(seconds=shortest_s):  # rows may have come, or still come, behind the sweep
            fresh = now + timedelta(seconds=shortest_s + slice_s(shortest_s))
            due = min(due, fresh) if due is not None else fresh
        await conn.execute(_SQL["sweep_rest"], book["partition"], keeps.digest, due)

    async def forwards(self) -> None:
        """Forwards that wait for nothing any more, or too long, are given up: whoever should know is told."""
        keep_s, after, ended, looked_at = self._config().retention.email_forwards, 0, 0, BATCH
        while looked_at == BATCH:
            (row,) = await self._store.fetch(_FORWARDS["adrift"], after, BATCH, keep_s)
            after, looked_at, ended = row["last"] or 0, row["looked_at"], ended + row["ended"]
        if ended:
            self._observer.upkeep.forwards_given_up(ended)

    async def forget(self) -> None:
        """Keys, audit rows, forwards that have ended, what may be taken back, tallies and limits' buckets: what is old
        enough goes; tallies of yesterday are folded."""
        keep, store = self._config().retention, self._store
        while await store.forget_keys(keep.idempotency_keys, BATCH) == BATCH:
            continue
        while await store.forget_debounces(keep.idempotency_keys, BATCH) == BATCH:
            continue
        while await store.forget_audit(keep.audit, BATCH) == BATCH:
            continue
        while await store.forget_undo(keep.undo, BATCH) == BATCH:
            continue
        while await store.forget_digest_items(ITEMS_S, BATCH) == BATCH:
            continue
        while await store.forget_suppressions(BOUNCES_S, BATCH) == BATCH:
            continue
        while await store.forget_batches(keep.batches, BATCH) == BATCH:
            continue
        while len(await store.fetch(_FORWARDS["forget_forwards"], keep.email_forwards, BATCH)) == BATCH:
            continue
        while len(await store.fetch(_MONITORS["forget"], max(keep.monitor_checks, MONITORS_S), BATCH)) == BATCH:
            continue
        while (await store.fetch(_SQL["fold"], BATCH))[0][0] == BATCH:
            continue
        while len(await store.fetch(_SQL["forget_tallies"], TALLIES_S, BATCH)) == BATCH:
            continue
        bucket: tuple[str, str] | None = ("", "")
        while bucket is not None:
            bucket = await store.forget_buckets(UNUSED_S, bucket, BATCH)
