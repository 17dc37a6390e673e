"""The law of a rate: in no window more than burst + rate × time, however late, dead or forgetful the daemons are."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.windows import most_beyond, most_within
from daemon.limits import Bucket
from daemon.slices import Hand, Return
from tests.examples import examples
from tests.limits_model import Model

DAEMONS = 4


def test_the_yardsticks_measure() -> None:
    assert most_beyond([0.0, 0.0, 0.0, 1.0, 2.0], rate=1) == 3
    assert most_beyond([0.0, 5.0, 5.0, 5.0, 5.0, 6.0], rate=1) == 4
    assert most_within([0.0, 0.5, 0.9, 1.0, 1.4], 1.0) == 4
    assert most_within([], 1.0) == 0


@dataclass
class Step:
    """What one daemon does `after_s` after the step before."""

    daemon: int
    after_s: float
    does: str
    count: int
    out_s: float  # on the way to the database
    home_s: float  # and back


@dataclass
class Fleet:
    """Daemons, each with a clock of its own, and one bucket; `now` is the database's."""

    bucket: Bucket
    model: Model = field(init=False)
    now: float = 1e9
    starts: list[float] = field(default_factory=list)
    travelling: list[Return] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = Model(self.bucket)
        self.hands = [Hand(self.bucket) for _ in range(DAEMONS)]
        self.busy_until = [0.0] * DAEMONS

    def clock(self, daemon: int) -> float:
        return self.now - 1e9 + 1000.0 * daemon

    def do(self, step: Step) -> None:
        self.now += step.after_s
        hand, daemon = self.hands[step.daemon], step.daemon
        self.now = max(self.now, self.busy_until[daemon])
        match step.does:
            case "lease":
                self.lease(step, hand)
            case "start at the last moment":
                self.wait(daemon, self.moments(daemon, "void_at"))
                self.start(daemon, step.count)
            case "start at the first moment":
                self.wait(daemon, self.moments(daemon, "start_at"))
                self.start(daemon, step.count)
            case "start":
                self.start(daemon, step.count)
            case "keep":
                self.travelling += hand.going_back(self.clock(daemon), waited_for=True)
            case "give back":
                self.travelling += hand.going_back(self.clock(daemon), waited_for=False, all_of_it=step.count > 2)
            case "start and tell":
                self.start(daemon, step.count)
                for piece in hand.going_back(self.clock(daemon), waited_for=True):
                    self.model.give_back(piece)
            case "die":
                self.hands[daemon] = Hand(self.bucket)
            case "arrive":
                for piece in self.travelling:
                    self.model.give_back(piece)
                self.travelling = []
            case "get lost":
                self.travelling = []

    def lease(self, step: Step, hand: Hand) -> None:
        leased = self.model.lease(self.now, step.count)
        clock = self.clock(step.daemon)
        hand.take_in((step.count, 0), leased, clock - step.out_s, clock + step.home_s)
        self.busy_until[step.daemon] = self.now + step.home_s

    def moments(self, daemon: int, which: str) -> list[float]:
        return [getattr(piece, which) for piece in self.hands[daemon]._slices]

    def wait(self, daemon: int, clocks: list[float]) -> None:
        ahead = [at - self.clock(daemon) for at in clocks if at > self.clock(daemon)]
        self.now += min(ahead, default=0.0)

    def start(self, daemon: int, count: int) -> None:
        clock = self.clock(daemon)
        count = min(count, self.hands[daemon].usable(clock))
        self.hands[daemon].spend(count, clock)
        self.starts += [self.now] * count


DOES = {
    "lease": 8,
    "start": 6,
    "start at the first moment": 5,
    "start at the last moment": 5,
    "start and tell": 6,
    "keep": 3,
    "give back": 2,
    "arrive": 4,
    "die": 1,
    "get lost": 1,
}


def some_step(dice: random.Random, bucket: Bucket) -> Step:
    assert bucket.token_s is not None
    assert bucket.burst is not None
    after_s = dice.choice([0.0, 0.0, 0.0, 0.0, 0.001, 0.02, 0.1, bucket.token_s / 3, bucket.token_s])
    if dice.random() < 0.03:
        after_s = bucket.burst * bucket.token_s
    (does,) = dice.choices(list(DOES), list(DOES.values()))
    count = dice.choice([1, 2, bucket.burst, bucket.burst])
    return Step(
        dice.randrange(DAEMONS), after_s, does, count, *dice.choices([0.0, 0.001, 0.03, 0.4], [9, 9, 3, 1], k=2)
    )


@pytest.mark.req("JP-08")
@pytest.mark.parametrize("burst", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("rate", [20 / 86400, 1.0, 10.0, 40.0, 1000.0])
@settings(max_examples=examples(20))
@given(seed=st.integers(0, 2**32))
def test_in_no_window_do_more_start_than_burst_and_rate_allow(rate: float, burst: int, seed: int) -> None:
    bucket = Bucket("l", "", 1 / rate, burst, None)
    fleet, dice = Fleet(bucket), random.Random(seed)
    steps = 0
    while steps < 300 or not fleet.starts:
        fleet.do(some_step(dice, bucket))
        steps += 1
    # the clock's own grain, at 1e9 s, is 1e-7 s: with it a window is longer than it looks
    assert most_beyond(fleet.starts, rate) <= burst + 1e-5 * rate + 1e-6


@pytest.mark.parametrize(("rate", "burst"), [(10.0, 10), (10.0, 2), (100.0, 10), (1.0, 1), (10.0, 1), (5000.0, 5000)])
def test_four_daemons_with_work_use_the_limit_to_the_full(rate: float, burst: int) -> None:
    """Each asks when it may and starts what it can, every 2 ms, over 3 ms of network; one dies each 2 seconds."""
    fleet = Fleet(Bucket("l", "", 1 / rate, burst, None))
    began, seconds = fleet.now, 20.0
    waiting: list[tuple[float, Return]] = []
    turn = 0
    while fleet.now < began + seconds:
        turn += 1
        daemon = turn % DAEMONS
        hand, clock = fleet.hands[daemon], fleet.clock(daemon)
        if turn % 4000 == 0:
            fleet.do(Step(daemon, 0.0, "die", 1, 0.0, 0.0))
            continue
        fleet.start(daemon, 1000)
        waiting += [(fleet.now + 0.0015, piece) for piece in hand.going_back(clock, waited_for=True)]
        for due, piece in list(waiting):
            if due <= fleet.now:
                fleet.model.give_back(piece)
                waiting.remove((due, piece))
        tokens, _places = hand.wish(clock)
        if tokens:
            fleet.do(Step(daemon, 0.0, "lease", tokens, 0.0015, 0.0015))
        fleet.now += 0.0005
    assert most_beyond(fleet.starts, rate) <= burst + 1e-5 * rate
    assert len(fleet.starts) >= (0.95 if burst > 1 else 0.9) * rate * seconds
