"""What a cron line means, and what is said of one that means nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from daemon.cron import ALIASES, FIELDS, parse

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def ticks(line: str, days: int = 7, limit: int = 2000) -> list[datetime]:
    """Those of the first days of 2024, which begins with a Monday; midnight of the first counts."""
    before = MONDAY - timedelta(seconds=1)
    return parse(line, "UTC").ticks(before, before + timedelta(days=days), limit)


def weekdays(line: str) -> str:
    return " ".join(f"{tick:%a}" for tick in ticks(line))


@pytest.mark.req("JP-02")
@pytest.mark.parametrize(
    ("day", "meant"),
    [
        ("0", "Sun"), ("7", "Sun"), ("sun", "Sun"), ("SUN", "Sun"), ("1", "Mon"), ("mon", "Mon"), ("6", "Sat"),
        ("1-5", "Mon Tue Wed Thu Fri"), ("mon-fri", "Mon Tue Wed Thu Fri"), ("5-7", "Fri Sat Sun"),
        ("fri-sun", "Fri Sat Sun"), ("sun-tue", "Mon Tue Sun"), ("0-1", "Mon Sun"), ("0,7", "Sun"),
        ("wed,0", "Wed Sun"), ("*/2", "Tue Thu Sat Sun"), ("1-5/2", "Mon Wed Fri"),
        ("0-7", "Mon Tue Wed Thu Fri Sat Sun"), ("*", "Mon Tue Wed Thu Fri Sat Sun"),
    ],
)  # fmt: skip
def test_the_day_of_week_is_crons_and_sunday_is_0_and_7(day: str, meant: str) -> None:
    assert weekdays(f"0 12 * * {day}") == meant


@pytest.mark.parametrize(
    ("field", "text", "values"),
    [
        (0, "*/20", {0, 20, 40}), (0, "5", {5}), (0, "05", {5}), (0, "1,2,2", {1, 2}), (0, "10-13", {10, 11, 12, 13}),
        (0, "50-59/4", {50, 54, 58}), (0, "0-9/3,30", {0, 3, 6, 9, 30}), (1, "8-18/5", {8, 13, 18}), (1, "7-7", {7}),
        (2, "*/10", {1, 11, 21, 31}), (3, "jan,DEC", {1, 12}), (3, "mar-may", {3, 4, 5}), (3, "jan-dec/6", {1, 7}),
        (3, "2-apr", {2, 3, 4}),
    ],
)  # fmt: skip
def test_a_field_is_a_list_of_values_ranges_and_steps(field: int, text: str, values: set[int]) -> None:
    assert FIELDS[field].parse(text) == values


@pytest.mark.parametrize(
    ("alias", "first", "count"),
    [
        ("@hourly", MONDAY, 24 * 366),
        ("@daily", MONDAY, 366),
        ("@midnight", MONDAY, 366),
        ("@weekly", datetime(2024, 1, 7, tzinfo=UTC), 52),
        ("@monthly", MONDAY, 12),
        ("@yearly", MONDAY, 1),
        ("@Annually", MONDAY, 1),
    ],
)
def test_an_alias_is_the_line_it_stands_for(alias: str, first: datetime, count: int) -> None:
    found = ticks(alias, days=366, limit=10_000)
    assert (found[0], len(found)) == (first, count)
    assert alias.lower() in ALIASES


def test_of_two_restricted_day_fields_either_may_fit() -> None:
    assert [tick.day for tick in ticks("0 0 13 * fri", days=31)] == [5, 12, 13, 19, 26]


def test_a_day_field_that_begins_with_a_star_only_narrows_the_other() -> None:
    assert [tick.day for tick in ticks("0 0 */2 * mon", days=31)] == [1, 15, 29]
    assert [tick.day for tick in ticks("0 0 10-20 * *", days=31)] == list(range(10, 21))


def test_an_impossible_day_of_month_leaves_the_weekdays() -> None:
    found = ticks("0 0 30 2 mon", days=366)
    assert [f"{tick:%d.%m.}" for tick in found] == ["05.02.", "12.02.", "19.02.", "26.02."]
    assert len(parse("0 0 30 2 mon", "UTC").clocks) == 1  # or each tick would look for 30 February until the year 9999


def test_29_february_comes_in_leap_years_alone() -> None:
    cron = parse("0 12 29 2 *", "Europe/Warsaw")
    found = cron.ticks(datetime(2089, 1, 1, tzinfo=UTC), datetime(2110, 1, 1, tzinfo=UTC), 10)
    assert [tick.year for tick in found] == [2092, 2096, 2104, 2108]


def test_31_skips_the_shorter_months() -> None:
    assert [tick.month for tick in ticks("0 0 31 * *", days=366)] == [1, 3, 5, 7, 8, 10, 12]


def test_a_tick_is_later_than_the_instant_it_is_asked_after() -> None:
    cron = parse("*/5 * * * *", "UTC")
    assert cron.next_after(MONDAY) == MONDAY + timedelta(minutes=5)
    assert cron.next_after(MONDAY - timedelta(microseconds=1)) == MONDAY
    assert cron.next_after(MONDAY + timedelta(microseconds=1)) == MONDAY + timedelta(minutes=5)


def test_an_instant_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        parse("@daily", "UTC").next_after(datetime(2024, 1, 1))


def test_ticks_are_bounded_at_both_ends_and_in_number() -> None:
    cron = parse("0 * * * *", "UTC")
    hours = [MONDAY + timedelta(hours=n) for n in range(1, 5)]
    assert cron.ticks(MONDAY, hours[-1], 100) == hours
    assert cron.ticks(MONDAY, hours[-1], 2) == hours[:2]
    assert cron.ticks(MONDAY, MONDAY, 100) == []


def test_schedules_are_equal_when_line_and_zone_are() -> None:
    assert parse("@daily", "UTC") == parse("@daily", "UTC")
    assert parse("@daily", "UTC") != parse("@daily", "Europe/Warsaw")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("60 * * * *", "minute: '60' is not 0-59"),
        ("-1 * * * *", "minute: '-1' is not"),
        ("٣ * * * *", "minute: '٣' is not 0-59"),
        ("1,,2 * * * *", "minute: '' is empty between commas"),
        ("1-2-3 * * * *", "minute: '1-2-3' is not"),
        ("10-5 * * * *", "minute: '10-5' runs backwards"),
        ("*/0 * * * *", "minute: '*/0' has a step that is not 1-59"),
        ("*/90 * * * *", "minute: '*/90' has a step that is not 1-59"),
        ("*/x * * * *", "minute: '*/x' has a step that is not 1-59"),
        ("5/15 * * * *", "minute: '5/15' has a step but no range; write 5-59/15"),
        ("* 24 * * *", "hour: '24' is not 0-23"),
        ("* * 0 * *", "day of month: '0' is not 1-31"),
        ("* * L * *", "day of month: 'L' is not 1-31"),
        ("* * ? * *", "day of month: '?' is not"),
        ("* * 30 2 *", "day of month: '30' never comes in month '2'"),
        ("* * 31 apr,jun *", "day of month: '31' never comes in month 'apr,jun'"),
        ("* * * 13 *", "month: '13' is not 1-12, or jan feb"),
        ("* * * foo *", "month: 'foo' is not 1-12, or jan feb"),
        ("* * * * 8", "day of week: '8' is not 0-7, or sun mon"),
        ("* * * * monday", "day of week: 'monday' is not 0-7, or sun mon"),
        ("* * * * sat-mon", "day of week: 'sat-mon' runs backwards"),
        ("* * * * 1#2", "day of week: '1#2' is not"),
        ("* * * *", "has 4 fields, a cron line has 5: minute, hour, day of month, month, day of week"),
        ("0 * * * * *", "has 6 fields, a cron line has 5"),
        ("", "has 0 fields"),
        ("@reboot", "'@reboot' is no alias; known are @yearly"),
    ],
)
def test_a_line_that_means_nothing_names_the_field_and_the_fault(line: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:  # noqa: RUF043 - the complaint is plain text, not a pattern
        parse(line, "UTC")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("europe/warsaw", "did you mean 'Europe/Warsaw'?"),
        ("Warsaw", "did you mean 'Europe/Warsaw'?"),
        ("Europe/Warschau", "did you mean 'Europe/Warsaw'?"),
        ("America/New York", "did you mean 'America/New_York'?"),
        ("../../etc/passwd", "write one like"),
        ("", "write one like"),
    ],
)
def test_an_unknown_time_zone_gets_a_suggestion(zone: str, hint: str) -> None:
    with pytest.raises(ValueError, match="timezone: there is no") as caught:
        parse("@daily", zone)
    assert hint in str(caught.value)
