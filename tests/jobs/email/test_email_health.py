from __future__ import annotations

from jobs.email.health import LOGIN_REST_S, Rest


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
