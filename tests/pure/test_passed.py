"""Claims begin behind the rows of shut destinations, and look among them now and then."""

from __future__ import annotations

from math import inf

from daemon.low_water import FROM_THE_START, Start
from daemon.passed import BACK_S, Passed


def passed(*classes: int) -> Passed:
    """At second 0, in each of these classes all rows up to second 50 and id 7."""
    found = Passed()
    for priority in classes:
        found.to(priority, (50.0, 7), 0.0)
    return found


def test_at_first_a_claim_begins_where_it_would() -> None:
    assert not Passed().due(5.0)
    assert Passed().over(Start()) == Start()


def test_a_claim_begins_behind_the_very_row() -> None:
    known = passed(2)
    assert known.due(0.1)
    assert known.over(Start((-inf, 40.0, -inf, 30.0))) == Start((-inf, 50.0, -inf, 30.0), 2, 7)


def test_but_not_before_where_it_would_have() -> None:
    assert passed(2).over(Start((-inf, 50.0, -inf, -inf), 2, 9)) == Start((-inf, 50.0, -inf, -inf), 2, 9)
    assert passed(2).over(Start((-inf, 60.0, -inf, -inf), 1, 3)) == Start((-inf, 60.0, -inf, -inf), 1, 3)


def test_of_several_classes_the_best_one_begins_at_the_very_row() -> None:
    assert passed(1, 3).over(Start()) == Start((50.0, -inf, 50.0, -inf), 1, 7)


def test_now_and_then_a_claim_begins_before_them() -> None:
    known = passed(2)
    assert [known.due(at) for at in (0.1, BACK_S, BACK_S + 0.1)] == [True, False, True]


def test_so_does_the_next_one_once_a_row_among_them_may_run() -> None:
    known = passed(2)
    known.lowered(2, 60.0)
    known.lowered(1, 10.0)
    assert known.due(0.1)
    known.lowered(2, 50.0)
    assert not known.due(0.2)
    assert known.due(0.3)


def test_when_they_are_gone_it_begins_where_it_would() -> None:
    known = passed(2)
    known.end(2)
    known.end(3)
    assert not known.due(0.1)
    assert known.over(Start()) == Start(FROM_THE_START)
