"""When a job is tried again, and what its outcomes hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model import Dead, Done, Exponential, Fixed, Ladder, Retry, Snooze, spread
from jobs.values import duration

DICE = st.floats(0, 1, exclude_max=True)


@pytest.mark.req("OR-07")
@given(st.floats(0, 1e6), st.floats(0, 1), DICE)
def test_jitter_moves_a_wait_no_further_than_it_says(delay_s: float, jitter: float, dice: float) -> None:
    assert delay_s * (1 - jitter) <= spread(delay_s, jitter, dice) * (1 + 1e-12)
    assert spread(delay_s, jitter, dice) <= delay_s * (1 + jitter) * (1 + 1e-12)


def test_jitter_reaches_both_ends() -> None:
    assert spread(100.0, 0.2, 0.0) == pytest.approx(80.0)
    assert spread(100.0, 0.2, 0.999999) == pytest.approx(120.0, rel=1e-5)


@pytest.mark.req("BJ-15")
def test_the_ladder_of_the_webhooks() -> None:
    ladder = Ladder("1m", "5m", "30m", "2h", jitter=0.0)
    assert ladder.max_attempts == 5
    assert [ladder.delay_s(attempt, 0.0) for attempt in range(1, 7)] == [60, 300, 1800, 7200, 7200, 7200]
    assert Ladder("1m", "5m", "30m", "2h").jitter > 0


def test_an_empty_ladder_allows_one_attempt() -> None:
    assert Ladder().max_attempts == 1
    assert Ladder().delay_s(1, 0.5) == 0.0


@pytest.mark.req("OR-07")
def test_an_exponential_wait_doubles_up_to_its_limit() -> None:
    policy = Exponential(base_s=1.0, max_s=10.0, jitter=0.0)
    assert [policy.delay_s(attempt, 0.5) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert policy.delay_s(10**6, 0.5) == 10.0


@pytest.mark.req("JP-01")
def test_a_fixed_wait_stays() -> None:
    policy = Fixed(every_s=7.0, jitter=0.0)
    assert {policy.delay_s(attempt, 0.5) for attempt in range(1, 50)} == {7.0}


def test_waits_are_written_as_people_write_them() -> None:
    assert Retry(after="1h30m").after_s == duration(5400)
    assert Retry(after=timedelta(minutes=2)).after_s == duration(120)
    assert Retry().after_s is None
    assert Snooze(after=0).after_s == duration(0)
    with pytest.raises(ValueError, match="not a duration"):
        Retry(after="soon")


def test_a_snooze_ends_at_a_moment_or_after_a_while_and_never_before_now() -> None:
    assert 3590 < Snooze(until=datetime.now(UTC) + timedelta(hours=1)).after_s <= 3600
    assert Snooze(until=datetime(2020, 1, 1, tzinfo=UTC)).after_s == duration(0)
    for wrong in ({}, {"after": 1, "until": datetime.now(UTC)}):
        with pytest.raises(ValueError, match="either"):
            Snooze(**wrong)  # type: ignore[arg-type]


def test_outcomes_can_be_raised_and_matched() -> None:
    match Done({"n": 1}), Retry("r", after=2), Dead("d"):
        case Done(result), Retry(reason, after_s), Dead(why):
            assert (result, reason, why) == ({"n": 1}, "r", "d")
            assert after_s == duration(2)
        case _:
            pytest.fail("no match")
    with pytest.raises(Dead, match="gone"):
        raise Dead("gone")
