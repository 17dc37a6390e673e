"""What checks come to, and who is told: the law by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.monitor.state import Health, Limits, Notice, Outcome, State, step

LETTERS: dict[str, Outcome] = {"o": "ok", "p": "poor", "f": "failed", "u": "unknown"}
SHORT = {"new": "n", "up": "U", "degraded": "D", "down": "X"}
outcomes = st.text("opfu", max_size=60)
limits = st.builds(
    Limits, failures=st.integers(1, 5), successes=st.integers(1, 5), notice=st.sampled_from(["degraded", "down"])
)


def lived(checks: str, limits: Limits) -> tuple[list[State], list[Notice | None]]:
    health, states, notices = Health(), [], []
    for letter in checks:
        taken = step(health, LETTERS[letter], limits)
        health = taken.health
        states.append(health.state)
        notices.append(taken.notice)
    return states, notices


@pytest.mark.req("JD-04")
@pytest.mark.parametrize(
    ("checks", "states"),
    [
        ("o", "U"),
        ("ff", "nn"),
        ("fff", "nnX"),
        ("offo", "UUUU"),
        ("offfo", "UUUXX"),
        ("offfoo", "UUUXXU"),
        ("offfofoo", "UUUXXXXU"),
        ("opppp", "UUUDD"),
        ("opppo", "UUUDD"),
        ("opppoo", "UUUDDU"),
        ("opppopoo", "UUUDDDDU"),
        ("ofpfpoo", "UUUDDDU"),
        ("opppfff", "UUUDDDX"),
        ("offfpp", "UUUXXD"),
        ("offfppoo", "UUUXXDDU"),
        ("ouuuu", "UUUUU"),
        ("oufufufu", "UUUUUUXX"),
        ("uuo", "nnU"),
    ],
)
def test_it_changes_after_so_many_in_a_row_and_what_is_not_known_counts_for_nothing(checks: str, states: str) -> None:
    assert "".join(SHORT[state] for state in lived(checks, Limits())[0]) == states


@pytest.mark.parametrize(
    ("checks", "notice", "told"),
    [
        ("offfffoo", "degraded", ["down", "up"]),
        ("opppfffoo", "degraded", ["degraded", "down", "up"]),
        ("offfpppfffoo", "degraded", ["down", "up"]),
        ("opppoopppoo", "degraded", ["degraded", "up", "degraded", "up"]),
        ("opppoo", "down", []),
        ("opppfffppoo", "down", ["down", "up"]),
        ("offoffo", "degraded", []),
    ],
)
def test_people_are_told_once_when_it_begins_when_it_is_worse_than_they_know_and_when_it_is_over(
    checks: str, notice: str, told: list[str]
) -> None:
    law = Limits(notice="down" if notice == "down" else "degraded")
    assert [word for word in lived(checks, law)[1] if word] == told


@given(outcomes, limits)
def test_nobody_is_told_twice_of_the_same(checks: str, limits: Limits) -> None:
    states, notices = lived(checks, limits)
    told = [word for word in notices if word]
    assert all(word != "up" for word in told[:1])
    assert all(before != after for before, after in pairwise(told))
    assert ("down", "degraded") not in pairwise(told)
    assert all(state == word for state, word in zip(states, notices, strict=True) if word)


@given(outcomes, limits)
def test_whoever_is_told_that_it_is_down_is_told_when_it_is_not(checks: str, limits: Limits) -> None:
    states, notices = lived(checks + "o" * limits.successes, limits)
    told = [word for word in notices if word]
    assert states[-1] == "up"
    assert not told or told[-1] == "up"


@given(outcomes, limits)
def test_down_is_what_failed_so_often_in_a_row_and_has_not_answered_so_often_since(checks: str, limits: Limits) -> None:
    """The same law, said over the whole past."""
    known = checks.replace("u", "")
    states, _ = lived(known, limits)
    for end, state in enumerate(states, 1):
        assert (state == "down") == _is_down(known[:end], limits)


def _is_down(past: Sequence[str], limits: Limits) -> bool:
    down = False
    for failed, run in groupby(past, lambda letter: letter == "f"):
        length = len(list(run))
        if failed:
            down = down or length >= limits.failures
        elif length >= limits.successes:
            down = False
    return down


@given(outcomes, limits)
def test_it_is_up_only_if_the_last_checks_do_not_say_otherwise(checks: str, limits: Limits) -> None:
    known = checks.replace("u", "")
    states, _ = lived(known, limits)
    for end, state in enumerate(states, 1):
        if state == "up":
            assert "o" in known[max(0, end - limits.failures) : end]


@given(outcomes, limits)
def test_a_check_is_made_again_soon_only_while_the_last_one_points_away_from_the_state(
    checks: str, limits: Limits
) -> None:
    health = Health()
    for letter in checks:
        taken = step(health, LETTERS[letter], limits)
        health = taken.health
        if letter == "u" or (letter == "o" and health.state == "up") or (letter == "f" and health.state == "down"):
            assert not taken.again
    steady = {"up": "o", "down": "f", "degraded": "p"}
    if letters := steady.get(health.state):
        for _ in range(2 * (limits.failures + limits.successes)):
            taken = step(health, LETTERS[letters], limits)
            health = taken.health
        assert not taken.again


def test_counts_end_somewhere() -> None:
    health = Health()
    for _ in range(10_010):
        health = step(health, "failed", Limits()).health
    assert (health.failures, health.troubles) == (10_000, 10_000)
