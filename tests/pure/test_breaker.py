"""A destination that fails is left alone within its budget, and one that is well is always found to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.breaker import STALE_S, Breaker, budget, open_s
from daemon.work_settings import LaneSettings
from jobs.values import Duration

PLAIN = LaneSettings()


def a_breaker(**settings: object) -> Breaker:
    return Breaker.of(LaneSettings(**settings), 0.0)  # type: ignore[arg-type]


def attempt(breaker: Breaker, fault: bool | None, now: float = 0.0) -> float | None:
    breaker.started(now)
    return breaker.ended(fault, now, 0.5)


def test_it_closes_after_so_many_failures_in_a_row() -> None:
    breaker = a_breaker(failures=3)
    assert [attempt(breaker, fault) for fault in (True, True, False, True, True)] == [None] * 5
    assert attempt(breaker, True) == 30.0


def test_what_tells_nothing_neither_counts_nor_ends_a_row_of_failures() -> None:
    breaker = a_breaker(failures=2)
    assert [attempt(breaker, fault) for fault in (True, None, None)] == [None] * 3
    assert attempt(breaker, True) == 30.0


def test_it_closes_by_the_share_of_failures_within_its_window() -> None:
    breaker = a_breaker(failures=100, ratio=0.5, ratio_of=4, window=60.0)
    assert [attempt(breaker, fault, 1.0) for fault in (True, False, False)] == [None] * 3
    assert attempt(breaker, True, 2.0) == 30.0


def test_failures_long_ago_do_not_count_in_the_share() -> None:
    breaker = a_breaker(failures=100, ratio=0.5, ratio_of=4, window=60.0)
    assert [attempt(breaker, True, 1.0) for _ in range(3)] == [None] * 3
    assert [attempt(breaker, fault, 100.0) for fault in (False, False, False, True)] == [None] * 4


def test_one_that_is_switched_off_never_closes_and_holds_nobody_back() -> None:
    breaker = a_breaker(enabled=False, failures=1)
    assert [attempt(breaker, True) for _ in range(50)] == [None] * 50
    assert breaker.room(0.0) is None


def test_one_that_is_closed_lets_in_nothing_but_a_granted_probe() -> None:
    breaker = a_breaker()
    breaker.close(30.0, 0)
    assert breaker.room(1000.0) == 0
    breaker.granted = True
    assert breaker.room(1000.0) == 1


def test_what_was_under_way_when_it_closed_tells_nothing_new() -> None:
    breaker = a_breaker(failures=2)
    for _ in range(10):
        breaker.started(0.0)
    assert [breaker.ended(True, 1.0, 0.5) for _ in range(2)] == [None, 30.0]
    breaker.close(31.0, 0)
    assert [breaker.ended(True, 2.0, 0.5) for _ in range(8)] == [None] * 8
    assert breaker.in_flight == 0


def test_one_that_was_opened_starts_with_one_and_doubles() -> None:
    breaker = a_breaker()
    breaker.close(30.0, 0)
    breaker.open(31.0)
    rooms = []
    for _ in range(5):
        room = breaker.room(31.0)
        assert room is not None
        rooms.append(room)
        for _ in range(room):
            breaker.started(31.0)
        for _ in range(room):
            breaker.ended(False, 31.0, 0.5)
    assert rooms == [1, 2, 4, 8, 16]


def test_an_unknown_destination_starts_with_a_few_until_it_has_answered() -> None:
    breaker = a_breaker(start=4)
    assert breaker.room(0.0) == 4
    for _ in range(4):
        breaker.started(0.0)
    assert breaker.room(0.0) == 0
    breaker.ended(False, 0.1, 0.5)
    assert breaker.room(0.1) == 2


def at_once(breaker: Breaker, faults: list[bool], now: float = 0.0) -> None:
    """So many attempts beside each other, which end one after another."""
    for _ in faults:
        breaker.started(now)
    for fault in faults:
        breaker.ended(fault, now, 0.5)


@pytest.mark.req("BJ-15")
def test_one_overload_halves_it_once_however_many_fail_of_it() -> None:
    breaker = a_breaker(start=16, failures=100, ratio=1.0)
    at_once(breaker, [False] * 8 + [True] * 8)
    assert breaker.room(0.0) == 12, "it had grown to 24"
    at_once(breaker, [True] * 12)
    assert breaker.room(0.0) == 6


@pytest.mark.req("BJ-15")
def test_from_where_it_was_halved_it_grows_by_one_for_each_windowful() -> None:
    breaker = a_breaker(start=8, failures=100, ratio=1.0)
    at_once(breaker, [True])
    rooms = []
    for _ in range(4):
        room = breaker.room(0.0) or 0
        rooms.append(room)
        at_once(breaker, [False] * room)
    assert rooms == [4, 5, 6, 7]


@pytest.mark.req("BJ-15")
def test_one_that_asked_for_less_is_remembered_to_and_one_that_was_dead_begins_anew() -> None:
    for asked, rooms in ((True, [1, 2, 4, 5, 6]), (False, [1, 2, 4, 8, 16])):
        breaker = a_breaker(start=8, failures=1)
        if asked:
            breaker.throttle()
        else:
            attempt(breaker, True)
        breaker.close(30.0, 0)
        breaker.open(31.0)
        seen = []
        for _ in range(5):
            seen.append(breaker.room(31.0) or 0)
            at_once(breaker, [False] * seen[-1], 31.0)
        assert seen == rooms


@pytest.mark.req("BJ-15")
def test_one_that_is_asked_now_and_then_holds_few_slots_should_it_fall_silent() -> None:
    breaker = a_breaker(start=10)
    for n in range(10_000):
        attempt(breaker, False, float(n))
    assert breaker.room(10_000.0) == 10


@pytest.mark.req("BJ-15")
def test_what_it_was_not_asked_for_lately_is_forgotten_though_it_is_never_idle() -> None:
    breaker = a_breaker(start=10)
    for _ in range(5):
        at_once(breaker, [False] * (breaker.room(1.0) or 0), 1.0)
    assert (breaker.room(1.0) or 0) >= 160
    for n in range(1, 200):
        attempt(breaker, False, float(n))
    assert breaker.room(200.0) == 10


class Throttler:
    """Bears so many at once and refuses what comes beyond it at once; each answer takes a second."""

    def __init__(self, bears: int, breaker: Breaker) -> None:
        self.bears = bears
        self.breaker = breaker
        self.under_way: list[float] = []
        self.answered = self.refused = 0

    def second(self, now: float) -> None:
        """There are rows without end; what ends leaves room for others."""
        due, self.under_way = self.under_way, []
        for _at in due:
            self.answered += 1
            self.breaker.ended(False, now, 0.5)
            self.fill(now)
        self.fill(now)

    def fill(self, now: float) -> None:
        while self.breaker.room(now):
            self.breaker.started(now)
            if len(self.under_way) < self.bears:
                self.under_way.append(now)
            else:
                self.refused += 1
                assert self.breaker.ended(True, now, 0.5) is None, "a destination that answers half of them is not dead"


@pytest.mark.req("BJ-15")
@pytest.mark.parametrize("bears", [3, 10, 50])
def test_one_that_refuses_what_is_too_much_gets_most_of_what_it_bears_and_little_more(bears: int) -> None:
    breaker = a_breaker(start=2)
    server = Throttler(bears, breaker)
    for now in range(300):
        server.second(float(now))
    assert server.answered >= 0.6 * bears * 300
    assert server.refused <= 0.2 * server.answered


def test_each_failure_halves_what_may_be_under_way() -> None:
    breaker = a_breaker(start=16, failures=100)
    rooms = []
    for _ in range(5):
        attempt(breaker, True)
        rooms.append(breaker.room(0.0))
    assert rooms == [8, 4, 2, 1, 1]


def test_what_it_has_shown_is_forgotten_when_it_was_not_used_for_a_while() -> None:
    breaker = a_breaker(start=4)
    for _ in range(4):
        at_once(breaker, [False] * (breaker.room(1.0) or 0), 1.0)
    assert breaker.room(1.0) == 64
    assert breaker.room(1.0 + STALE_S + 1) == 4


def test_its_concurrency_holds_however_well_it_answers() -> None:
    breaker = a_breaker(concurrency=3)
    for _ in range(50):
        attempt(breaker, False, 1.0)
    assert breaker.room(1.0) == 3


def test_it_stays_closed_for_longer_each_time_and_never_too_long() -> None:
    assert [open_s(PLAIN, rung, 0.5) for rung in range(7)] == [30, 60, 120, 240, 480, 600, 600]
    assert open_s(PLAIN, 10**9, 0.5) == 600
    assert open_s(PLAIN, 0, 0.0) == pytest.approx(24)


def test_one_that_fails_again_soon_is_closed_for_longer_and_one_that_was_well_for_long_is_not() -> None:
    breaker = a_breaker(failures=1, window=60.0)
    assert attempt(breaker, True, 0.0) == 30
    breaker.close(30.0, 0)
    breaker.open(31.0)
    assert attempt(breaker, True, 40.0) == 60
    breaker.close(100.0, 1)
    breaker.open(101.0)
    attempt(breaker, False, 200.0)
    assert attempt(breaker, True, 201.0) == 30


def test_a_breaker_is_kept_while_it_remembers_something() -> None:
    breaker = a_breaker(window=600.0)
    attempt(breaker, False, 0.0)
    assert not breaker.forgettable(STALE_S - 1)
    assert breaker.forgettable(STALE_S + 1)
    attempt(breaker, True, 100.0)
    assert not breaker.forgettable(100.0 + STALE_S + 1)
    assert breaker.forgettable(701.0)


# --- whatever happens -------------------------------------------------------------------------------------------------

settings_ = st.builds(
    LaneSettings,
    failures=st.integers(1, 8),
    ratio=st.floats(0.1, 1.0),
    ratio_of=st.integers(2, 20),
    window=st.floats(1, 600).map(Duration),
    open=st.floats(0.5, 60).map(Duration),
    open_max=st.floats(60, 600).map(Duration),
    jitter=st.floats(0, 0.9),
    start=st.integers(1, 30),
)
steps = st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 0.999)), min_size=1, max_size=300)


class World:
    """One destination, its one hold as the database has it, and daemons that start whatever they may."""

    def __init__(self, settings: LaneSettings, daemons: int) -> None:
        self.settings = settings
        self.breakers = [Breaker.of(settings, 0.0) for _ in range(daemons)]
        self.under_way: list[tuple[float, Breaker, bool]] = []
        self.until: float | None = None
        self.rung = 0
        self.probing = False
        self.attempts = self.probes = 0

    def start(self, now: float, takes_s: float) -> None:
        """As many as may: there are rows without end."""
        if self.until is not None:
            if now < self.until or self.probing:
                return
            breaker = self.breakers[self.attempts % len(self.breakers)]
            breaker.close(now, self.rung)
            breaker.granted = True
            assert breaker.room(now) == 1
            breaker.started(now)
            breaker.granted, self.probing = False, True
            self.probes += 1
            self.attempts += 1
            self.under_way.append((now + takes_s, breaker, True))
            return
        for breaker in self.breakers:
            while breaker.room(now):
                breaker.started(now)
                self.attempts += 1
                self.under_way.append((now + takes_s, breaker, False))

    def end(self, now: float, fault: bool, dice: float) -> None:
        ended = [way for way in self.under_way if way[0] <= now]
        self.under_way = [way for way in self.under_way if way[0] > now]
        for _at, breaker, is_probe in ended:
            if is_probe:
                breaker.ended(None, now, dice)
                self.probing = False
                if fault:
                    self._close(now + open_s(self.settings, self.rung + 1, dice), self.rung + 1)
                else:
                    self.until = None
                    for other in self.breakers:
                        other.open(now)
            elif (seconds := breaker.ended(fault, now, dice)) is not None:
                self._close(now + seconds, breaker.rung)

    def _close(self, until: float, rung: int) -> None:
        self.until, self.rung = max(self.until or 0.0, until), rung
        for breaker in self.breakers:
            breaker.close(self.until, rung)


@given(settings_, steps, st.integers(1, 4), st.floats(0.0, 30.0))
def test_a_dead_destination_never_sees_more_than_its_budget(
    settings: LaneSettings, moves: list[tuple[float, float]], daemons: int, takes_s: float
) -> None:
    world, now = World(settings, daemons), 0.0
    for passes_s, dice in moves:
        world.start(now, takes_s)
        assert world.attempts <= budget(settings, now, daemons)
        now += passes_s
        world.end(now, True, dice)


@given(settings_, steps, st.integers(1, 3))
def test_a_destination_that_comes_back_is_always_found_and_soon_has_all_it_may(
    settings: LaneSettings, moves: list[tuple[float, float]], daemons: int
) -> None:
    world, now = World(settings, daemons), 0.0
    for passes_s, dice in moves:
        world.start(now, 0.0)
        now += passes_s
        world.end(now, True, dice)
    now += settings.open_max * 2
    for _ in range(40):  # one more with each windowful, should it have failed when it had next to nothing
        if all((breaker.room(now) or 0) >= 30 for breaker in world.breakers):
            break
        world.start(now, 0.0)
        world.end(now, False, 0.5)
    assert world.until is None
    assert all((breaker.room(now) or 0) >= 30 for breaker in world.breakers)
