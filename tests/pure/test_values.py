"""What people write in the config means what it says."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.values import Secret, duration, duration_text, rate, size, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7200), ("30d", 2_592_000), ("1w", 604_800), ("1h30m", 5400),
     ("1.5h", 5400), ("0", 0), (90, 90), (timedelta(minutes=1), 60)],
)  # fmt: skip
def test_a_duration_is_seconds(text: str | float | timedelta, seconds: float) -> None:
    assert float(duration(text)) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-5m", "5x", "1h 30m", "5M", "1e3s", "٣s "])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write one like"):
        duration(text)


@given(st.integers(0, 10**12))
def test_a_duration_survives_being_written(ms: int) -> None:
    assert duration(duration_text(ms / 1000)) == pytest.approx(ms / 1000)


@pytest.mark.parametrize(
    ("text", "count"), [("512", 512), ("64KiB", 65_536), ("1 MiB", 2**20), ("2GiB", 2**31), (7, 7)]
)
def test_a_size_is_bytes(text: str | int, count: int) -> None:
    assert int(size(text)) == count


@given(st.integers(0, 2**40))
def test_a_size_survives_being_written(count: int) -> None:
    assert int(size(size_text(count))) == count


@pytest.mark.parametrize("text", ["", "64kb", "1.5MiB", "-1", "KiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "per_second"), [("10/s", 10), ("600/m", 10), ("20000/d", 20_000 / 86_400), ("0.5/s", 0.5)]
)
def test_a_rate_is_so_many_in_each_period(text: str, per_second: float) -> None:
    assert rate(text).per_second == per_second
    assert str(rate(text)) == text


@pytest.mark.parametrize("text", ["0/s", "10", "10/", "10/w", "-1/s", "/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        rate(text)


def test_a_secret_is_used_as_it_is_and_shown_as_stars() -> None:
    secret = Secret("hunter2")
    assert secret == "hunter2"
    assert "hunter2" not in f"{secret!r} {[secret]} {{'a': {secret!r}}}"
