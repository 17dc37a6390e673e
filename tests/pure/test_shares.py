"""Fair shares: each organisation that waits gets its part, at once, and what it does not use goes to the others."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.low_water import MARGIN_S, NEAR_S, WIDE_IN_BACKLOG_S, Start
from daemon.shares import AGED, FIRST_ASK, Shares, Who
from daemon.store import Ask, Waiting
from tests.examples import examples

WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 1.0, 2.0, 3.0, 10.0])
SOME = settings(max_examples=examples(30))
COUNTS = st.lists(st.integers(1, 250), min_size=1, max_size=20)


class Place:
    """Rows that wait, and what is claimed of them; `backlog` says how many each has, `inf` for always more."""

    def __init__(self, backlog: dict[Who, float], weights: dict[str, float] | None = None) -> None:
        self.backlog = Counter(backlog)
        self.weights = weights or {}
        self.shares = Shares()
        self.served: Counter[Who] = Counter()
        self.order: list[Who] = []  # claim by claim, whose rows were given
        self.asked = 0
        self.survey()

    def survey(self) -> None:
        self.shares.found(
            Waiting(priority, org, self.weights.get(org, 1.0))
            for (priority, org), rows in sorted(self.backlog.items())
            if rows > 0
        )

    def claim(self, count: int) -> int:
        asked = self.shares.ask("q", "", count, 0, busy, 0.0)
        assert len({who(ask) for ask in asked}) == len(asked)
        assert all(ask.slots > 0 for ask in asked)
        self.asked = sum(ask.slots for ask in asked)
        assert self.asked <= count
        got = {who(ask): int(min(ask.slots, self.backlog[who(ask)])) for ask in asked}
        for each, rows in got.items():
            self.backlog[each] -= rows
            self.served[each] += rows
            self.order += [each] * rows
        self.shares.claimed(asked, got, dict.fromkeys(got, (0.0, 0)))
        return sum(got.values())

    def warm_up(self) -> None:
        """Until all are asked for as many as they can give."""
        for _ in range(40):
            self.claim(250)
        self.served.clear()
        self.order.clear()

    def of_org(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_priority, org), rows in self.served.items():
            found[org] += rows
        return found


def busy(org_id: str) -> bool:
    """Every organisation runs something already."""
    return True


def who(ask: Ask) -> Who:
    return ask.first, ask.org_id or ""


def always(*orgs: str, priority: int = 2) -> dict[Who, float]:
    """These have always more."""
    return {(priority, org): inf for org in orgs}


@SOME
@given(weights=st.lists(WEIGHTS, min_size=2, max_size=6), counts=COUNTS)
def test_over_any_long_time_each_gets_rows_by_its_weight(weights: list[float], counts: list[int]) -> None:
    """Within 5 %, whatever the claims' sizes."""
    named = {f"org {n}": weight for n, weight in enumerate(weights)}
    place = Place(always(*named), named)
    place.warm_up()
    while len(place.order) < 40 * sum(weights) / min(weights):
        for count in counts:
            place.claim(count)
    served, everything = place.of_org(), sum(weights)
    for org, weight in named.items():
        expected = len(place.order) * weight / everything
        assert served[org] == pytest.approx(expected, rel=0.05, abs=1 + len(named))


def test_one_of_weight_three_gets_three_rows_for_one_of_the_other() -> None:
    place = Place(always("one", "three"), {"three": 3.0})
    place.warm_up()
    for _ in range(100):
        place.claim(40)
    assert place.of_org() == {"one": 1000, "three": 3000}


def test_one_weight_counts_from_the_survey_that_saw_it() -> None:
    place = Place(always("a", "b"))
    place.warm_up()
    place.weights["b"] = 3.0
    place.survey()
    for _ in range(100):
        place.claim(40)
    assert place.of_org()["b"] == pytest.approx(3000, rel=0.05)


@SOME
@given(weights=st.lists(WEIGHTS, min_size=2, max_size=6), counts=COUNTS)
def test_nobody_starves(weights: list[float], counts: list[int]) -> None:
    """Between two rows of one lie no more of the others than their weights say, and one claim's order."""
    named = {f"org {n}": weight for n, weight in enumerate(weights)}
    place = Place(always(*named), named)
    place.warm_up()
    while len(place.order) < 1500:
        for count in counts:
            place.claim(count)
    for org, weight in named.items():
        turns = [n for n, (_priority, other) in enumerate(place.order) if other == org]
        longest = max((after - before for before, after in pairwise(turns)), default=len(place.order))
        assert longest <= sum(weights) / weight + len(weights) + 2 * max(counts)


def test_who_took_what_was_left_over_does_not_pay_it_back() -> None:
    """At first each is asked for few rows, so that the lightest is given most of a large claim."""
    weights = {"light": 0.25, "a": 10.0, "b": 10.0, "c": 10.0}
    place = Place(always(*weights), weights)
    place.warm_up()
    for _ in range(300):
        place.claim(1)
    assert place.of_org()["light"] in (2, 3)


