"""What an attempt tells of its receiver, beside what it comes to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobs.model import Failure
from jobs.webhook.faults import SENTENCES, Fault
from jobs.webhook.judge import judge_fault, judge_status
from jobs.webhook.settings import WebhookSettings

NOW = datetime(2026, 7, 1, tzinfo=UTC)
OURS = {
    "local_error",
    "pool_timeout",
    "interrupted",
    "proxy_error",
    "proxy_refused",
    "proxy_timeout",
    "proxy_unreachable",
    "resolver_error",
}
OF_THE_ROW = {"blocked", "bad_url", "bad_request"}


def told(status: int, **headers: str) -> tuple[bool | None, float | None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    outcome = judge_status(status, named, WebhookSettings(), NOW).outcome
    assert isinstance(outcome, Failure)
    return outcome.lane_fault, outcome.lane_after_s


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_receiver_that_cannot_is_to_blame(status: int) -> None:
    assert told(status) == (True, None)


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 408, 410, 422, 425])
def test_a_receiver_that_answers_about_this_row_is_well(status: int) -> None:
    assert told(status) == (False, None)
    assert told(status, retry_after="60") == (False, None)


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_is_meant_for_all_of_its_rows(status: int) -> None:
    assert told(status, retry_after="60") == (True, 60.0)


def test_a_retry_after_of_another_error_is_meant_for_this_row() -> None:
    assert told(500, retry_after="60") == (True, None)


@pytest.mark.parametrize("code", sorted(SENTENCES))
def test_silence_is_the_receivers_fault_unless_it_is_ours_or_the_rows(code: str) -> None:
    outcome = judge_fault(Fault(code), sent=False).outcome
    assert isinstance(outcome, Failure)
    assert outcome.lane_fault is (None if code in OURS | OF_THE_ROW else True)
