"""Each answer and each silence has one verdict."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobs.model import Dead, Done, Retry, Snooze
from jobs.values import duration
from jobs.webhook.faults import OURS, SENTENCES, Fault
from jobs.webhook.judge import Gone, Verdict, judge_fault, judge_status
from jobs.webhook.settings import WebhookSettings

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SETTINGS = WebhookSettings()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_2xx_is_done(status: int) -> None:
    verdict = judge_status(status, {}, SETTINGS, NOW)
    assert (verdict.word, verdict.code) == ("ok", f"http_{status}")
    assert isinstance(verdict.outcome, Done)
    assert verdict.outcome.result == {"status": status}


@pytest.mark.req("BJ-15")
@pytest.mark.parametrize(
    "status", [101, 400, 401, 403, 404, 405, 408, 413, 415, 422, 425, 429, 451, 500, 502, 503, 599]
)
def test_every_other_answer_is_tried_again(status: int) -> None:
    verdict = judge_status(status, {}, SETTINGS, NOW)
    assert (verdict.word, verdict.code) == ("retry", f"http_{status}")
    assert isinstance(verdict.outcome, Retry)
    assert (verdict.outcome.code, verdict.outcome.after_s) == (f"http_{status}", None)


@pytest.mark.parametrize("gone", ["confirm", "immediate"])
def test_410_ends_the_job_and_is_told_of_the_endpoint(gone: Gone) -> None:
    verdict = judge_status(410, {"retry-after": "5"}, SETTINGS, NOW, gone)
    assert (verdict.word, verdict.code, verdict.plea) == ("dead", "http_410", "gone")
    assert isinstance(verdict.outcome, Dead)


def test_410_may_be_taken_as_any_other_failure() -> None:
    verdict = judge_status(410, {}, SETTINGS, NOW, "ignore")
    assert (verdict.word, verdict.code, verdict.plea) == ("retry", "http_410", None)
    assert isinstance(verdict.outcome, Retry)


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
@pytest.mark.parametrize(("wish", "plea"), [("abort-message", None), (" Disable ", "disable")])
def test_a_wish_about_delivery_is_obeyed_at_once_where_the_operator_says_so(
    wish: str, plea: str | None, status: int
) -> None:
    headers = {"webhook-delivery": wish, "retry-after": "5"}
    verdict = judge_status(status, headers, WebhookSettings(obey_delivery_header=True), NOW)
    assert (verdict.word, verdict.code, verdict.plea) == ("dead", wish.strip().lower(), plea)
    assert isinstance(verdict.outcome, Dead)
    unheard = judge_status(status, headers, SETTINGS, NOW)
    assert _told(unheard) == _told(judge_status(status, {"retry-after": "5"}, SETTINGS, NOW))


def _told(verdict: Verdict) -> tuple[object, ...]:
    return verdict.word, verdict.code, verdict.plea, type(verdict.outcome), vars(verdict.outcome)


def test_a_receiver_that_took_the_message_may_still_want_no_more() -> None:
    obeying = WebhookSettings(obey_delivery_header=True)
    for wish, plea in (("disable", "disable"), ("abort-message", None), ("unheard-of", None)):
        verdict = judge_status(200, {"webhook-delivery": wish}, obeying, NOW)
        assert (verdict.word, verdict.plea) == ("ok", plea)
        assert isinstance(verdict.outcome, Done)


def test_a_status_the_operator_calls_permanent_ends_the_job() -> None:
    strict = WebhookSettings(permanent_statuses=(404,))
    assert isinstance(judge_status(404, {}, strict, NOW).outcome, Dead)
    assert isinstance(judge_status(403, {}, strict, NOW).outcome, Retry)


@pytest.mark.parametrize("status", [429, 503, 500, 307])
def test_a_pause_asked_for_is_passed_on(status: int) -> None:
    outcome = judge_status(status, {"retry-after": "90"}, SETTINGS, NOW).outcome
    assert isinstance(outcome, Retry)
    assert outcome.after_s == 90.0


def test_a_pause_is_held_to_the_settings_maximum() -> None:
    short = WebhookSettings(retry_after_max=duration("1m"))
    outcome = judge_status(503, {"retry-after": "90"}, short, NOW).outcome
    assert isinstance(outcome, Retry)
    assert outcome.after_s == 60.0


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("https://user:pw@other.example:8443/path?token=x", "other.example"),
        ("/elsewhere", "the same host"),
        ("", "the same host"),
        ("http://[::1", "an unreadable location"),
        ("http://a\x00b/", "a\ufffdb"),
    ],
)
def test_a_redirect_names_the_host_and_no_more(location: str, host: str) -> None:
    verdict = judge_status(302, {"location": location}, SETTINGS, NOW)
    assert (verdict.word, verdict.code) == ("retry", "redirect_not_followed")
    assert isinstance(verdict.outcome, Retry)
    assert verdict.outcome.reason == f"redirect_not_followed: {host}"


@pytest.mark.parametrize("code", sorted(SENTENCES))
def test_each_fault_has_a_verdict_that_depends_on_what_was_sent(code: str) -> None:
    before, after = judge_fault(Fault(code), sent=False), judge_fault(Fault(code), sent=True)
    assert before.code == after.code == code
    match code:
        case "blocked":
            assert before.word == "blocked"
            assert isinstance(before.outcome, Dead)
        case "bad_url" | "bad_request":
            assert before.word == "dead"
            assert isinstance(before.outcome, Dead)
        case _ if code in OURS:  # what is our own fault is not charged to the message
            assert before.word == "retry"
            assert isinstance(before.outcome, Snooze)
            assert after.word == "unknown"  # the receiver may have acted on it, so it counts
            assert isinstance(after.outcome, Retry)
            assert after.outcome.lane_fault is None
        case _:
            assert (before.word, after.word) == ("retry", "unknown")
            assert isinstance(before.outcome, Retry)
            assert isinstance(after.outcome, Retry)