@SOME
@given(backlog=st.lists(st.integers(0, 300), min_size=1, max_size=8), count=st.integers(1, 250))
def test_no_slot_stays_empty_while_somebody_is_known_to_have_rows(backlog: list[int], count: int) -> None:
    """Once they have shown how much they have: an organisation that is new is asked for few, which would be too little
    to fill a claim only where few wait."""
    place = Place({(2, f"org {n}"): rows for n, rows in enumerate(backlog)} | always("big"))
    for _ in range(12):
        place.claim(250)
        place.survey()
    place.claim(count)
    assert place.asked == count


@pytest.mark.parametrize("orgs", [1, 3, 40])
def test_one_that_is_new_is_asked_for_few_and_for_twice_as_many_whenever_it_gives_them_all(orgs: int) -> None:
    place = Place(always(*(f"org {n}" for n in range(orgs))))
    asked = []
    for _ in range(6):
        place.claim(250)
        asked.append(place.asked)
    assert asked == [min(250, FIRST_ASK * orgs * 2**n) for n in range(6)]


@SOME
@given(before=COUNTS, others=st.integers(1, 5))
def test_a_newcomer_is_served_at_once(before: list[int], others: int) -> None:
    """However long the others have been served, and however many rows of theirs wait."""
    place = Place(always(*(f"org {n}" for n in range(others))))
    for count in before * 5:
        place.claim(count)
    place.backlog[2, "new"] = 1
    place.survey()
    place.claim(others + 1)
    assert place.served[2, "new"] == 1


def test_who_was_away_has_saved_up_no_turns() -> None:
    place = Place(always("here") | {(2, "away"): 10})
    for _ in range(100):
        place.claim(20)
    place.backlog[2, "away"] = 10_000
    place.survey()
    place.served.clear()
    for _ in range(50):
        place.claim(20)
    assert place.of_org()["here"] == pytest.approx(500, abs=20)


def test_rows_that_were_asked_for_but_not_there_are_not_charged() -> None:
    place = Place(always("a", "b"))
    place.warm_up()
    asked = place.shares.ask("q", "", 100, 0, busy, 0.0)
    place.shares.claimed(asked, {}, {})  # held by another claimer, say
    place.survey()
    for _ in range(10):
        place.claim(100)
    assert place.of_org()["a"] == pytest.approx(500, abs=20)


class TestKeptSlots:
    """Some slots are for organisations that run nothing, so that none waits for somebody's long jobs to end."""

    def test_those_who_run_something_leave_them_free(self) -> None:
        place = Place(always("a", "b"))
        place.warm_up()
        assert sum(ask.slots for ask in place.shares.ask("q", "", 20, 5, busy, 0.0)) == 15
        assert place.shares.ask("q", "", 5, 5, busy, 0.0) == []

    def test_one_who_runs_nothing_is_asked_for_one_row_though_only_kept_ones_are_left(self) -> None:
        place = Place(always("a", "b"))
        place.warm_up()
        place.backlog[3, "idle"] = 10
        place.survey()
        asked = place.shares.ask("q", "", 2, 5, lambda org_id: org_id != "idle", 0.0)
        assert [(ask.org_id, ask.first, ask.slots) for ask in asked] == [("idle", 3, 1)]

    @SOME
    @given(count=st.integers(1, 100), kept=st.integers(0, 30), idle=st.integers(0, 40))
    def test_no_more_is_asked_than_there_is_room(self, count: int, kept: int, idle: int) -> None:
        orgs = [f"org {n}" for n in range(40)]
        place = Place(always(*orgs))
        place.warm_up()
        runs = set(orgs[idle:])
        asked = sum(ask.slots for ask in place.shares.ask("q", "", count, kept, lambda org_id: org_id in runs, 0.0))
        assert asked == max(count - kept, 0) + min(idle, kept, count)


class TestClasses:
    """A better class goes first, and lets one row in sixteen pass."""

    @SOME
    @given(counts=COUNTS)
    def test_the_best_class_gets_all_but_one_row_in_sixteen(self, counts: list[int]) -> None:
        place = Place(always("a", "b", priority=1) | always("c", priority=3))
        place.warm_up()
        while len(place.order) < 3000:
            for count in counts:
                place.claim(count)
        lower = place.served[3, "c"]
        assert lower == pytest.approx(len(place.order) / AGED, abs=2)

    def test_the_lower_classes_take_turns(self) -> None:
        place = Place(
            always("a", priority=1) | always("b", priority=2) | always("b", priority=3) | always("d", priority=4)
        )
        place.warm_up()
        for _ in range(480):
            place.claim(10)
        for lower in ((2, "b"), (3, "b"), (4, "d")):
            assert place.served[lower] == pytest.approx(100, abs=2)

    def test_of_one_class_alone_nothing_is_set_apart(self) -> None:
        place = Place(always("a", "b", priority=4))
        place.warm_up()
        for _ in range(32):
            place.claim(10)
        assert place.of_org() == {"a": 160, "b": 160}

    def test_what_the_best_class_leaves_over_goes_to_the_next(self) -> None:
        place = Place({(1, "a"): 30} | always("b", "c", priority=2))
        place.warm_up()
        place.backlog[1, "a"] = 30
        place.survey()
        for _ in range(8):
            place.claim(50)
        assert place.served[1, "a"] == 30
        assert place.served[2, "b"] == pytest.approx(185, abs=10)


