"""The claimer's map: what it asks for, when it comes back, and what it leaves alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from daemon.sources import (
    COMPANY_S,
    FEW,
    HINTED_MAX,
    LATER_MAX,
    MOST,
    RIPENING_MAX,
    Place,
    Slots,
    Sources,
)
from daemon.store import Ask, Head, Ripe, Waiting
from jobs.model import Job

OPEN: Place = ("q", "")
TOKENS: Place = ("q", "limit:rate:")
PLACES: Place = ("q", "limit:slots:")
LANE: Place = ("q", "lane:example.com")
FROM_THE_FIRST = ("", "", 0)


def sources(*queues: str, kinds: tuple[str, ...] = ("noop",)) -> Sources:
    return Sources(queues or ("q",), (), kinds)


def asks(known: Sources, now: float, free: int = 10, most: int = 1000) -> list[Ask]:
    return known.wanted(now, lambda queue: Slots(free), most)


def wanted(known: Sources, now: float, free: int = 10, most: int = 1000) -> dict[Place, int]:
    """Rows asked of each place."""
    found: Counter[Place] = Counter()
    for ask in asks(known, now, free, most):
        found[ask.queue, ask.gate] += ask.slots
    return dict(found)


def row(place: Place = OPEN, n: int = 1, *, run_at: float = 0.0, priority: int = 2, org: str | None = None) -> Job:
    return Job(n, 1, "noop", place[0], priority, 1, "{}", run_at, org_id=org, gate=place[1], worker_id=1)


def rows(count: int, place: Place = OPEN, *, moved_to: str | None = None) -> list[Job]:
    """So many of a claim; those that were moved have no worker."""
    given = [row(place, n) for n in range(count)]
    for job in given if moved_to is not None else ():
        job.gate, job.worker_id = moved_to or "", None
    return given


def empty(known: Sources, *places: Place) -> None:
    """A claim found nothing in these."""
    known.claimed([Ask(*place, 1) for place in places], [])


def saw(known: Sources, *heads: tuple[str, str, float], now: float = 0.0) -> None:
    """A look saw these and nothing else: queue, gate, and in how many seconds the first row is due."""
    known.found(
        [Head(queue, gate, 2, due_s, 0.0) for queue, gate, due_s in heads], now, FROM_THE_FIRST, to_the_end=True
    )


@pytest.mark.req("OR-05")
def test_a_queue_with_a_name_is_asked_before_anything_is_known_of_it() -> None:
    assert wanted(sources("a", "b"), 0.0) == {("a", ""): 10, ("b", ""): 10}
    assert wanted(sources("org:*:mail"), 0.0) == {}


@pytest.mark.req("OR-05")
def test_a_look_finds_the_queues_of_a_pattern_and_no_others() -> None:
    known = sources("org:*:mail")
    saw(known, ("org:7:mail", "", -1.0), ("org:7:sync", "", -1.0))
    assert wanted(known, 0.0) == {("org:7:mail", ""): 10}


def test_an_empty_queue_is_asked_again_after_a_hint_and_not_before() -> None:
    known = sources()
    empty(known, OPEN)
    assert wanted(known, 100.0) == {}
    known.hinted()
    assert wanted(known, 100.0) == {OPEN: 10}


def test_a_queue_that_gave_all_it_was_asked_for_is_asked_again_at_once() -> None:
    known = sources()
    known.claimed([Ask(*OPEN, 10)], rows(10))
    assert OPEN in wanted(known, 0.0)
    known.claimed([Ask(*OPEN, 10)], rows(9))
    assert wanted(known, 0.0) == {}


def test_a_row_of_the_future_is_asked_for_when_it_is_due() -> None:
    known = sources()
    empty(known, OPEN)
    saw(known, (*OPEN, 5.0), now=100.0)
    assert known.next_at(100.0) == 105.0
    assert wanted(known, 104.9) == {}
    assert wanted(known, 105.0) == {OPEN: 10}


def test_no_more_is_asked_than_there_are_slots_and_the_gates_rows_go_first() -> None:
    known = sources()
    for place in (TOKENS, PLACES):
        known.opened(*place)
    assert wanted(known, 0.0, free=0) == {}
    asked = wanted(known, 0.0, free=3)
    assert sum(asked.values()) <= 3
    assert OPEN not in asked
    assert sum(wanted(known, 0.0, free=10, most=2).values()) == 2


class TestLater:
    """Rows whose time has not come stand off the path of those that may run."""

    def test_they_are_not_asked_for_but_brought_back_when_they_are_due(self) -> None:
        known = sources()
        empty(known, OPEN)
        saw(known, ("q", "later", 5.0), now=100.0)
        assert known.next_at(100.0) == 105.0
        assert known.ripening(104.9) == []
        assert wanted(known, 200.0) == {}
        assert known.ripening(105.0) == [("q", 2)]

    def test_what_was_brought_back_is_asked_for_at_once_and_the_next_ones_time_is_known(self) -> None:
        known = sources()
        empty(known, OPEN)
        known.later("q", 2, 1.0)
        known.ripened([Ripe("q", 2, 3, 1_000.0, None, 7.0)], 1.0, 100)
        assert wanted(known, 1.0) == {OPEN: 10}
        assert known.ripening(7.9) == []
        assert known.ripening(8.0) == [("q", 2)]

    def test_as_many_as_may_come_at_once_means_that_more_are_due(self) -> None:
        known = sources()
        known.later("q", 2, 1.0)
        known.ripened([Ripe("q", 2, 100, 0.0, None, 50.0)], 1.0, 100)
        assert known.ripening(1.0) == [("q", 2)]

    def test_nothing_is_expected_once_none_is_left(self) -> None:
        known = sources()
        empty(known, OPEN)
        known.later("q", 2, 1.0)
        known.ripened([Ripe("q", 2, 0, None, None, None)], 1.0, 100)
        assert known.ripening(1e9) == []
        assert known.next_at(1.0) is None
        assert wanted(known, 1.0) == {}

    def test_the_earliest_of_those_that_went_back_counts(self) -> None:
        known = sources()
        known.returned(row(), "", 7.0)
        known.returned(row(), "", 5.0)
        known.returned(row(), "", 9.0)
        assert known.ripening(4.9) == []
        assert known.ripening(5.0) == [("q", 2)]

    def test_they_are_older_than_what_was_claimed_last_and_found_all_the_same(self) -> None:
        """Claims pass over what is older than the rows they gave; a row that waited may be just that."""
        known = sources()
        known.claimed([Ask(*OPEN, 1)], [row(run_at=1000.0)])
        assert asks(known, 0.0)[0].start.after[1] > 0.0
        known.ripened([Ripe("q", 2, 1, 400.0, None, None)], 1.0, 100)
        assert asks(known, 1.0)[0].start.after[1] <= 400.0

    def test_what_is_no_longer_served_is_not_brought_back(self) -> None:
        known = sources("a", "b")
        known.later("a", 2, 1.0)
        known.serve(["b"], [], ["noop"])
        assert known.ripening(10.0) == []


class TestMarks:
    """A claim passes over the places of rows that are gone, and over no row."""

    def test_what_is_asked_for_is_not_much_younger_than_the_last_row(self) -> None:
        known = sources()
        known.claimed([Ask(*OPEN, 2)], [row(run_at=100.0), row(n=2, run_at=200.0)])
        (ask,) = asks(known, 0.0)
        assert 198.0 <= ask.start.after[1] < 200.0
        assert ask.start.after[0] == ask.start.after[2] == float("-inf")  # nothing is known of other classes

    def test_a_row_that_was_handed_back_is_found(self) -> None:
        known = sources()
        known.claimed([Ask(*OPEN, 1)], [row(run_at=200.0)])
        known.returned(row(run_at=50.0), "", None)
        assert asks(known, 0.0)[0].start.after[1] <= 50.0

    def test_a_row_that_a_look_saw_is_found(self) -> None:
        """It was inserted with a time that has long passed, or by a transaction that was long."""
        known = sources()
        known.claimed([Ask(*OPEN, 1)], [row(run_at=200.0)])
        known.found([Head("q", "", 2, 50.0, 300.0)], 0.0, FROM_THE_FIRST, to_the_end=True)
        assert asks(known, 0.0)[0].start.after[1] <= 50.0


class TestLimitGates:
    """Rows that a limit holds back are asked for as they can pass."""

    def test_no_more_is_asked_than_is_in_hand(self) -> None:
        """More would be claimed only to be put back: with one place and 100 slots, 99 for each that runs."""
        known = sources()
        empty(known, OPEN)
        known.opened(*TOKENS)
        known.opened(*PLACES)
        known.passing = {TOKENS[1]: 3, PLACES[1]: 0}.__getitem__
        assert wanted(known, 0.0) == {TOKENS: 3}

    def test_queues_whose_rows_stand_at_one_limit_share_what_is_in_hand(self) -> None:
        known = sources("q", "r")
        empty(known, OPEN, ("r", ""))
        known.opened(*TOKENS)
        known.opened("r", TOKENS[1])
        known.passing = lambda gate: 12
        assert sum(wanted(known, 0.0, free=10).values()) == 12

    def test_organisations_that_wait_at_it_share_what_is_in_hand(self) -> None:
        known = sources()
        empty(known, OPEN)
        known.opened(*TOKENS)
        known.passing = lambda gate: 4
        known.claimed([Ask(*TOKENS, 4)], rows(4, TOKENS))
        assert known.to_survey(0.0) == TOKENS
        known.surveyed(TOKENS, [Waiting(2, "a", 1.0), Waiting(2, "b", 1.0)], 1.0)
        assert Counter({ask.org_id: ask.slots for ask in asks(known, 0.0)}) == {"a": 2, "b": 2}

    def test_those_at_which_rows_stand_are_known(self) -> None:
        known = sources()
        known.opened(*TOKENS)
        known.opened(*PLACES)
        assert known.standing("limit:") == {TOKENS[1], PLACES[1]}
        empty(known, TOKENS)
        assert known.standing("limit:") == {PLACES[1]}

    def test_a_hint_does_not_open_it(self) -> None:
        known = sources()
        known.opened(*TOKENS)
        empty(known, OPEN, TOKENS)
        known.hinted()
        assert wanted(known, 0.0) == {OPEN: 10}

    def test_newcomers_queue_behind_those_that_wait_until_it_is_seen_empty(self) -> None:
        known = sources()
        known.opened(*TOKENS)
        assert known.waiting(*TOKENS)
        known.claimed([Ask(*TOKENS, 2)], rows(2, TOKENS))
        assert known.waiting(*TOKENS)
        known.claimed([Ask(*TOKENS, 2)], rows(1, TOKENS))
        assert not known.waiting(*TOKENS)
        known.opened(*TOKENS)
        saw(known, (*OPEN, -1.0), now=1.0)
        assert not known.waiting(*TOKENS)


class TestMovedRows:
    """A claim moves rows that must not run to a gate, and gives them back without a worker."""

    def test_a_queue_whose_rows_were_all_moved_is_asked_again_at_once(self) -> None:
        """Behind 1,000 rows of a kind that nobody serves stands one that may run."""
        known = sources()
        known.claimed([Ask(*OPEN, 10)], rows(10, moved_to="kind:later"))
        assert wanted(known, 0.0) == {OPEN: 10}
        known.claimed([Ask(*OPEN, 10)], [*rows(6, moved_to="kind:later"), *rows(4)])
        assert wanted(known, 0.0) == {OPEN: 10}
        known.claimed([Ask(*OPEN, 10)], rows(9, moved_to="org:7"))
        assert wanted(known, 0.0) == {}

    def test_an_organisation_whose_rows_were_moved_is_not_taken_for_empty(self) -> None:
        """Else its next row that may run would stand behind them for as long as others wait."""
        known = contested("a", "b")
        (first, *_), again = asks(known, 0.0, 100, 100), []
        for _ in range(3):
            asked = asks(known, 0.0, 100, 100)
            given = rows_of(asked)
            for job in given:
                if job.org_id == "a":
                    job.gate, job.worker_id = "kind:later", None
            known.claimed(asked, given)
            again.append({ask.org_id for ask in asked})
        assert first.org_id is not None
        assert again == [{"a", "b"}] * 3


def test_rows_of_an_unserved_kind_are_let_be_until_the_kind_is_served() -> None:
    known = sources()
    empty(known, OPEN)
    saw(known, ("q", "kind:later", -1.0))
    assert wanted(known, 0.0) == {}
    known.serve(["q"], [], ["noop", "later"])
    saw(known, ("q", "kind:later", -1.0))
    assert wanted(known, 0.0)[("q", "kind:later")] == 10


def test_what_is_no_longer_served_is_forgotten() -> None:
    known = sources("a", "b")
    known.serve(["b", "c"], [], ["noop"])
    assert set(wanted(known, 0.0)) == {("b", ""), ("c", "")}


def test_nobody_claims_from_the_gate_where_cancelled_rows_end() -> None:
    known = sources("q")
    saw(known, ("q", "cancel", -1.0), ("q", "", -1.0))
    assert wanted(known, 0.0) == {OPEN: 10}


class TestPages:
    """A look shows so many places at a time, and goes on where it stopped."""

    def test_what_lies_outside_the_page_is_not_forgotten(self) -> None:
        known = sources("*")
        everywhere = [Head(queue, "lane:x", 2, -1.0, 0.0) for queue in "abcdef"]
        known.found(everywhere, 0.0, FROM_THE_FIRST, to_the_end=True)
        known.found(everywhere[2:4], 0.0, ("b", "lane:x", 2), to_the_end=False)
        assert {queue for queue, _gate in wanted(known, 0.0)} == set("abcdef")

    def test_what_the_page_does_not_show_is_forgotten(self) -> None:
        known = sources("*")
        everywhere = [Head(queue, "lane:x", 2, -1.0, 0.0) for queue in "abcdef"]
        known.found(everywhere, 0.0, FROM_THE_FIRST, to_the_end=True)
        known.found([everywhere[1], everywhere[3]], 0.0, ("a", "lane:x", 2), to_the_end=False)
        assert {queue for queue, _gate in wanted(known, 0.0)} == set("abdef")
        known.found([], 0.0, ("d", "lane:x", 2), to_the_end=True)
        assert {queue for queue, _gate in wanted(known, 0.0)} == set("abd")

    def test_a_gate_whose_classes_lie_on_two_pages_is_not_forgotten_between(self) -> None:
        known = sources("*")
        known.found([Head("b", "lane:x", 1, -1.0, 0.0)], 0.0, FROM_THE_FIRST, to_the_end=False)
        known.found([Head("c", "lane:x", 1, -1.0, 0.0)], 0.0, ("b", "lane:x", 1), to_the_end=True)
        assert {queue for queue, _gate in wanted(known, 0.0)} == set("bc")

    def test_queues_that_are_empty_and_known_by_no_name_are_forgotten_when_there_are_many(self) -> None:
        known = sources("*")
        for batch in range(3):
            saw(known, *((f"{batch}-{n}", "", -1.0) for n in range(MOST)))
        assert len(wanted(known, 0.0, most=10**9)) <= MOST + 1


class TestTurns:
    """No place waits for ever because others have more."""

    @pytest.mark.parametrize("backlogs", [["a", "b", "c", "d", "e"], ["a", "e"], ["e"]])
    def test_each_queue_is_asked_before_long_though_one_claim_has_no_room_for_all(self, backlogs: list[str]) -> None:
        """Of 250 rows each with 100 free slots takes 100."""
        known = sources(*"abcde")
        given = served(known, {(queue, "") for queue in backlogs}, rounds=20)
        assert set(given) == {(queue, "") for queue in backlogs}
        assert min(given.values()) * 2 >= max(given.values())

    def test_a_long_backlog_at_a_gate_keeps_no_other_queue_waiting(self) -> None:
        """Somebody began to serve a kind of which a million rows wait, each done as soon as it is claimed."""
        known = sources(*"abc")
        for gate in ("kind:noop", "lane:x"):
            known.opened("a", gate)
        given = served(known, {("a", "kind:noop"), ("a", "lane:x"), ("b", ""), ("c", "")}, rounds=30, free=1000)
        assert given[("b", "")] > 0
        assert given[("c", "")] > 0

    def test_after_a_hint_all_queues_are_asked_though_most_of_them_are_empty(self) -> None:
        """Those that gave nothing are not in the way of the others."""
        known = sources(*(f"q{n}" for n in range(60)))
        seen = set(wanted(known, 0.0, 100, 250))
        while known.more:  # so the claimer does not rest
            empty(known, *seen)
            seen |= set(wanted(known, 0.0, 100, 250))
        assert len(seen) == 60

    def test_there_is_no_more_to_ask_where_no_slot_is_free(self) -> None:
        known = sources("a", "b")
        wanted(known, 0.0, 10, 10)
        assert known.more
        wanted(known, 0.0, 0, 10)
        assert not known.more


def served(known: Sources, backlogs: set[Place], rounds: int, free: int = 100) -> Counter[Place]:
    """What each place gave in so many claims of 250 rows; those of `backlogs` have always more."""
    given: Counter[Place] = Counter()
    for _ in range(rounds):
        asked = asks(known, 0.0, free, 250)
        got: list[Job] = []
        for ask in asked:
            if (ask.queue, ask.gate) in backlogs:
                got += rows(ask.slots, (ask.queue, ask.gate))
                given[ask.queue, ask.gate] += ask.slots
        known.claimed(asked, got)
    return given


def contested(*orgs: str) -> Sources:
    """A queue whose last claim gave all it was asked for, and who waits there is known."""
    known = sources()
    known.claimed([Ask(*OPEN, 10)], rows(10))
    known.surveyed(OPEN, [Waiting(2, org, 1.0) for org in orgs], 1.0)
    return known


def rows_of(asked: Sequence[Ask]) -> list[Job]:
    """All rows that were asked for by organisation."""
    return [
        row((ask.queue, ask.gate), n, priority=ask.first, org=ask.org_id or None)
        for ask in asked
        if ask.org_id is not None
        for n in range(ask.slots)
    ]


class TestSurveys:
    """Whose the rows are is asked where there are more of them than slots, and nowhere else."""

    def test_a_place_that_gave_less_than_it_was_asked_for_needs_none(self) -> None:
        known = sources()
        assert known.to_survey(0.0) is None
        known.claimed([Ask(*OPEN, 10)], rows(9))
        assert known.to_survey(0.0) is None
        assert known.next_survey() is None

    def test_a_place_that_gave_all_is_asked_about_again_after_a_while_or_a_hint(self) -> None:
        known = sources()
        known.claimed([Ask(*OPEN, 10)], rows(10))
        assert known.to_survey(0.0) == OPEN
        known.surveyed(OPEN, [], 5.0)
        assert known.to_survey(4.9) is None
        assert known.next_survey() == 5.0
        assert known.to_survey(5.0) == OPEN
        known.surveyed(OPEN, [], 10.0)
        known.hinted()
        assert known.to_survey(5.0) == OPEN

    def test_one_organisation_alone_is_not_asked_for_by_name(self) -> None:
        known = contested("a")
        assert {ask.org_id for ask in asks(known, 0.0)} == {None}

    def test_of_several_each_is_asked_for_its_share_and_no_more_is_asked_than_there_is_room(self) -> None:
        known = contested("a", "b", "")
        for _ in range(20):
            asked = asks(known, 0.0, 100, 90)
            assert total(asked) <= 90
            known.claimed(asked, rows_of(asked))
        assert {ask.org_id: ask.slots for ask in asks(known, 0.0, 100, 90)} == {"a": 30, "b": 30, "": 30}

    def test_when_all_of_them_are_exhausted_the_place_is_asked_as_a_whole_again(self) -> None:
        known = contested("a", "b")
        asked = asks(known, 0.0)
        known.claimed(asked, [])
        (ask,) = asks(known, 0.0)
        assert ask.org_id is None
        known.claimed([ask], [])
        assert asks(known, 0.0) == []
        assert known.to_survey(1e9) is None

    def test_one_who_comes_later_is_asked_for_once_a_survey_has_seen_it(self) -> None:
        known = contested("a", "b")
        known.surveyed(OPEN, [Waiting(2, org, 1.0) for org in ("a", "b", "new")], 1.0)
        assert {ask.org_id for ask in asks(known, 0.0)} == {"a", "b", "new"}

    def test_a_row_that_was_committed_late_is_found_though_younger_ones_went_before(self) -> None:
        known = contested("a", "b")
        asked = asks(known, 0.0)
        newest = [*rows_of(asked)]
        for job in newest:
            job.run_at = 1000.0
        known.claimed(asked, newest)
        (ask, *_rest) = asks(known, 0.0)
        assert ask.start.after[1] > 0.0
        known.claimed(asks(known, 0.0), [])  # nothing younger; so from the start
        assert {ask.org_id: ask.start.after[1] for ask in asks(known, 0.0)} == dict.fromkeys(("a", "b"), float("-inf"))


class TestKeptSlots:
    """Where several organisations are about, they do not fill the last slots."""

    def kept(self, known: Sources, now: float, free: int = 10) -> int:
        return total(known.wanted(now, lambda queue: Slots(free, 2, lambda org_id: True), 1000))

    def test_one_alone_may_have_all(self) -> None:
        assert self.kept(contested("a"), 0.0) == 10

    def test_of_several_who_run_something_none_gets_the_last_ones(self) -> None:
        known = contested("a", "b")
        assert self.kept(known, 0.0) == 8
        assert self.kept(known, 0.0, free=2) == 0

    def test_what_a_claim_leaves_free_is_kept_already(self) -> None:
        known = contested("a", "b")
        slots = Slots(100, 2, lambda org_id: True)
        assert total(known.wanted(0.0, lambda queue: slots, 10)) == 10

    def test_they_are_kept_for_a_while_after_the_others_are_gone_and_then_no_more(self) -> None:
        known = contested("a", "b")
        known.claimed(asks(known, 0.0), [])
        known.claimed([Ask(*OPEN, 8)], rows(8))  # as a whole again, and all that was asked for
        assert self.kept(known, 1.0) == 8
        assert self.kept(known, 1.0 + COMPANY_S) == 10

    def test_a_queue_that_has_room_for_all_keeps_none(self) -> None:
        known = contested("a", "b")
        known.claimed(asks(known, 0.0), [])
        known.claimed([Ask(*OPEN, 10)], rows(3))
        known.hinted()
        assert self.kept(known, 1.0) == 10


class TestAgeing:
    """Lower classes are not starved where nobody is asked for by name either."""

    def test_one_row_in_sixteen_is_asked_of_them_first(self) -> None:
        known = sources()
        known.found([Head("q", "", n, -1.0, 0.0) for n in (1, 3, 4)], 0.0, FROM_THE_FIRST, to_the_end=True)
        first: Counter[int] = Counter()
        for _ in range(320):
            asked = asks(known, 0.0, 10, 10)
            assert total(asked) == 10
            known.claimed(asked, rows(10))
            for ask in asked:
                first[ask.first] += ask.slots
        assert first[3] + first[4] == pytest.approx(200, abs=2)
        assert first[3] == pytest.approx(100, abs=2)

    def test_what_is_not_full_is_asked_in_order_of_class(self) -> None:
        """Then all of them get what they want."""
        known = sources()
        known.found([Head("q", "", n, -1.0, 0.0) for n in (1, 2)], 0.0, FROM_THE_FIRST, to_the_end=True)
        assert {ask.first for _ in range(50) for ask in asks(known, 0.0)} == {1}


def test_a_place_that_is_set_aside_is_asked_again_when_its_time_is_over() -> None:
    known = sources("a", "b")
    known.set_aside(("a", ""), 5.0)
    assert set(wanted(known, 4.9)) == {("b", "")}
    assert set(wanted(known, 5.0)) == {("a", ""), ("b", "")}


def total(asked: Sequence[Ask]) -> int:
    return sum(ask.slots for ask in asked)


class TestLanes:
    """Rows at the gate of a destination are asked for as it lets them through."""

    def known(self, room: dict[str, int | None]) -> Sources:
        known = sources("p", "q")
        empty(known, ("p", ""), OPEN)
        known.lane_room = lambda gate: room.get(gate)
        return known

    def test_no_more_is_asked_than_may_start_over_all_queues(self) -> None:
        known = self.known({LANE[1]: 3})
        known.opened(*LANE)
        known.opened("p", LANE[1])
        assert sum(wanted(known, 0.0).values()) == 3
        known.lane_room = lambda gate: 0
        assert wanted(known, 0.0) == {}
        known.lane_room = lambda gate: None
        assert wanted(known, 0.0) == {LANE: 10, ("p", LANE[1]): 10}

    def test_a_probe_is_asked_for_however_busy_the_queue_is_and_once(self) -> None:
        known = self.known({LANE[1]: 1})
        known.opened(*LANE)
        known.probe(*LANE)
        assert wanted(known, 0.0, free=0) == {LANE: 1}
        assert wanted(known, 0.0, free=0) == {}

    def test_a_probe_comes_alone(self) -> None:
        known = self.known({LANE[1]: 1})
        known.opened(*LANE)
        known.probe(*LANE)
        assert wanted(known, 0.0) == {LANE: 1}

    def test_a_probe_that_was_given_up_meanwhile_is_not_asked_for(self) -> None:
        known = self.known({LANE[1]: 0})
        known.probe(*LANE)
        assert wanted(known, 0.0) == {}

    def test_rows_that_a_claim_moved_there_are_asked_for_however_old_they_are(self) -> None:
        known = self.known({})
        known.opened(*LANE)
        known.claimed([Ask(*LANE, 1)], [row(LANE, run_at=1_000.0)])
        old = row(LANE, 7, run_at=10.0)
        old.worker_id = None
        known.claimed([Ask(*OPEN, 10)], [old])
        (ask,) = asks(known, 0.0)
        assert (ask.queue, ask.gate) == LANE
        assert ask.start.after[1] <= 10.0

    def test_a_lane_that_opens_is_asked_in_all_queues(self) -> None:
        known = self.known({})
        for place in (LANE, ("p", LANE[1]), ("q", "lane:other.example")):
            known.opened(*place)
            empty(known, place)
        assert known.at_lanes() == [LANE, ("p", LANE[1]), ("q", "lane:other.example")]
        known.gate_opened(LANE[1])
        assert set(wanted(known, 0.0)) == {LANE, ("p", LANE[1])}


def test_all_gates_of_a_queue_together_are_asked_for_no_more_than_it_has_slots() -> None:
    known = sources()
    for gate in ("kind:noop", "org:7", "lane:example.com"):
        known.opened("q", gate)
    for _turn in range(8):
        assert sum(wanted(known, 0.0).values()) == 10
        assert known.more, "those left out are asked next, should the others have no rows"


class TestVeryManyPlaces:
    """Ten thousand queues, one for each organisation."""

    def heads(self, first: int, last: int, gate: str = "") -> list[Head]:
        return [Head(f"q{n:05}", gate, 2, 0.0, 0.0) for n in range(first, last)]

    def look(self, known: Sources, count: int) -> None:
        """All pages of one look."""
        after = FROM_THE_FIRST
        for first in range(0, count, MOST):
            page = self.heads(first, min(first + MOST, count))
            known.found(page, 0.0, after, to_the_end=first + MOST >= count)
            after = page[-1][:3]

    def test_no_more_than_two_pages_are_known_and_all_have_their_turn(self) -> None:
        known = sources("q*")
        claimed: set[str] = set()
        after = FROM_THE_FIRST
        for first in range(0, 10_000, MOST):
            page = self.heads(first, first + MOST)
            known.found(page, 0.0, after, to_the_end=first + MOST == 10_000)
            after = page[-1][:3]
            while asked := asks(known, 0.0, most=250):
                assert sum(ask.slots for ask in asked) <= 250
                claimed |= {ask.queue for ask in asked}
                known.claimed(asked, [])
        assert len(claimed) == 10_000
        assert len(known.standing("")) <= 2 * MOST
        assert len(known._gate_turns) <= 3 * MOST

    def test_one_claim_asks_many_of_them(self) -> None:
        known = sources("q*")
        self.look(known, 500)
        assert len(asks(known, 0.0, most=250)) == 250 // FEW
        assert known.more

    def test_a_hint_asks_for_a_look_where_there_are_too_many_to_be_asked(self) -> None:
        known = sources("q*")
        self.look(known, HINTED_MAX + 10)
        while asked := asks(known, 0.0, most=250):
            known.claimed(asked, [])
        assert not known.hinted()
        assert asks(known, 0.0) == []
        few = sources("q*")
        self.look(few, 3)
        assert few.hinted()
        assert len({ask.queue for ask in asks(few, 0.0)}) >= 3

    def test_of_rows_of_the_future_the_next_ones_are_known(self) -> None:
        known = sources("q*")
        for n in range(3 * LATER_MAX):
            head = Head(f"q{n:05}", "later", 2, float(3 * LATER_MAX - n), 0.0)
            known.found([head], 0.0, FROM_THE_FIRST, to_the_end=False)
        assert known.next_at(0.0) == 1.0
        assert len(known.ripening(1e9)) == RIPENING_MAX
