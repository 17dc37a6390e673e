"""What is noted of endpoints: what they are to blame for, and what changes something."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.model import Dead, Done, Retry, Snooze
from jobs.webhook.endpoints import Endpoint
from jobs.webhook.health import MESSAGES, Health
from jobs.webhook.judge import Verdict

pytestmark = pytest.mark.req("BJ-15")

FIVE_DAYS, HOUR = 432_000.0, 3600.0
OK = Verdict("ok", "http_204", Done())
BAD = Verdict("retry", "http_500", Retry("500", code="http_500"))
GONE = Verdict("dead", "http_410", Dead("gone", code="http_410"), "gone")


def an_endpoint(**known: Any) -> Endpoint:
    base: dict[str, Any] = {"id": 7, "org_id": None, "name": "a", "url": "https://a.example/", "headers": {}}
    base |= {"signing": (), "timeout_s": None, "gone": "confirm", "client_certificate": None, "template": None}
    return Endpoint(**(base | {"content_type": None, "enabled": True, "secrets": ()} | known))


def noted(*verdicts: Verdict, now: float = 0.0, patience_s: float = FIVE_DAYS, **known: Any) -> list[dict[str, Any]]:
    health, to = Health(clock=lambda: now), an_endpoint(**known)
    for n, verdict in enumerate(verdicts):
        health.note(to, f"m{n}", verdict, patience_s)
    assert health.noted.is_set() == bool(health._said)
    return health.take()


def test_where_all_goes_well_nothing_is_noted() -> None:
    assert noted(OK, OK) == []


def test_failures_are_counted_and_their_messages_up_to_three() -> None:
    (said,) = noted(*[BAD] * 10)
    assert (said["id"], said["ok"], said["failures"], len(said["messages"])) == (7, False, 10, MESSAGES)


def test_a_success_takes_back_what_failed_before_it() -> None:
    (said,) = noted(BAD, OK, BAD)
    assert (said["ok"], said["failures"], said["messages"]) == (True, 1, ["m2"])


def test_a_success_takes_back_that_it_is_gone_and_not_that_it_wants_no_more() -> None:
    no_more = Verdict("dead", "disable", Dead("no more", code="disable"), "disable")
    assert [said["plea"] for said in noted(GONE, OK)] == [None]
    assert [said["plea"] for said in noted(no_more, OK, GONE)] == ["disable"]


@pytest.mark.parametrize("known", [{"failing_since": 1.0}, {"is_doubted": True}])
def test_a_success_is_told_of_one_that_has_failed(known: dict[str, Any]) -> None:
    (said,) = noted(OK, **known)
    assert said["ok"]


@pytest.mark.parametrize(
    "ours",
    [
        Verdict("retry", "no_sockets", Snooze("ours", after=1.0, code="no_sockets")),
        Verdict("unknown", "interrupted", Retry("stopped", code="interrupted")),
        Verdict("unknown", "local_error", Retry("ours", code="local_error")),
    ],
)
def test_what_is_our_own_fault_is_not_the_endpoints(ours: Verdict) -> None:
    assert noted(ours) == []


@pytest.mark.parametrize(
    ("hours", "warned_at_hour", "wanted"),
    [
        (1, None, False),
        (25, None, True),
        (25, 24, False),
        (70, 24, False),
        (73, 24, True),
        (73, 72, False),
        (121, 72, True),
    ],
)
def test_one_that_is_known_to_fail_is_told_of_when_there_is_something_to_decide(
    hours: float, warned_at_hour: float | None, wanted: bool
) -> None:
    warned_at = None if warned_at_hour is None else warned_at_hour * HOUR
    told = noted(BAD, now=hours * HOUR, failing_since=0.0, warned_at=warned_at, is_well_known=True)
    assert bool(told) == wanted
    assert noted(BAD, now=hours * HOUR, failing_since=0.0, is_well_known=True, patience_s=0.0) == []


def test_a_410_is_always_told_with_its_message() -> None:
    (said,) = noted(BAD, GONE, BAD, failing_since=0.0, is_well_known=True)
    assert (said["plea"], said["message"]) == ("gone", "m1")