@SOME
@given(
    backlog=st.dictionaries(
        st.tuples(st.integers(1, 4), st.sampled_from(["", "a", "b", "c", "d"])), st.integers(1, 400), max_size=12
    ),
    counts=COUNTS,
    surveys=st.integers(1, 7),
)
def test_all_rows_are_given_in_the_end_and_then_nobody_is_left(
    backlog: dict[Who, int], counts: list[int], surveys: int
) -> None:
    place = Place(dict(backlog))
    for n in range(5000):
        place.claim(counts[n % len(counts)])
        if n % surveys == 0:
            place.survey()
        if not len(place.shares) and not any(place.backlog.values()):
            break
    assert place.served == Counter(backlog)
    assert len(place.shares) == 0


def test_whoever_has_no_more_leaves() -> None:
    place = Place({(2, "a"): 5, (2, "b"): 100})
    assert place.shares.compete
    place.claim(32)
    assert not place.shares.compete
    assert len(place.shares) == 1


def test_one_in_two_classes_does_not_compete_with_itself() -> None:
    place = Place({(1, "a"): 5, (2, "a"): 5})
    assert not place.shares.compete


class TestMarks:
    """What is older than the last row is passed over, but for a margin now and then, and until nothing comes."""

    def claimed(self, shares: Shares, rows: int, newest: tuple[float, int] = (500.0, 7), now: float = 0.0) -> None:
        asked = [ask for ask in shares.ask("q", "", 8, 0, busy, now) if ask.org_id == "a"]
        shares.claimed(asked, {(2, "a"): rows}, {(2, "a"): newest} if rows else {})

    def start(self, shares: Shares, now: float) -> Start:
        (found,) = {ask.start for ask in shares.ask("q", "", 8, 0, busy, now) if ask.org_id == "a"}
        return found

    def shares(self) -> Shares:
        shares = Shares()
        shares.found([Waiting(2, "a", 1.0)])
        return shares

    def test_the_first_look_at_one_begins_at_the_start(self) -> None:
        assert self.start(self.shares(), 1.0) == Start()

    def test_in_a_backlog_the_next_begins_at_the_very_row_and_goes_back_now_and_then(self) -> None:
        shares = self.shares()
        self.claimed(shares, 8)
        assert self.start(shares, 1.0) == Start((500.0 - MARGIN_S,) * 4)
        assert self.start(shares, 1.1) == Start((500.0,) * 4, 2, 7)
        assert self.start(shares, 1.0 + WIDE_IN_BACKLOG_S) == Start((500.0 - MARGIN_S,) * 4)

    def test_what_a_wide_look_finds_is_gone_on_with(self) -> None:
        shares = self.shares()
        self.claimed(shares, 8)
        self.claimed(shares, 8, (499.5, 9), now=1.0)
        assert self.start(shares, 1.1) == Start((499.5,) * 4, 2, 9)

    def test_when_nothing_comes_the_start_is_looked_at_once_more_before_it_leaves(self) -> None:
        shares = self.shares()
        self.claimed(shares, 8)
        self.claimed(shares, 0)
        assert self.start(shares, 1.0) == Start()
        self.claimed(shares, 0)
        assert len(shares) == 0

    def test_one_that_comes_back_is_looked_at_from_where_it_was_and_then_from_the_start(self) -> None:
        shares = self.shares()
        self.claimed(shares, 8, now=1.0)
        self.claimed(shares, 3, (600.0, 8), now=1.0)
        assert len(shares) == 0
        shares.found([Waiting(2, "a", 1.0)])
        assert self.start(shares, 1.1) == Start((600.0 - NEAR_S,) * 4)
        self.claimed(shares, 0, now=1.2)
        assert self.start(shares, 1.3) == Start()

    def test_a_row_that_went_back_is_found_by_the_next_claim(self) -> None:
        shares = self.shares()
        self.claimed(shares, 8, now=1.0)
        self.start(shares, 1.0)
        shares.returned(2, "a", 400.0)
        assert self.start(shares, 1.1) == Start((400.0,) * 4, 2, 0)
        shares.returned(2, "b", 1.0)  # of whom nothing is known

    def test_those_of_the_longest_ago_are_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("daemon.shares.MARKS_MAX", 5)
        shares = Shares()
        names = [f"org {n}" for n in range(9)]
        for name in names:
            shares.found([Waiting(2, name, 1.0)])
            asked = shares.ask("q", "", 8, 0, busy, 0.0)
            shares.claimed(asked, {(2, name): 1}, {(2, name): (9.0, 1)})
        shares.found(Waiting(2, name, 1.0) for name in names)
        known = {ask.org_id for ask in shares.ask("q", "", 9, 0, busy, 0.0) if ask.start != Start()}
        assert known == set(names[-5:])
