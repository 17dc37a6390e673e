"""How often daemons ask what there is to do: two no more often than one, and to the moment where time tells."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from daemon.chores import EVERY_MAX_S, EVERY_S, SOONEST_S, SPREAD_S, pause_s
from daemon.upkeep_store import Found

NOTHING = Found(
    lost=[],
    over=False,
    paused={},
    unwanted=False,
    late=False,
    ordered=False,
    children=False,
    domains=False,
    alive=1,
    soon_s=None,
)
DICE = st.floats(0, 1)


@given(dice=DICE)
def test_one_daemon_asks_every_two_seconds_or_so(dice: float) -> None:
    assert 0.9 * EVERY_S <= pause_s(NOTHING, dice) <= 1.1 * EVERY_S


@given(alive=st.integers(0, 2), dice=DICE)
def test_two_together_ask_no_more_often_than_one(alive: int, dice: float) -> None:
    assert max(alive, 1) / pause_s(replace(NOTHING, alive=alive), dice) <= 1 / (0.9 * EVERY_S)


@given(alive=st.integers(3, 1000), dice=DICE)
def test_each_of_many_asks_once_in_five_seconds_or_so(alive: int, dice: float) -> None:
    assert 0.9 * EVERY_MAX_S <= pause_s(replace(NOTHING, alive=alive), dice) <= 1.1 * EVERY_MAX_S


@given(alive=st.integers(1, 1000), soon_s=st.floats(0, 1e9) | st.just(float("inf")), dice=DICE)
def test_the_end_of_a_lease_or_pause_is_met_within_a_moment(alive: int, soon_s: float, dice: float) -> None:
    """Or somebody asks before it, and sees it coming."""
    at = pause_s(replace(NOTHING, alive=alive, soon_s=soon_s), dice)
    assert SOONEST_S <= at <= max(SOONEST_S, soon_s + SPREAD_S)
    assert at >= soon_s or at >= 0.9 * EVERY_S


@given(alive=st.integers(1, 1000), lease_s=st.floats(3, 3600), dice=DICE)
def test_daemons_in_good_health_do_not_make_others_ask(alive: int, lease_s: float, dice: float) -> None:
    """They prolong their leases at two thirds."""
    found = replace(NOTHING, alive=alive, soon_s=lease_s * 2 / 3)
    assert pause_s(found, dice) >= min(pause_s(replace(found, soon_s=None), dice), lease_s * 2 / 3)
