"""Where a claim begins: so early that no row is missed for long, and so late that little is walked over twice."""

from __future__ import annotations

from math import inf

from daemon.low_water import MARGIN_S, NEAR_S, WIDE_IN_BACKLOG_S, WIDE_S, LowWater, Start
from jobs.model import Job


def job(row_id: int, run_at: float, priority: int = 2) -> Job:
    return Job(row_id, 1, "noop", "q", priority, 1, "{}", run_at)


def marks(*jobs: Job) -> LowWater:
    """After the first claim, which began at the beginning, gave these."""
    known = LowWater()
    assert known.start(0.0, full=False) == Start()
    known.claimed(jobs)
    return known


def test_at_first_everything_is_asked_for() -> None:
    assert LowWater().start(5.0, full=True) == Start((-inf, -inf, -inf, -inf))
    assert list(LowWater()) == []


def test_while_there_are_slots_for_all_short_transactions_are_waited_for_and_longer_ones_twice_a_second() -> None:
    known = marks(job(1, 100.0), job(2, 200.0))
    assert known.start(0.1, full=False) == Start((-inf, 200.0 - NEAR_S, -inf, -inf))
    assert known.narrow
    assert known.wide_at == WIDE_S
    assert known.start(WIDE_S, full=False) == Start((-inf, 200.0 - MARGIN_S, -inf, -inf))
    assert not known.narrow


def test_in_a_backlog_the_next_claim_goes_on_at_the_very_row() -> None:
    known = marks(job(7, 200.0), job(8, 200.0))
    assert known.start(0.1, full=True) == Start((-inf, 200.0, -inf, -inf), 2, 8)
    known.claimed([job(9, 200.0), job(11, 200.0)])
    assert known.start(0.2, full=True) == Start((-inf, 200.0, -inf, -inf), 2, 11)
    known.start(WIDE_S, full=True)
    assert known.wide_at == WIDE_S + WIDE_IN_BACKLOG_S


def test_it_is_the_class_with_most_rows_that_goes_on_at_the_very_row() -> None:
    known = marks(job(1, 50.0, 1), job(7, 200.0), job(8, 200.0), job(3, 90.0, 4))
    start = known.start(0.1, full=True)
    assert start == Start((50.0 - NEAR_S, 200.0, -inf, 90.0 - NEAR_S), 2, 8)


def test_an_older_row_is_asked_for_again_also_one_of_the_same_moment() -> None:
    known = marks(job(7, 200.0))
    known.lower(2, 200.0)
    assert known.start(0.1, full=True) == Start((-inf, 200.0, -inf, -inf), 2, 0)
    known.lower(2, 60.0)
    known.lower(2, 70.0)
    assert known.start(0.1, full=True) == Start((-inf, 60.0, -inf, -inf), 2, 0)
    assert list(known) == [(2, 60.0 - MARGIN_S)]


def test_a_claim_that_gave_older_rows_puts_the_mark_no_lower() -> None:
    known = marks(job(7, 200.0))
    known.claimed([job(3, 150.0)])
    known.claimed([])
    assert list(known) == [(2, 200.0 - MARGIN_S)]
