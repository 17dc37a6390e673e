"""What an outcome means for the row: a table, and bounds that hold whatever a handler says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.settle import LONGEST_S, hand_back, refuse, settle, unwanted
from jobs.model import Cancelled, Dead, Done, Exponential, Failure, Fixed, Job, Ladder, Outcome, Retry, Snooze

NOW = 1_800_000_000.0
LADDER = Ladder("1m", "5m", "30m", "2h", jitter=0.0)


def job(attempt: int = 1, **fields: Any) -> Job:
    return Job(7, 3, "noop", "default", 2, attempt, "{}", NOW - 1, NOW, **fields)


def settled(outcome: Outcome, attempt: int = 1, *, dice: float = 0.5, most: int = 5, **fields: Any) -> tuple[Any, ...]:
    t = settle(job(attempt, **fields), outcome, LADDER, most, dice)
    return t.state, t.outcome, t.code, t.delay_s, t.charged, t.failed


@pytest.mark.req("OR-07")
@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Done({"n": 1}), ("done", "done", None, None, True, False)),
        (Retry("r"), ("ready", "retry", "retry", 60.0, True, True)),
        (Retry("r", code="http_503", after="10s"), ("ready", "retry", "http_503", 60.0, True, True)),
        (Snooze("s", after="10s"), ("ready", "snooze", "snoozed", 10.0, False, False)),
        (Dead("d", code="gone"), ("dead", "dead", "gone", None, True, True)),
        (Cancelled("c"), ("cancelled", "cancelled", "cancelled", None, True, False)),
    ],
)
def test_each_outcome_has_one_meaning(outcome: Outcome, expected: tuple[Any, ...]) -> None:
    assert settled(outcome) == expected


@pytest.mark.req("BJ-15")
@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 60), (2, 300), (3, 1800), (4, 7200)])
def test_a_ladder_gives_its_waits_one_after_another(attempt: int, delay_s: float) -> None:
    assert settled(Retry("r"), attempt)[3] == delay_s


def test_after_the_last_attempt_a_row_is_dead_for_the_reason_of_the_last() -> None:
    t = settle(job(5), Retry("refused", code="http_503", detail={"status": 503}), LADDER, 5, 0.5)
    assert (t.state, t.reason, t.code, t.detail, t.failed) == ("dead", "refused", "http_503", {"status": 503}, True)


def test_a_wait_that_the_other_side_asks_for_is_never_cut_short() -> None:
    for dice in (0.0, 0.5, 0.999):
        delay_s = settled(Retry("r", after="1h"), dice=dice)[3]
        assert 3600 <= delay_s <= 3600 * 1.05


def test_a_retry_that_would_come_too_late_is_not_made() -> None:
    assert settled(Retry("r"), expires_at=NOW + 60)[:3] == ("dead", "dead", "expired")
    assert settled(Retry("r"), expires_at=NOW + 61)[:2] == ("ready", "retry")


def test_a_dead_letter_may_carry_a_result_and_always_has_a_reason() -> None:
    t = settle(job(), Dead("", code="gone", result={"seen": 3}), LADDER, 5, 0.5)
    assert (t.reason, t.result) == ("gone", {"seen": 3})


@pytest.mark.parametrize("outcome", [Outcome(), Failure("base class"), type("Mine", (Outcome,), {})()])
def test_what_is_no_outcome_costs_an_attempt_and_so_comes_to_an_end(outcome: Outcome) -> None:
    assert settled(outcome)[:3] == ("ready", "retry", "no_outcome")
    assert settled(outcome, 5)[:3] == ("dead", "dead", "no_outcome")


@pytest.mark.parametrize(
    "outcome",
    [
        Snooze(after=float("inf")), Snooze(after=float("nan")), Snooze(after=-1e300),
        Snooze(until=datetime.max.replace(tzinfo=UTC)),
        Snooze(until=datetime.min.replace(tzinfo=UTC)), Retry(after=1e300), Retry(after=float("nan")), Retry(after=-5),
    ],
)  # fmt: skip
def test_no_wait_leaves_the_times_that_the_table_takes(outcome: Outcome) -> None:
    delay_s = settled(outcome)[3]
    assert 0 <= delay_s <= LONGEST_S
    assert datetime.fromtimestamp(NOW + delay_s, UTC).year < 2200


@given(
    policy=st.one_of(
        st.builds(lambda d: Ladder(*d), st.lists(st.floats(0, 1e7), max_size=6)),
        st.builds(Exponential, base_s=st.floats(0, 1e6), max_s=st.floats(0, 1e7)),
        st.builds(Fixed, every_s=st.floats(0, 1e7)),
    ),
    attempt=st.integers(1, 1000),
    most=st.integers(1, 1000),
    dice=st.floats(0, 1, exclude_max=True),
    after=st.none() | st.floats(),
)
def test_a_retry_waits_within_bounds_or_is_dead(
    policy: Any, attempt: int, most: int, dice: float, after: float | None
) -> None:
    t = settle(job(attempt), Retry("r", after=after), policy, most, dice)
    assert (t.state == "dead") == (attempt >= most)
    if t.state == "ready":
        assert t.delay_s is not None
        assert 0 <= t.delay_s <= LONGEST_S
        assert t.charged
        assert t.failed


def test_a_row_that_is_too_late_or_has_no_attempt_left_does_not_run() -> None:
    assert refuse(job(1), 1) is None
    assert refuse(job(1, expires_at=NOW + 0.001), 1) is None
    late, spent = refuse(job(1, expires_at=NOW), 5), refuse(job(6), 5)
    assert isinstance(late, Dead)
    assert late.code == "expired"
    assert isinstance(spent, Dead)
    assert spent.code == "crashed"


def test_a_row_handed_back_is_as_it_was() -> None:
    t = hand_back(job(2), gate="limit:x:")
    assert (t.state, t.charged, t.failed, t.delay_s, t.gate) == ("ready", False, False, None, "limit:x:")


@pytest.mark.parametrize("outcome", [Retry("r", after="1h"), Snooze("s", after="1h")])
def test_a_row_that_nobody_wants_ends_instead_of_going_back(outcome: Outcome) -> None:
    back = settle(job(2), outcome, LADDER, 5, 0.5)
    t = unwanted(back, "no need", "ann")
    assert (t.state, t.outcome, t.reason, t.code, t.failed, t.job) == (
        *("cancelled", "cancelled", "no need", "cancelled", False, back.job),
    )
    assert t.detail == {"actor": "ann", "instead_of": back.outcome}
    assert unwanted(hand_back(job()), None, None).reason == "cancelled"
