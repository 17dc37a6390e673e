"""Rows that have failed before hold a share of a queue's slots while first attempts wait, and all of them otherwise."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources import ABOUT_S, RETRY_GATE, Place, Slots, Sources, for_retries
from daemon.store import Ask, Ripe
from jobs.model import Job

OPEN: Place = ("q", "")
RETRIES: Place = ("q", RETRY_GATE)
LANE: Place = ("q", "lane:example.com")
LIMIT: Place = ("q", "limit:rate:")


def asked(known: Sources, free: int, retries: int, now: float = 0.0, kept: int = 0) -> dict[Place, int]:
    """Rows asked of each place, where `retries` more may start beside first attempts."""
    found: Counter[Place] = Counter()
    for ask in known.wanted(now, lambda queue: Slots(free, kept, retries=retries), 1000):
        found[ask.queue, ask.gate] += ask.slots
    return dict(found)


def given_(known: Sources, place: Place, count: int, *, of: int | None = None, attempt: int = 1) -> None:
    """A claim that asked this place for `of` rows has got so many, on that attempt."""
    rows = [Job(n, 1, "noop", *("q", 2, attempt, "{}", 0.0), gate=place[1], worker_id=1) for n in range(count)]
    known.claimed([Ask(*place, count if of is None else of)], rows)


def sources(*places: Place) -> Sources:
    """With rows at these, and none elsewhere."""
    known = Sources(["q"], (), ["noop"])
    given_(known, OPEN, 0, of=1)
    for place in places:
        known.opened(*place)
    return known


@pytest.mark.req("BJ-15")
def test_thirty_in_a_hundred_rounded_up_and_one_at_least() -> None:
    assert [for_retries(limit) for limit in (1, 2, 3, 4, 5, 10, 100, 1000)] == [1, 1, 1, 2, 2, 3, 30, 300]


@pytest.mark.req("BJ-15")
def test_while_first_attempts_wait_no_more_retries_are_asked_for_than_may_start() -> None:
    for turn in range(4):
        known = sources(OPEN, RETRIES)
        for _ in range(turn):
            asked(known, 1, 1)
        found = asked(known, 100, 7)
        assert found.get(RETRIES, 0) <= 7
        assert found[OPEN] >= 93
    assert RETRIES not in asked(sources(OPEN, RETRIES), 100, 0)


@pytest.mark.req("BJ-15")
def test_while_none_waits_retries_may_have_every_slot() -> None:
    assert asked(sources(RETRIES), 100, 0) == {RETRIES: 100}


@pytest.mark.req("BJ-15")
def test_what_first_attempts_did_not_take_is_offered_to_retries_at_once() -> None:
    known = sources(OPEN, RETRIES)
    asked(known, 100, 0)
    assert known.more
    given_(known, OPEN, 5, of=100)
    assert asked(known, 95, 0, now=ABOUT_S + 1) == {RETRIES: 95}


def test_nothing_is_asked_again_at_once_while_first_attempts_have_nothing_to_ask_for() -> None:
    known = sources(OPEN, RETRIES)
    known.set_aside(OPEN, 5.0)
    assert asked(known, 0, 0, now=1.0) == {}
    assert not known.more


@pytest.mark.req("BJ-15")
def test_slots_are_kept_from_retries_while_first_attempts_are_about_so_that_the_next_one_starts_at_once() -> None:
    known = sources(RETRIES)
    known.hinted()
    asked(known, 100, 30, now=100.0, kept=6)
    given_(known, OPEN, 1, of=94)
    assert asked(known, 50, 0, now=101.0, kept=6) == {RETRIES: 44}
    assert asked(known, 6, 0, now=101.0, kept=6) == {}
    assert asked(known, 6, 0, now=101.0 + ABOUT_S, kept=6) == {RETRIES: 6}


@pytest.mark.req("BJ-15")
@pytest.mark.parametrize("place", [LANE, LIMIT])
def test_another_gate_that_gave_retries_is_one_of_theirs_until_it_gives_none(place: Place) -> None:
    known = sources(OPEN, place)

    def most() -> int:
        return max(asked(known, 100, 3).get(place, 0) for _turn in range(4))

    assert most() > 3
    given_(known, place, 5, attempt=2)
    assert most() == 3
    given_(known, place, 3, attempt=1)
    assert most() > 3


@pytest.mark.req("BJ-15")
def test_new_rows_have_every_second_turn_however_many_destinations_have_gathered_rows() -> None:
    lanes = [("q", f"lane:{n}.example.com") for n in range(20)]
    known = sources(OPEN, *lanes)
    turns = [next(iter(asked(known, 1, 1))) for _ in range(80)]
    assert Counter(turns) == {OPEN: 40, **dict.fromkeys(lanes, 2)}


@pytest.mark.req("BJ-15")
@pytest.mark.parametrize("looks", range(1, 5))
def test_retries_have_their_turn_however_many_looks_find_no_slot_free_between_two_claims(looks: int) -> None:
    known = sources(OPEN, RETRIES)
    turns: Counter[Place] = Counter()
    for _ in range(20):
        turns.update(asked(known, 1, 1))
        for _look in range(looks):
            assert asked(known, 0, 1) == {}
    assert turns == {OPEN: 10, RETRIES: 10}


def test_a_limit_that_lets_a_row_pass_now_and_then_takes_no_turn_from_retries() -> None:
    known = sources(OPEN, RETRIES)
    turns: Counter[Place] = Counter()
    for _ in range(20):
        turns.update(asked(known, 1, 1))
        known.opened(*LIMIT)
        assert asked(known, 1, 1) == {LIMIT: 1}
        given_(known, LIMIT, 0, of=1)
    assert turns == {OPEN: 10, RETRIES: 10}


@pytest.mark.req("BJ-15")
def test_a_queue_that_is_busy_does_not_take_the_turns_of_another() -> None:
    known = Sources(["q", "p"], (), ["noop"])
    for gate in ("", RETRY_GATE):
        known.opened("p", gate)
        known.opened("q", gate)
    turns: Counter[Place] = Counter()
    for n in range(40):  # q has a free slot in every second round, p in each
        free = {"p": Slots(1, retries=1), "q": Slots(n % 2, retries=1)}
        asks = known.wanted(0.0, free.__getitem__, 1000)
        turns.update((ask.queue, ask.gate) for ask in asks)
    assert turns == {("p", ""): 20, ("p", RETRY_GATE): 20, ("q", ""): 10, ("q", RETRY_GATE): 10}


def test_rows_that_ripen_are_asked_for_where_they_stand_now() -> None:
    known = sources()
    known.ripened([Ripe("q", 2, 5, None, 1_000.0, None)], 0.0, 100)
    assert asked(known, 10, 3) == {RETRIES: 10}
    known = sources()
    known.ripened([Ripe("q", 2, 5, 1_000.0, 1_000.0, None)], 0.0, 100)
    assert asked(known, 10, 3) == {OPEN: 10}
    assert asked(known, 10, 3) == {OPEN: 7, RETRIES: 3}


def test_a_retry_that_went_back_at_once_is_asked_for_at_its_gate() -> None:
    known = sources()
    known.returned(Job(1, 1, "noop", "q", 2, 1, "{}", 0.0), RETRY_GATE, None)
    assert asked(known, 10, 3) == {RETRIES: 10}


# --- whatever happens -------------------------------------------------------------------------------------------------


class World:
    """A queue as the database has it, and what a claimer does with it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.known = sources()
        self.rows: dict[Place, deque[int]] = {place: deque() for place in (OPEN, RETRIES, LANE)}
        self.running: list[int] = []  # attempts
        self.now = 100.0
        self._id = 0

    @property
    def retries(self) -> int:
        return sum(attempt > 1 for attempt in self.running)

    def insert(self, place: Place, attempts: list[int]) -> None:
        self.rows[place] += attempts
        if not attempts:
            return
        if place == OPEN:
            self.known.hinted()
        else:
            self.known.opened(*place)

    def slots(self, _queue: str) -> Slots:
        retries = max(0, for_retries(self.limit) - self.retries)
        return Slots(self.limit - len(self.running), self.limit // 16, retries=retries)

    def claim(self) -> None:
        """Rounds until one finds nothing to ask for."""
        for _ in range(1000):
            asks = self.known.wanted(self.now, self.slots, 250)
            rows, waited, late = [], len(self.rows[OPEN]), self.known_to_fail()
            before = self.retries
            for ask in asks:
                for _ in range(ask.slots):
                    if not (here := self.rows[ask.queue, ask.gate]):
                        break
                    self._id += 1
                    rows.append(Job(self._id, 1, "noop", "q", 2, here.popleft(), "{}", 0.0, gate=ask.gate, worker_id=1))
            self.known.claimed(asks, rows)
            self.running += [job.attempt for job in rows]
            if waited and self.rows[OPEN] and (late or not any(job.gate == LANE[1] for job in rows)):
                assert self.retries <= max(before, for_retries(self.limit)), "first attempts wait"
            if not rows and not self.known.more:
                return
        raise AssertionError("it never comes to rest")

    def known_to_fail(self) -> bool:
        state = self.known._states.get(LANE)
        return state is not None and state.fails


moves = st.lists(
    st.tuples(
        st.lists(st.just(1), max_size=12),  # first attempts
        st.lists(st.integers(2, 3), max_size=20),  # retries
        st.lists(st.integers(1, 2), max_size=8),  # at a lane's gate, of both
        st.integers(0, 30),  # of the running ones that end
        st.floats(0.0, 20.0),
    ),
    max_size=12,
)


@given(st.integers(1, 40), moves)
def test_retries_never_hold_more_than_their_share_while_first_attempts_wait_and_no_slot_is_idle_for_them(
    limit: int, moves: list[tuple[list[int], list[int], list[int], int, float]]
) -> None:
    world = World(limit)
    for first, retries, of_lane, ends, passes_s in moves:
        world.insert(OPEN, first)
        world.insert(RETRIES, retries)
        world.insert(LANE, of_lane)
        world.claim()
        free = limit - len(world.running)
        assert not world.rows[OPEN] or not free, "a slot is free and a first attempt waits"
        assert not any(world.rows.values()) or free <= limit // 16, "and none but those that are kept"
        del world.running[: min(ends, len(world.running))]
        world.now += passes_s
    world.now += ABOUT_S + 1
    world.claim()
    world.now += ABOUT_S + 1
    world.claim()
    assert not any(world.rows.values()) or len(world.running) == limit
