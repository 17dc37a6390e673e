"""The claimer's map: what it asks for, when it comes back, and what it leaves alone."""

from __future__ import annotations

import pytest

from daemon.sources import MOST, Place, Sources
from daemon.store import Source

OPEN: Place = ("q", "")
TOKENS: Place = ("q", "limit:rate:")
PLACES: Place = ("q", "limit:slots:")


def sources(*queues: str, kinds: tuple[str, ...] = ("noop",)) -> Sources:
    return Sources(queues or ("q",), (), kinds)


def wanted(known: Sources, now: float, free: int = 10, most: int = 1000) -> dict[Place, int]:
    return known.wanted(now, lambda queue: free, most)


def empty(known: Sources, *places: Place) -> None:
    """A claim found nothing in these."""
    known.claimed(dict.fromkeys(places, 1), {})


@pytest.mark.req("OR-05")
def test_a_queue_with_a_name_is_asked_before_anything_is_known_of_it() -> None:
    assert wanted(sources("a", "b"), 0.0) == {("a", ""): 10, ("b", ""): 10}
    assert wanted(sources("org:*:mail"), 0.0) == {}


@pytest.mark.req("OR-05")
def test_a_look_finds_the_queues_of_a_pattern_and_no_others() -> None:
    known = sources("org:*:mail")
    known.found([Source("org:7:mail", "", -1.0), Source("org:7:sync", "", -1.0)], 0.0)
    assert wanted(known, 0.0) == {("org:7:mail", ""): 10}


def test_an_empty_queue_is_asked_again_after_a_hint_and_not_before() -> None:
    known = sources()
    empty(known, OPEN)
    assert wanted(known, 100.0) == {}
    known.hinted()
    assert wanted(known, 100.0) == {OPEN: 10}


def test_a_queue_that_gave_all_it_was_asked_for_is_asked_again_at_once() -> None:
    known = sources()
    known.claimed({OPEN: 10}, {OPEN: 10})
    assert OPEN in wanted(known, 0.0)
    known.claimed({OPEN: 10}, {OPEN: 9})
    assert wanted(known, 0.0) == {}


def test_a_row_of_the_future_is_asked_for_when_it_is_due() -> None:
    known = sources()
    empty(known, OPEN)
    known.found([Source("q", "", 5.0)], 100.0)
    assert known.next_at(100.0) == 105.0
    assert wanted(known, 104.9) == {}
    assert wanted(known, 105.0) == {OPEN: 10}


def test_a_row_that_went_back_is_remembered_by_the_time_it_is_due() -> None:
    known = sources()
    empty(known, OPEN)
    known.returned("q", "", 7.0)
    known.returned("q", "", 9.0)
    assert known.next_at(0.0) == 7.0
    known.returned("elsewhere", "", 1.0)  # not ours
    assert known.next_at(0.0) == 7.0


def test_no_more_is_asked_than_there_are_slots_and_the_gates_rows_go_first() -> None:
    known = sources()
    for place in (TOKENS, PLACES):
        known.opened(*place)
    assert wanted(known, 0.0, free=0) == {}
    asked = wanted(known, 0.0, free=3)
    assert sum(asked.values()) <= 3
    assert OPEN not in asked
    assert sum(wanted(known, 0.0, free=10, most=2).values()) == 2


def test_a_limits_gate_is_asked_for_no_more_than_is_in_hand() -> None:
    """Rows beyond that would be claimed only to be put back: with one place and 100 slots, 99 for each that runs."""
    known = sources()
    empty(known, OPEN)
    known.opened(*TOKENS)
    known.opened(*PLACES)
    known.passing = {TOKENS[1]: 3, PLACES[1]: 0}.__getitem__
    assert wanted(known, 0.0) == {TOKENS: 3}
    assert known.standing("limit:") == {TOKENS[1], PLACES[1]}
    empty(known, TOKENS)
    assert known.standing("limit:") == {PLACES[1]}


def test_queues_whose_rows_stand_at_one_limit_share_what_is_in_hand() -> None:
    known = sources("q", "r")
    empty(known, OPEN, ("r", ""))
    known.opened(*TOKENS)
    known.opened("r", TOKENS[1])
    known.passing = lambda gate: 12
    assert sum(wanted(known, 0.0, free=10).values()) == 12


def test_a_hint_does_not_open_a_gate() -> None:
    known = sources()
    known.opened(*TOKENS)
    empty(known, OPEN, TOKENS)
    known.hinted()
    assert wanted(known, 0.0) == {OPEN: 10}


def test_newcomers_queue_behind_those_at_a_gate_until_it_is_seen_empty() -> None:
    known = sources()
    known.opened(*TOKENS)
    assert known.waiting(*TOKENS)
    known.claimed({TOKENS: 2}, {TOKENS: 2})
    assert known.waiting(*TOKENS)
    known.claimed({TOKENS: 2}, {TOKENS: 1})
    assert not known.waiting(*TOKENS)
    known.opened(*TOKENS)
    known.found([Source("q", "", -1.0)], 1.0)
    assert not known.waiting(*TOKENS)


def test_rows_of_an_unserved_kind_are_let_be_until_the_kind_is_served() -> None:
    known = sources()
    empty(known, OPEN)
    aside = Source("q", "kind:later", -1.0)
    known.found([aside], 0.0)
    assert wanted(known, 0.0) == {}
    known.serve(["q"], [], ["noop", "later"])
    known.found([aside], 0.0)
    assert wanted(known, 0.0)[("q", "kind:later")] == 10


def test_what_is_no_longer_served_is_forgotten() -> None:
    known = sources("a", "b")
    known.serve(["b", "c"], [], ["noop"])
    assert set(wanted(known, 0.0)) == {("b", ""), ("c", "")}


def test_the_map_is_bounded() -> None:
    known = sources("*")
    for batch in range(3):
        known.found([Source(f"{batch}-{n}", "", -1.0) for n in range(MOST)], 0.0)
    assert len(wanted(known, 0.0, most=10**9)) <= MOST + 1
