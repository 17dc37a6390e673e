"""Which retry policy and deadline a job gets."""

from __future__ import annotations

import pytest

from daemon.config import parse
from daemon.pattern import most_specific
from daemon.retry_policy import overlaid
from daemon.work_settings import LimitSettings, RetrySettings
from jobs.model import DEFAULT_POLICY, Exponential, Fixed, Ladder, Policy
from jobs.values import Duration, rate

DECLARED = Ladder("1m", "5m", "30m", "2h")

TEXT = """
[kinds.patched]
attempts = 3
timeout = "10s"
[kinds.replaced]
retry = ["1s"]
[queues.slow]
backoff = "fixed"
delay = "1m"
attempts = 4
timeout = "1h"
"""


@pytest.mark.req("OR-07")
@pytest.mark.parametrize(
    ("kind", "queue", "declared", "policy"),
    [
        ("any", "default", None, DEFAULT_POLICY),
        ("any", "slow", None, Fixed(60.0, 4)),
        ("any", "slow", DECLARED, DECLARED),
        ("patched", "slow", DECLARED, Ladder("1m", "5m")),
        ("patched", "slow", None, Fixed(60.0, 3)),
        ("replaced", "slow", DECLARED, Ladder("1s")),
        ("any", "notification", None, Exponential(1.0, 3600.0, 5)),
    ],
)
def test_the_kinds_section_beats_the_handler_beats_the_queues_section(
    kind: str, queue: str, declared: Policy | None, policy: Policy
) -> None:
    config = parse(TEXT)
    assert config.policy(kind, queue, declared) == policy
    assert config.policy(kind, queue, declared) is config.policy(kind, queue, declared)


def test_another_declared_policy_is_not_answered_with_the_remembered_one() -> None:
    config = parse(TEXT)
    assert config.policy("webhook", "default", DECLARED) == DECLARED
    assert config.policy("webhook", "default", Ladder("1s")) == Ladder("1s")


def test_the_operators_deadline_beats_the_handlers() -> None:
    config = parse(TEXT)
    assert config.timeout_s("patched", "slow", 20.0) == 10.0
    assert config.timeout_s("any", "slow", 20.0) == 3600.0
    assert config.timeout_s("any", "default", 20.0) == 20.0
    assert config.timeout_s("any", "default", None) == 300.0


EXPONENTIAL, FIXED, SHORT, NONE = Exponential(2.0, 60.0, 7, 0.1), Fixed(3.0, 5, 0.3), Ladder("1m", "5m"), Ladder()


@pytest.mark.parametrize(
    ("base", "settings", "result"),
    [
        (EXPONENTIAL, RetrySettings(), EXPONENTIAL),
        (EXPONENTIAL, RetrySettings(delay=Duration(4.0)), Exponential(4.0, 60.0, 7, 0.1)),
        (EXPONENTIAL, RetrySettings(delay=Duration(90.0)), Exponential(90.0, 90.0, 7, 0.1)),
        (EXPONENTIAL, RetrySettings(max_delay=Duration(9.0)), Exponential(2.0, 9.0, 7, 0.1)),
        (EXPONENTIAL, RetrySettings(backoff="fixed"), Fixed(2.0, 7, 0.1)),
        (FIXED, RetrySettings(delay=Duration(4.0)), Fixed(4.0, 5, 0.3)),
        (FIXED, RetrySettings(backoff="exponential"), Exponential(3.0, 3600.0, 5, 0.3)),
        (FIXED, RetrySettings(attempts=1, jitter=0.0), Fixed(3.0, 1, 0.0)),
        (SHORT, RetrySettings(backoff="exponential"), Exponential(60.0, 3600.0, 3)),
        (SHORT, RetrySettings(attempts=1), Ladder()),
        (SHORT, RetrySettings(attempts=2), Ladder("1m")),
        (SHORT, RetrySettings(attempts=5), Ladder("1m", "5m", "5m", "5m")),
        (SHORT, RetrySettings(jitter=0.0), Ladder("1m", "5m", jitter=0.0)),
        (NONE, RetrySettings(attempts=4), Exponential(max_attempts=4)),
        (EXPONENTIAL, RetrySettings(retry=(Duration(5.0),)), Ladder("5s", jitter=0.1)),
    ],
)
def test_each_key_changes_only_its_part_of_a_policy(base: Policy, settings: RetrySettings, result: Policy) -> None:
    assert overlaid(base, settings) == result


@pytest.mark.parametrize("attempts", [1, 2, 3, 17, 1000])
@pytest.mark.parametrize("base", [EXPONENTIAL, FIXED, SHORT, NONE])
def test_the_attempts_asked_for_are_the_attempts_there_are(base: Policy, attempts: int) -> None:
    assert overlaid(base, RetrySettings(attempts=attempts)).max_attempts == attempts


@pytest.mark.parametrize(
    ("text", "burst", "bucket"), [("10/s", None, 10), ("90/m", None, 2), ("5/h", None, 1), ("10/s", 3, 3)]
)
def test_a_bucket_holds_a_seconds_worth_unless_told_otherwise(text: str, burst: int | None, bucket: int) -> None:
    assert LimitSettings(per="lane", rate=rate(text), burst=burst).bucket == bucket


def test_of_several_patterns_the_one_with_more_letters_of_its_own_wins() -> None:
    patterns = ["*", "a*", "*b", "a*b", "a**b", "ab", "a*c"]
    assert [most_specific(patterns, name) for name in ("ab", "axb", "ax", "xb", "x")] == ["ab", "a*b", "a*", "*b", "*"]
    assert most_specific(["a*"], "b") is None
    assert most_specific(["a.c"], "abc") is None
