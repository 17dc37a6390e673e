from __future__ import annotations

import bisect
import random

import pytest

from jobs.email.health import LOGIN_REST_S, Rest
from jobs.email.pace import Pace
from jobs.values import rate


def drive(pace: Pace, dice: random.Random, count: int) -> list[float]:
    """When each of `count` messages went: some arrive together, some after a pause, each woken a little late."""
    now, sent = 0.0, []
    for _ in range(count):
        now += dice.choice([0.0, 0.0, 0.0, 0.001, 0.3, 5.0])
        while wait_s := pace.wait_s(now):
            now += wait_s + dice.choice([0.0, 0.0, 0.004])
        pace.spend(now)
        sent.append(now)
    return sent


@pytest.mark.req("BJ-21")
@pytest.mark.parametrize(
    ("text", "burst", "most", "window_s"),
    [("50/s", None, 50, 1.0), ("50/s", 5, 50, 1.0), ("50/s", 1, 50, 1.0), ("7/s", 3, 7, 1.0), ("90/m", 10, 90, 60.0),
     ("0.5/s", None, 1, 2.0), ("2.5/s", None, 2, 1.0), ("1/s", None, 1, 1.0)],
)  # fmt: skip
def test_no_window_has_more_than_the_rate(text: str, burst: int | None, most: int, window_s: float) -> None:
    for seed in range(20):
        sent = drive(Pace(rate(text), burst), random.Random(seed), 500)
        for number, start in enumerate(sent):
            # the end is exclusive; 1 ns is what adding floats may lose
            assert bisect.bisect_left(sent, start + window_s - 1e-9) - number <= most


def test_a_burst_is_what_goes_at_once_and_the_rest_is_spaced() -> None:
    pace, now = Pace(rate("10/s"), 3), 0.0
    sent = []
    for _ in range(6):
        now += pace.wait_s(now)
        pace.spend(now)
        sent.append(round(now, 9))
    assert sent == [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]


def test_a_steady_sender_gets_the_whole_rate() -> None:
    pace, now, count = Pace(rate("50/s")), 0.0, 0
    while now < 60.0:
        now += pace.wait_s(now) + 0.001  # each wake is late
        pace.spend(now)
        count += 1
    assert count >= 0.97 * 50 * 60


def test_a_relay_that_keeps_failing_rests_longer_and_is_forgiven_at_once() -> None:
    rest, now, rests = Rest(), 0.0, []
    for _ in range(7):
        rest.failed(now)
        rests.append(rest.left_s(now))
        rest.failed(now + 1)  # was under way when the rest began
        now += rest.left_s(now)
    assert rests == [10, 20, 40, 80, 160, 300, 300]
    rest.worked()
    rest.failed(now)
    assert rest.left_s(now) == 10


def test_a_refused_login_rests_longest_at_once() -> None:
    rest = Rest()
    rest.failed(0.0, at_least_s=LOGIN_REST_S)
    assert rest.left_s(0.0) == LOGIN_REST_S
