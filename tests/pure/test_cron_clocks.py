"""Ticks where clocks are changed: against a plain reading of the zone, minute by minute."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.cron import FIELDS, parse
from tests.examples import examples

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

DAILY = [  # a zone, and a time of day that its changes leave out or repeat
    ("Europe/Warsaw", "02:30"),
    ("Europe/London", "01:30"),
    ("Europe/Dublin", "01:30"),  # its summer time is the standard one
    ("America/New_York", "02:00"),
    ("America/Sao_Paulo", "00:30"),  # no summer time since 2019
    ("America/Santiago", "00:00"),  # jumps from midnight
    ("America/Nuuk", "23:30"),  # jumps to midnight since 2024
    ("America/Havana", "00:15"),
    ("Australia/Lord_Howe", "02:15"),  # half an hour
    ("Africa/Casablanca", "02:59"),  # changes around Ramadan, too
    ("Asia/Beirut", "00:30"),
    ("Asia/Kathmandu", "02:30"),  # 5:45, no changes
]


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def wall(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def first_reading(zone: ZoneInfo, reading: datetime) -> datetime:
    """The first minute at which the zone's clocks show `reading` or more: cron's rule for a fixed time, said once."""
    guess = reading.replace(tzinfo=UTC) - (zone.utcoffset(reading) or timedelta(0))
    if all(zone.utcoffset(reading + n * DAY) == zone.utcoffset(reading) for n in (-1, 1)):
        return guess
    instant = guess - 3 * HOUR  # no clock is changed by as much
    while wall(instant, zone) < reading:
        instant += MINUTE
    return instant


def stretches(zone: ZoneInfo) -> list[list[date]]:
    """The days of twenty years; unless there is time for all, those of the first year and of each fortnight in which
    the clocks are changed."""
    days = [date(2020, 1, 1) + n * DAY for n in range((date(2041, 1, 1) - date(2020, 1, 1)).days)]
    if os.environ.get("JOBSD_LONG"):
        return [days]
    fortnights = [days[n : n + 15] for n in range(366, len(days), 14)]  # each ends with the first day of the next
    ends = [[zone.utcoffset(datetime.combine(day, time())) for day in (some[0], some[-1])] for some in fortnights]
    return [days[:366], *(some for some, (first, last) in zip(fortnights, ends, strict=True) if first != last)]


@pytest.mark.req("JP-02")
@pytest.mark.parametrize(("name", "at"), DAILY)
def test_a_daily_schedule_ticks_once_for_each_local_day_of_twenty_years(name: str, at: str) -> None:
    zone, clock = ZoneInfo(name), time.fromisoformat(at)
    cron = parse(f"{clock.minute} {clock.hour} * * *", name)
    for days in stretches(zone):
        expected = [first_reading(zone, datetime.combine(day, clock)) for day in days]
        assert cron.ticks(expected[0] - MINUTE, expected[-1], len(days) + 99) == expected
        assert len(set(expected)) == len(days)


@pytest.mark.parametrize(
    ("line", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Warsaw", utc(2026, 10, 24, 12), [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]),
        ("30 2 * * *", "Europe/Warsaw", utc(2026, 10, 25, 0, 30), [utc(2026, 10, 26, 1, 30)]),
        ("30 2 * * *", "Europe/Warsaw", utc(2026, 10, 25, 1, 10), [utc(2026, 10, 26, 1, 30)]),
        ("30 2 * * *", "Europe/Warsaw", utc(2026, 3, 28, 12), [utc(2026, 3, 29, 1), utc(2026, 3, 30, 0, 30)]),
        ("*/20 2 * * *", "Europe/Warsaw", utc(2026, 3, 29), [utc(2026, 3, 29, 1), utc(2026, 3, 30, 0)]),
        ("0 2,3 * * *", "Europe/Warsaw", utc(2026, 3, 29), [utc(2026, 3, 29, 1), utc(2026, 3, 30, 0)]),
        ("0 * * * *", "Europe/Warsaw", utc(2026, 10, 24, 23), [utc(2026, 10, 25, h) for h in (0, 1, 2)]),
        ("0 */2 * * *", "Europe/Warsaw", utc(2026, 10, 24, 22), [utc(2026, 10, 25, h) for h in (0, 1, 3)]),
        ("0 0-23 * * *", "Europe/Warsaw", utc(2026, 10, 24, 23), [utc(2026, 10, 25, h) for h in (0, 1, 2)]),
        ("0 * * * *", "Europe/Warsaw", utc(2026, 3, 28, 23), [utc(2026, 3, 29, h) for h in (0, 1, 2)]),
        ("0 */2 * * *", "Europe/Warsaw", utc(2026, 3, 28, 22), [utc(2026, 3, 28, 23), utc(2026, 3, 29, 2)]),
        ("15 2 * * *", "Australia/Lord_Howe", utc(2026, 10, 3), [utc(2026, 10, 3, 15, 30), utc(2026, 10, 4, 15, 15)]),
        ("45 1 * * *", "Australia/Lord_Howe", utc(2026, 4, 4), [utc(2026, 4, 4, 14, 45), utc(2026, 4, 5, 15, 15)]),
        (
            "*/15 * * * *", "Australia/Lord_Howe", utc(2026, 4, 4, 14, 15),
            [utc(2026, 4, 4, 14, 30) + n * 15 * MINUTE for n in range(6)],
        ),
        ("0 0 * * *", "Pacific/Apia", utc(2011, 12, 29), [utc(2011, 12, 29, 10), utc(2011, 12, 30, 10)]),
        ("30 2 * * *", "Pacific/Apia", utc(2011, 12, 29), [utc(2011, 12, 29, 12, 30), utc(2011, 12, 30, 12, 30)]),
        ("0 12 30 12 *", "Pacific/Apia", utc(2011, 6, 1), [utc(2012, 12, 29, 22)]),
        ("0 */12 * * *", "Pacific/Apia", utc(2011, 12, 29, 20), [utc(2011, 12, 29, 22), utc(2011, 12, 30, 10)]),
        ("30 23 * * *", "America/Nuuk", utc(2024, 3, 30, 12), [utc(2024, 3, 31, 1), utc(2024, 4, 1, 0, 30)]),
        ("0 * 1 1 *", "Europe/Warsaw", utc(2026, 1, 1, 22, 30), [utc(2026, 12, 31, 23)]),
    ],
)  # fmt: skip
def test_cases_where_the_hour_is_left_out_or_comes_twice(
    line: str, zone: str, after: datetime, expected: list[datetime]
) -> None:
    assert parse(line, zone).ticks(after, utc(2100, 1, 1), len(expected)) == expected


CHANGES = [
    ("Europe/Warsaw", utc(2026, 3, 29, 1)),
    ("Europe/Warsaw", utc(2026, 10, 25, 1)),
    ("Australia/Lord_Howe", utc(2026, 4, 4, 15)),
    ("Australia/Lord_Howe", utc(2026, 10, 3, 15, 30)),
    ("America/Havana", utc(2026, 3, 8, 5)),
    ("America/Havana", utc(2026, 11, 1, 5)),
    ("America/Nuuk", utc(2024, 3, 31, 1)),
    ("Pacific/Apia", utc(2011, 12, 30, 10)),
    ("Pacific/Kwajalein", utc(1993, 8, 21, 12)),
    ("Asia/Kathmandu", utc(2026, 1, 1)),
]
minutes = st.sampled_from(["*", "*/7", "0", "30", "0,15,45", "10-20", "59"])
hours = st.sampled_from(["*", "*/2", "*/5", "0", "1,2", "2", "3", "22-23", "0-3", "12"])
weekdays = st.sampled_from(["*", "sat", "0,3,5", "1-5"])


def fits(line: str, reading: datetime) -> bool:
    minute, hour, weekday = _read(line)
    return reading.minute in minute and reading.hour in hour and reading.isoweekday() % 7 in weekday


@cache
def _read(line: str) -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    minute, hour, _, _, weekday = (field.parse(text) for field, text in zip(FIELDS, line.split(), strict=True))
    return minute, hour, frozenset(n % 7 for n in weekday)


@cache
def shown(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Every minute of (start, end] and what the zone's clocks show then."""
    return [(i, wall(i, zone)) for i in (start + n * MINUTE for n in range(1, (end - start) // MINUTE + 1))]


@settings(max_examples=examples(45))
@given(minute=minutes, hour=st.sampled_from(["*", "*/2", "*/5"]), weekday=weekdays, change=st.sampled_from(CHANGES))
def test_a_line_of_every_hour_ticks_whenever_the_clock_fits(
    minute: str, hour: str, weekday: str, change: tuple[str, datetime]
) -> None:
    line, zone = f"{minute} {hour} * * {weekday}", ZoneInfo(change[0])
    start, end = change[1] - DAY, change[1] + DAY
    expected = [instant for instant, reading in shown(zone, start, end) if fits(line, reading)]
    assert parse(line, change[0]).ticks(start, end, 9999) == expected


@settings(max_examples=examples(45))
@given(minute=minutes, hour=hours.filter(lambda h: h[0] != "*"), weekday=weekdays, change=st.sampled_from(CHANGES))
def test_a_line_of_fixed_hours_ticks_when_the_clock_first_reaches_them(
    minute: str, hour: str, weekday: str, change: tuple[str, datetime]
) -> None:
    line, zone = f"{minute} {hour} * * {weekday}", ZoneInfo(change[0])
    start, end = change[1] - DAY, change[1] + DAY
    minutes_shown = shown(zone, start, end)
    days = {reading.date() for _, reading in minutes_shown}
    expected, highest = [], wall(start, zone)
    for instant, reading in minutes_shown:
        passed = [highest + n * MINUTE for n in range(1, (reading - highest) // MINUTE + 1)]
        if any(fits(line, step) for step in passed if step.date() in days):
            expected.append(instant)
        highest = max(highest, reading)
    assert parse(line, change[0]).ticks(start, end, 9999) == expected
