"""The [webhook] section says no to what cannot be meant, and names the key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import jobs.webhook.handler  # noqa: F401  registers the kind
from jobs.model import Ladder
from jobs.registry import KINDS
from jobs.webhook.settings import WebhookSettings


@pytest.mark.req("BJ-15")
def test_the_default_ladder_is_one_five_thirty_minutes_and_two_hours_with_jitter() -> None:
    policy = KINDS["webhook"].retry
    assert isinstance(policy, Ladder)
    assert policy == Ladder("1m", "5m", "30m", "2h")
    assert policy.max_attempts == 5
    assert policy.delay_s(1, 0.0) < 60 < policy.delay_s(1, 0.99)


def test_by_default_only_https_on_the_two_web_ports_and_no_private_address() -> None:
    settings = WebhookSettings()
    assert not settings.allow_http
    assert set(settings.ports) == {range(80, 81), range(443, 444)}
    assert settings.allow_addresses == ()


def test_ports_and_ranges_of_them_are_allowed() -> None:
    assert WebhookSettings(allow_ports=(443, "8000-8003")).ports == (range(443, 444), range(8000, 8004))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allow_addresses", ("10.0.0.0/33",)),
        ("allow_addresses", ("10.0.0.1/8",)),
        ("allow_addresses", ("example.com",)),
        ("allow_ports", (0,)),
        ("allow_ports", (65536,)),
        ("allow_ports", ("9-8",)),
        ("allow_ports", ("http",)),
        ("permanent_statuses", (200,)),
        ("permanent_statuses", (600,)),
        ("user_agent", "a\r\nb: c"),
        ("user_agent", ""),
        ("response_max", 10),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_the_name_of_its_key(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        WebhookSettings(**{field: value})


def test_each_key_has_a_line_that_says_what_it_changes() -> None:
    for field in dataclasses.fields(WebhookSettings):
        assert field.metadata["doc"].endswith("."), field.name
