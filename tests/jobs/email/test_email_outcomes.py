from __future__ import annotations

from typing import Any

import pytest

from jobs.email.decide import decide
from jobs.email.judge import Verdict
from jobs.model import Dead, Done, Outcome, Retry, Snooze

DELIVERED, SOFT, HARD = Verdict("delivered", "delivered"), Verdict("soft", "smtp_451"), Verdict("hard", "bad_recipient")
GREY, UNKNOWN, DEFERRED = (
    Verdict("soft", "greylisted"),
    Verdict("unknown", "lost_after_dot"),
    Verdict("deferred", "relay_tls"),
)


def outcome(*verdicts: Verdict, **given: Any) -> Outcome:
    named = {f"{n}@x.example": verdict for n, verdict in enumerate(verdicts)}
    usual: dict[str, Any] = {"attempt": 1, "after_s": 0.0, "asked_before": (), "dice": 0.0}
    return decide(named, **usual | given)


def test_a_message_that_everybody_has_is_done() -> None:
    said = outcome(DELIVERED, DELIVERED)
    assert isinstance(said, Done)
    assert said.result == {"recipients": {"0@x.example": "delivered", "1@x.example": "delivered"}}


def test_a_message_that_one_can_never_have_is_dead_and_says_who_has_it() -> None:
    said = outcome(DELIVERED, HARD)
    assert isinstance(said, Dead)
    assert (said.code, said.result["recipients"]["0@x.example"]) == ("bad_recipient", "delivered")
    assert "1 of 2 recipients" in said.reason


def test_as_long_as_one_may_have_it_later_it_is_tried_again() -> None:
    assert isinstance(outcome(DELIVERED, HARD, SOFT), Retry)


@pytest.mark.parametrize(("attempt", "after_s"), [(1, 300), (2, 900), (3, None)])
def test_greylisting_is_given_5_then_15_minutes_before_the_slow_ladder(attempt: int, after_s: float | None) -> None:
    said = outcome(GREY, attempt=attempt)
    assert isinstance(said, Retry)
    assert said.after_s == after_s


def test_the_relays_own_trouble_costs_no_attempt() -> None:
    said = outcome(SOFT, DEFERRED, after_s=40.0)
    assert isinstance(said, Snooze)
    assert said.after_s == pytest.approx(40.0)
    late = outcome(DEFERRED, after_s=40.0, dice=1.0)
    assert isinstance(late, Snooze)
    assert late.after_s == pytest.approx(48.0)


def test_a_spent_quota_waits_longer_than_a_spent_rate() -> None:
    waits = []
    for after_s in (60.0, 3600.0):
        said = outcome(Verdict("deferred", "relay_quota", after_s))
        assert isinstance(said, Snooze)
        waits.append(said.after_s)
    assert waits == [pytest.approx(60), pytest.approx(3600)]


def test_an_unanswered_message_is_sent_once_more_and_marked() -> None:
    said = outcome(DELIVERED, UNKNOWN)
    assert isinstance(said, Retry)
    assert said.detail is not None
    assert said.detail["possible_duplicate"] == {"1@x.example": "lost_after_dot"}


def test_an_unanswered_message_is_not_sent_a_third_time() -> None:
    said = outcome(DELIVERED, UNKNOWN, asked_before=["1@x.example"])
    assert isinstance(said, Dead)
    assert said.code == "lost_after_dot"


@pytest.mark.parametrize("verdict", [SOFT, HARD, GREY])
def test_a_relay_that_refuses_a_row_for_its_own_sake_is_well(verdict: Verdict) -> None:
    said = outcome(verdict)
    assert isinstance(said, Retry | Dead)
    assert said.lane_fault is False


def test_a_relay_that_breaks_off_or_never_answers_tells_nothing() -> None:
    for verdict in (UNKNOWN, Verdict("soft", "connection_lost")):
        said = outcome(verdict)
        assert isinstance(said, Retry)
        assert (said.lane_fault, said.lane_after_s) == (None, None)


def test_a_relay_in_trouble_is_left_alone_by_all_rows() -> None:
    said = outcome(DEFERRED, after_s=40.0)
    assert isinstance(said, Snooze)
    assert (said.lane_fault, said.lane_after_s, said.lane_cause) == (True, 40.0, "retry_after")
    at_once = outcome(DEFERRED)
    assert isinstance(at_once, Snooze)
    assert (at_once.lane_fault, at_once.lane_after_s) == (True, None)


def test_a_spent_quota_is_said_to_be_one() -> None:
    said = outcome(Verdict("deferred", "relay_quota", 3600.0))
    assert isinstance(said, Snooze)
    assert (said.lane_after_s, said.lane_cause) == (3600.0, "quota")


@pytest.mark.parametrize("code", ["relay_rate", "relay_busy", "stopped"])
def test_a_limit_of_our_own_tells_nothing_of_the_relay(code: str) -> None:
    said = outcome(Verdict("deferred", code), after_s=5.0)
    assert isinstance(said, Snooze)
    assert (said.lane_fault, said.lane_after_s) == (None, None)
