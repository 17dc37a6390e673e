"""Which ticks are inserted when a scheduler wakes late."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.cron import Missed, due, parse, stagger_s
from tests.examples import examples

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVERY_5 = parse("*/5 * * * *", "Europe/Warsaw")
POLICIES: tuple[Missed, ...] = ("skip", "one", "all")


def minutes(ticks: list[datetime]) -> list[int]:
    return [(tick - NOON) // MINUTE for tick in ticks]


@pytest.mark.req("JP-02")
@pytest.mark.parametrize(
    ("missed", "expected"),
    [("skip", []), ("one", [20]), ("all", [5, 10, 15, 20])],
)
def test_after_downtime_the_policy_says_which_ticks_are_made_up(missed: Missed, expected: list[int]) -> None:
    assert minutes(due(EVERY_5, NOON, NOON + 22 * MINUTE, missed, 100)) == expected


@pytest.mark.parametrize("missed", POLICIES)
@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=2.2), timedelta(seconds=59)])
def test_a_tick_found_a_little_late_is_not_missed(missed: Missed, late: timedelta) -> None:
    assert minutes(due(EVERY_5, NOON, NOON + 5 * MINUTE + late, missed, 100)) == [5]


def test_skip_drops_a_tick_as_old_as_the_grace() -> None:
    now = NOON + 6 * MINUTE
    assert due(EVERY_5, NOON, now, "skip", 100) == []
    assert minutes(due(EVERY_5, NOON, now, "skip", 100, grace=2 * MINUTE)) == [5]


@pytest.mark.parametrize("missed", POLICIES)
def test_a_tick_is_never_due_twice_nor_early(missed: Missed) -> None:
    tick = NOON + 5 * MINUTE
    assert due(EVERY_5, tick, tick, missed, 100) == []
    assert due(EVERY_5, tick, tick + 4 * MINUTE, missed, 100) == []
    assert due(EVERY_5, tick, tick - MINUTE, missed, 100) == []


def test_all_are_made_up_in_bounded_steps_oldest_first() -> None:
    now, last, got = NOON + 60 * MINUTE, NOON, []
    while ticks := due(EVERY_5, last, now, "all", 5):
        assert len(ticks) <= 5
        got += ticks
        last = ticks[-1]
    assert minutes(got) == list(range(5, 61, 5))


def test_the_newest_of_years_of_minutes_is_found_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    every_minute, steps = parse("* * * * *", "Europe/Warsaw"), 0
    count = type(every_minute).next_after

    def counted(cron: object, instant: datetime) -> datetime:
        nonlocal steps
        steps += 1
        return count(every_minute, instant)

    monkeypatch.setattr(type(every_minute), "next_after", counted)
    assert due(every_minute, datetime(2010, 1, 1, tzinfo=UTC), NOON, "one", 1) == [NOON]
    assert steps < 50


@settings(max_examples=examples(60))
@given(
    line=st.sampled_from(["*/5 * * * *", "30 2 * * *", "0 0 1 * *", "0 12 * * fri", "*/10 2 * * *", "7 */3 * * 1-5"]),
    start=st.integers(0, 400 * 24 * 60),
    length=st.integers(0, 4 * 24 * 60),
)
def test_the_newest_is_the_last_of_all(line: str, start: int, length: int) -> None:
    cron = parse(line, "America/New_York")
    after = NOON + start * MINUTE
    every = due(cron, after, after + length * MINUTE, "all", 100_000)
    assert due(cron, after, after + length * MINUTE, "one", 1) == every[-1:]


@pytest.mark.req("BJ-28")
def test_schedules_are_spread_evenly_and_each_in_the_same_way_for_ever() -> None:
    assert stagger_s("nightly", 3600) == pytest.approx(224.557, abs=0.001)
    assert stagger_s("nightly", 0) == 0
    tenths = Counter(int(stagger_s(f"schedule{n}", 10)) for n in range(1000))
    assert tenths.keys() == set(range(10))
    assert max(tenths.values()) < 150
