"""When a schedule ticks: a cron line in a time zone, and which ticks are due.  Pure; the clock is an argument."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal
from zlib import crc32
from zoneinfo import ZoneInfo, available_timezones

from apscheduler.triggers.cron import CronTrigger

Missed = Literal["skip", "one", "all"]

GRACE = timedelta(minutes=1)
"""How late a tick may be found and still count as on time."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
DAYS_IN = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_ITEM = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\w+))?")
_DAY, _SECOND, _INSTANT = timedelta(days=1), timedelta(seconds=1), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five: what it may hold, and the names of its values from `low` on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> frozenset[int]:
        """The values of "*/15", "1-5", "mon,wed" or "8-18/2"; ValueError names the field and what is wrong."""
        return frozenset(value for item in text.split(",") for value in self._item(item))

    def _item(self, item: str) -> range:
        match = _ITEM.fullmatch(item)
        if not match:
            raise self._wrong(item, "is not '*', a value, a range or a step" if item else "is empty between commas")
        first, last = self.low, self.high
        if not match["all"]:
            first = last = self._value(match["first"])
            if match["last"]:
                last = self._last(match["last"], first)
        if last < first:
            raise self._wrong(item, "runs backwards")
        if not match["step"]:
            return range(first, last + 1)
        if first == last:
            raise self._wrong(item, f"has a step but no range; write {match['first']}-{self.high}/{match['step']}")
        return range(first, last + 1, self._step(match["step"], item, last - first))

    def _value(self, text: str) -> int:
        if text.lower() in self.names:
            return self.low + self.names.index(text.lower())
        value = int(text) if text.isascii() and text.isdecimal() else -1
        if not self.low <= value <= self.high:
            known = f", or {' '.join(self.names)}" if self.names else ""
            raise self._wrong(text, f"is not {self.low}-{self.high}{known}")
        return value

    def _last(self, text: str, first: int) -> int:
        """A range's end, where sun after another day is the week's end: fri-sun is 5-7."""
        value = self._value(text)
        return 7 if text.lower() == "sun" and first > 0 else value

    def _step(self, text: str, item: str, span: int) -> int:
        step = int(text) if text.isascii() and text.isdecimal() else 0
        if not 1 <= step <= span:
            raise self._wrong(item, f"has a step that is not 1-{span}, so it would never take one")
        return step

    def _wrong(self, what: str, why: str) -> ValueError:
        return ValueError(f"{self.name}: {what!r} {why}")


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 7, WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed schedule.  Equal when line and zone are.

    Over a change of clocks it goes as cron does.  A line whose hour is `*` or `*/n` follows elapsed time: it ticks at
    each instant whose local time fits, twice where the hour comes twice, never in an hour that is left out.  A line
    with fixed hours is about the calendar: each local time ticks once, the first time it comes round, and where clocks
    jump over it, at the first instant after the jump (several such ticks are one).  A day that a zone leaves out
    altogether has no ticks.
    """

    text: str
    timezone: str
    zone: ZoneInfo = dataclasses.field(compare=False, repr=False)
    elapsed: bool = dataclasses.field(compare=False, repr=False)
    clocks: tuple[CronTrigger, ...] = dataclasses.field(compare=False, repr=False)

    def next_after(self, instant: datetime) -> datetime:
        """The first tick later than `instant`, in UTC; OverflowError past the year 9999."""
        if instant.tzinfo is None:
            raise ValueError("a tick is asked for after an instant, so it needs a time zone")
        instant = instant.astimezone(UTC)
        return self._next_by_elapsed_time(instant) if self.elapsed else self._next_by_calendar(instant)

    def ticks(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The first `limit` ticks later than `after` and not later than `until`, oldest first."""
        found: list[datetime] = []
        while len(found) < limit and (tick := self.next_after(found[-1] if found else after)) <= until:
            found.append(tick)
        return found

    def newest(self, after: datetime, until: datetime) -> datetime | None:
        """The last tick later than `after` and not later than `until`, found by halving the time between: a schedule of
        every minute that rested for years costs some thirty steps."""
        newest = None
        while until - after > _SECOND:
            middle = after + (until - after) / 2
            tick = self.next_after(middle)
            if tick <= until:
                newest = after = tick
            else:
                until = middle
        return next(iter(self.ticks(after, until, 1)), newest)

    def _next_by_calendar(self, instant: datetime) -> datetime:
        wall = self._wall(instant)
        while True:
            wall = self._wall_after(wall)
            tick = self._occurrence(wall)
            if tick is not None and tick > instant:
                return tick

    def _next_by_elapsed_time(self, instant: datetime) -> datetime:
        since, wall = instant, self._wall(instant)
        while True:
            tick = self._wall_after(wall).replace(tzinfo=UTC) - self._offset(since)
            change = self._change(since, tick)
            if change is None:
                return tick
            since, wall = change, self._wall(change) - _INSTANT

    def _wall_after(self, wall: datetime) -> datetime:
        """The next fitting reading of a wall clock that is never changed."""
        start = (wall + _INSTANT).replace(tzinfo=UTC)
        fires: list[datetime | None] = [clock.get_next_fire_time(None, start) for clock in self.clocks]
        if not any(fires):
            raise OverflowError(f"{self.text!r} has no tick between {wall} and the year 9999")
        return min(fire for fire in fires if fire).replace(tzinfo=None)

    def _occurrence(self, wall: datetime) -> datetime | None:
        """When the zone's clocks first show `wall`, or first show something later."""
        tick = wall.replace(tzinfo=self.zone).astimezone(UTC)
        if self._wall(tick) == wall:
            return tick
        # PEP 495: of a reading that is jumped over, fold=1 gives an instant before the jump, fold=0 one not before it.
        jump = self._change(wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC), tick) or tick
        day = wall.replace(hour=0, minute=0)
        left_out = self._wall(jump - _SECOND) < day and self._wall(jump) >= day + _DAY
        return None if left_out else jump

    def _wall(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone).replace(tzinfo=None, fold=0)

    def _offset(self, instant: datetime) -> timedelta:
        return self.zone.utcoffset(instant.astimezone(self.zone)) or timedelta(0)

    def _change(self, after: datetime, until: datetime) -> datetime | None:
        """The first instant in (after, until] at which the zone's offset is no longer that of `after`.

        Looks once a day: since 1970 no zone has changed twice within a week.  `until` is a whole second.
        """
        offset = self._offset(after)
        low = after.replace(microsecond=0)
        while low < until:
            high = min(low + _DAY, until)
            if self._offset(high) != offset:
                while high - low > _SECOND:
                    middle = low + timedelta(seconds=(high - low) // _SECOND // 2)
                    low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
                return high
            low = high
        return None


def stagger_s(name: str, spread_s: float) -> float:
    """How much later than its ticks the rows of a schedule are due: a part of `spread_s`, for ever the same, so that
    those of many schedules that tick at midnight do not all start then."""
    return spread_s * crc32(name.encode()) / 2**32


def parse(cron: str, timezone: str) -> Cron:
    """The schedule of "17 3 * * mon-fri" or "@daily" in "Europe/Warsaw"; ValueError names the field and what is wrong.

    Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday); lists, ranges, steps and names of
    three letters.  Of two restricted day fields either may fit; one that begins with `*` only narrows the other.
    """
    zone = _zone(timezone)
    texts = _split(cron)
    _, hour, day, month, weekday = texts
    minutes, hours, days, months, weekdays = (field.parse(text) for field, text in zip(FIELDS, texts, strict=True))
    possible = {n for n in days if any(n <= DAYS_IN[m - 1] for m in months)}
    either = not day.startswith("*") and not weekday.startswith("*")
    if not possible and not either:
        raise ValueError(f"day of month: {day!r} never comes in month {month!r}, so {cron!r} would never tick")
    common = {"second": 0, "minute": _text(minutes, 60), "hour": _text(hours, 24), "month": _text(months, 12)}
    on_days = {"day": _text(days, 31)}
    on_weekdays = {"day_of_week": _text({(n - 1) % 7 for n in weekdays}, 7)}  # APScheduler's week: Monday is 0
    choices = [on_days] * bool(possible) + [on_weekdays] if either else [on_days | on_weekdays]
    clocks = tuple(CronTrigger(**common, **choice, timezone=UTC) for choice in choices)
    return Cron(cron, timezone, zone, hour.startswith("*") or len(hours) == 24, clocks)


def due(
    cron: Cron, last_tick: datetime, now: datetime, missed: Missed, limit: int, grace: timedelta = GRACE
) -> list[datetime]:
    """The ticks in (last_tick, now] to be inserted now, oldest first.

    "all": each of them, `limit` at a time (call again with the last one returned).  "one": the newest, however many
    there were.  "skip": those on time, that is less than `grace` old; the others are gone.
    """
    match missed:
        case "all":
            return cron.ticks(last_tick, now, limit)
        case "one":
            newest = cron.newest(last_tick, now)
            return [] if newest is None else [newest]
        case "skip":
            return cron.ticks(max(last_tick, now - grace), now, limit)


def _split(cron: str) -> list[str]:
    texts = ALIASES.get(cron.strip().lower(), cron).split()
    if texts and texts[0].startswith("@"):
        raise ValueError(f"{cron!r} is no alias; known are {' '.join(ALIASES)}")
    if len(texts) != len(FIELDS):
        names = ", ".join(field.name for field in FIELDS)
        raise ValueError(f"{cron!r} has {len(texts)} fields, a cron line has {len(FIELDS)}: {names}")
    return texts


def _zone(timezone: str) -> ZoneInfo:
    zones = _zones()
    if timezone in zones.values():
        return ZoneInfo(timezone)
    near = difflib.get_close_matches(timezone.lower(), zones, 1)
    hint = f"; did you mean {zones[near[0]]!r}?" if near else '; write one like "Europe/Warsaw"'
    raise ValueError(f"timezone: there is no {timezone!r}{hint}")


@cache
def _zones() -> dict[str, str]:
    """Lower-case name → name of every zone on this machine."""
    return {name.lower(): name for name in sorted(available_timezones())}


def _text(values: Set[int], whole: int) -> str:
    """As APScheduler reads it, which steps through a list but not through `*`."""
    return "*" if len(values) == whole else ",".join(map(str, sorted(values)))
