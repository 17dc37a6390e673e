"""Which events a replay sends to an endpoint once more: looked for in pages, along a key that says how far it came."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import asyncpg
import msgspec

import sql
from jobs.values import rate
from jobs.webhook.judge import Word

_SQL = sql.load("replay.sql")

What = Literal["failed", "missing", "logged", "events"]

LOOK = 500
"""Rows of a page."""

LIVE_LOOK = 10_000
WAITING_MAX = 2_000_000
"""Deliveries of one endpoint that may wait for it to be told which events they are of: 16 MB."""

MARGIN = timedelta(minutes=1)
"""An event so much older than an endpoint was inserted before there was one."""

RATE_MAX = 1000.0

_START = datetime(1, 1, 2, tzinfo=UTC)

_Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class ReplayArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events for `endpoint` (its id, or its name in the job's organisation).  `what`: `failed`, those with attempts
    since `since` of which none went well; `missing`, those made since then that it wants and never got; `logged`, those
    whose last attempt since then had one of `outcomes`; `events`, those with these ids.  `event` is a pattern that they
    must match, `rate` how many of them in a period, `most` how many at all."""

    endpoint: _Id | Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    what: What
    since: _Time | None = None
    until: _Time | None = None
    event: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    outcomes: Annotated[tuple[Word, ...], msgspec.Meta(max_length=5)] = ()
    events: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=1000)] = ()
    rate: str = "10/s"
    most: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        if (self.what == "events") != bool(self.events):
            raise ValueError("events: goes with what = events, and it with events")
        if (self.what == "logged") != bool(self.outcomes):
            raise ValueError("outcomes: goes with what = logged, and it with outcomes")
        if (self.what == "events") == (self.since is not None):
            raise ValueError("since: is needed, unless events are named")
        if self.what == "events" and (self.until is not None or self.event is not None):
            raise ValueError("events: are named; leave out until and event")
        if self.per_second > RATE_MAX:
            raise ValueError(f"rate: {RATE_MAX:g}/s at most")

    @property
    def per_second(self) -> float:
        return rate(self.rate).per_second


@dataclass(frozen=True, slots=True)
class Whom:
    """The endpoint, and what time it is.  `log_from`: older attempts are no longer in the delivery log."""

    id: int
    org_id: str | None
    name: str
    enabled: bool
    events: Sequence[str]
    created_at: datetime
    now: datetime
    log_from: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """A place on the way: everything up to the row of this time and id was looked at."""

    at: datetime = _START
    id: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An event to send, and what the log says of it."""

    key: Key
    event_id: int
    event: str | None
    outcome: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """`last` None: there was nothing more to look at."""

    candidates: Sequence[Candidate]
    looked: int
    last: Key | None


class TooManyWait(Exception):
    """More deliveries of the endpoint wait than can be kept in mind."""


async def find(conn: Any, endpoint: int | str, org_id: str | None) -> Whom | None:
    """By id, or by name in an organisation; of an id, whosever it is."""
    by_id = endpoint if isinstance(endpoint, int) else None
    row = await conn.fetchrow(_SQL["whom"], by_id, org_id, None if by_id is not None else endpoint)
    return None if row is None else Whom(**dict(row))


class Selection:
    """What one replay wants, on one connection.  `until` is a time that has passed, so that what the replay itself
    causes is not looked at."""

    def __init__(self, conn: Any, args: ReplayArgs, whom: Whom, until: datetime) -> None:
        self._conn = conn
        self._args = args
        self._whom = whom
        self._until = until
        self._waiting: Waiting | None = None

    @property
    def since(self) -> datetime:
        """What is missing can be told as far back as the log goes."""
        since = self._args.since or _START
        if self._args.what == "missing" and self._whom.log_from is not None:
            return max(since, self._whom.log_from)
        return since

    def percent(self, key: Key) -> float:
        """How far along `key` is."""
        whole = (self._until - self.since).total_seconds()
        if self._args.what == "events" or whole <= 0:
            return 0.0
        return round(min(max((key.at - self.since).total_seconds() / whole, 0.0), 1.0) * 100, 1)

    async def page(self, after: Key) -> Page:
        """The next ones after `after`."""
        rows = await self._rows(after)
        candidates = []
        for row in rows:
            if row["wanted"] and (row["tried"] or not await self._is_waiting(row)):
                key = Key(row["at"], row["id"])
                candidates.append(Candidate(key, row["event_id"], row["event"], row["outcome"], row["code"]))
        return Page(candidates, len(rows), Key(rows[-1]["at"], rows[-1]["id"]) if rows else None)

    async def _rows(self, after: Key) -> list[asyncpg.Record]:
        args, whom = self._args, self._whom
        org = whom.org_id or ""
        rows: list[asyncpg.Record]
        match args.what:
            case "events":
                rows = await self._conn.fetch(_SQL["named"], org, list(args.events), after.id)
            case "missing":
                since = self.since
                day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
                given = (whom.id, org, list(whom.events), args.event, since, self._until, day, after.id, LOOK)
                rows = await self._conn.fetch(_SQL["missing"], *given)
            case "failed" | "logged":
                outcomes = list(args.outcomes) if args.what == "logged" else None
                span = (self.since, self._until)
                place = (after.at, after.id)
                rows = await self._conn.fetch(_SQL["logged"], whom.id, outcomes, args.event, *span, *place, LOOK)
        return rows

    async def _is_waiting(self, row: asyncpg.Record) -> bool:
        """Of an event that was never tried: whether its delivery still waits.  Those from before there was the endpoint
        have none; of the others nothing but the live rows can tell."""
        if row["at"] < self._whom.created_at - MARGIN:
            return False
        if self._waiting is None:
            self._waiting = await waiting(self._conn, self._whom.id)
        return row["event_id"] in self._waiting


class Waiting:
    """The events whose deliveries to one endpoint are live, eight bytes each."""

    def __init__(self, events: Sequence[int]) -> None:
        self._events = array("q", sorted(events))

    def __contains__(self, event_id: int) -> bool:
        place = bisect_left(self._events, event_id)
        return place < len(self._events) and self._events[place] == event_id


async def waiting(conn: Any, endpoint: int, *, most: int = WAITING_MAX) -> Waiting:
    """One pass over the live rows, however many they are: an index by endpoint is what every delivery would pay for."""
    found, after = array("q"), 0
    while True:
        page = await conn.fetchrow(_SQL["waiting"], endpoint, after, LIVE_LOOK)
        found.extend(page["events"])
        if len(found) > most:
            raise TooManyWait
        if page["looked"] < LIVE_LOOK:
            return Waiting(found)
        after = page["last"]
