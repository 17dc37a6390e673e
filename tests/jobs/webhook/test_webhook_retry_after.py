"""A receiver may ask for a pause, in either form, and never for an absurd one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.webhook.retry_after import retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = 86400.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120.0),
        ("Sunday, 01-Mar-26 12:02:00 GMT", 120.0),
        ("Sun Mar  1 12:02:00 2026", 120.0),
    ],
)
def test_seconds_and_each_form_of_date_are_understood(value: str, seconds: float) -> None:
    assert retry_after_s(value, NOW, DAY) == seconds


@pytest.mark.parametrize("value", ["0", "Sun, 01 Mar 2026 11:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_now_and_the_past_mean_one_second(value: str) -> None:
    assert retry_after_s(value, NOW, DAY) == 1.0


@pytest.mark.parametrize("value", ["86401", "9" * 60, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_the_absurd_is_held_to_the_maximum(value: str) -> None:
    assert retry_after_s(value, NOW, DAY) == DAY


@pytest.mark.parametrize(
    "value", [None, "", "soon", "-1", "1.5", "1e3", "٣", "Sun, 99 Foo 2026", "9" * 65, "inf", "nan"]
)
def test_what_is_no_pause_is_none(value: str | None) -> None:
    assert retry_after_s(value, NOW, DAY) is None


@given(st.text(max_size=70))
def test_no_text_breaks_it(value: str) -> None:
    seconds = retry_after_s(value, NOW, DAY)
    assert seconds is None or 1.0 <= seconds <= DAY


@given(st.integers(min_value=1, max_value=86400))
def test_both_forms_mean_the_same(seconds: int) -> None:
    date = (NOW + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert retry_after_s(date, NOW, DAY) == retry_after_s(str(seconds), NOW, DAY) == seconds
