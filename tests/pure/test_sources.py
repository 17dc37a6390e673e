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
    known.place_free(PLACES[1], 4)
    assert wanted(known, 0.0, free=0) == {}
    asked = wanted(known, 0.0, free=3)
    assert sum(asked.values()) <= 3
    assert OPEN not in asked
    assert sum(wanted(known, 0.0, free=10, most=2).values()) == 2


def test_a_gate_of_a_rate_opens_with_its_tokens_and_lets_through_as_many_as_have_grown() -> None:
    known = sources()
    known.shut(*TOKENS, 100.0, 0.5, 0.1)
    empty(known, OPEN)
    assert known.next_at(100.0) == 100.5
    assert wanted(known, 100.4) == {}
    assert wanted(known, 100.55) == {TOKENS: 6}


def test_a_hint_does_not_open_a_gate() -> None:
    known = sources()
    known.opened(*TOKENS)
    empty(known, OPEN, TOKENS)
    known.hinted()
    assert wanted(known, 0.0) == {OPEN: 10}


def test_a_gate_of_places_lets_through_as_many_as_came_free() -> None:
    """Rows beyond that would be claimed only to be put back: with one place and 100 slots, 99 for each that runs."""
    known = sources()
    empty(known, OPEN)
    known.shut(*PLACES, 100.0, None, None)
    assert wanted(known, 100.9) == {}
    known.place_free(PLACES[1])
    assert wanted(known, 100.1) == {PLACES: 1}
    known.place_free(PLACES[1], 2)
    assert wanted(known, 100.1) == {PLACES: 3}
    known.shut(*PLACES, 100.2, None, None)
    assert wanted(known, 101.2) == {PLACES: 1}  # another daemon may have freed one


def test_a_gate_that_lets_all_through_is_asked_for_twice_as_many() -> None:
    known = sources()
    empty(known, OPEN)
    known.opened(*PLACES)
    counts = []
    for _ in range(5):
        asked = wanted(known, 0.0, free=10)
        known.claimed(asked, asked)
        counts.append(asked[PLACES])
    assert counts == [1, 2, 4, 8, 10]


def test_newcomers_queue_behind_those_at_a_gate_until_it_is_seen_empty() -> None:
    known = sources()
    known.shut(*TOKENS, 0.0, 1.0, 0.1)
    assert known.waiting(*TOKENS)
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


def test_nobody_claims_from_the_gate_where_cancelled_rows_end() -> None:
    known = sources("q")
    known.found([Source("q", "cancel", -1.0), Source("q", "", -1.0)], 0.0)
    assert wanted(known, 0.0) == {OPEN: 10}
