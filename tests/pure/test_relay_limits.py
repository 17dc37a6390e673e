"""What a relay takes, as buckets: no window of its period has more, and nearly all of it is used."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest

from daemon.config import parse
from daemon.limits import Limits
from daemon.relay_limits import TRIP_S, names_of, spaced
from daemon.slices import AHEAD_S
from jobs.email.settings import RelaySettings
from jobs.model import Job
from jobs.values import rate

CONFIG = """
[email]
from = "no-reply@shop.example"
[email.relays.main]
host = "relay.example"
rate = "14/s"
messages_per_day = 1000
day_starts = "07:30"
"""


def job(**fields: Any) -> Job:
    return Job(**{"id": 1, "fence": 1, "kind": "email", "queue": "default", "priority": 2, "attempt": 1,
                  "args_json": "{}", "run_at": 0.0, "lane": "main", **fields})  # fmt: skip


@pytest.mark.req("BJ-21")
@pytest.mark.parametrize(
    ("text", "burst", "most", "window_s"),
    [("50/s", None, 50, 1.0), ("50/s", 5, 50, 1.0), ("50/s", 1, 50, 1.0), ("7/s", 3, 7, 1.0), ("90/m", 10, 90, 60.0),
     ("0.5/s", None, 1, 2.0), ("2.5/s", None, 2, 1.0), ("1/s", None, 1, 1.0), ("14/s", None, 14, 1.0),
     ("1000/s", None, 1000, 1.0), ("600/m", None, 600, 60.0), ("20/d", None, 20, 86400.0)],
)  # fmt: skip
def test_no_window_has_more_than_the_rate(text: str, burst: int | None, most: int, window_s: float) -> None:
    """Tokens lie on a line and may each be so much late: the most that a window can hold."""
    pace, burst = spaced(rate(text), burst)
    step_s = 1 / pace.per_second
    assert ceil((window_s + (burst - 1) * step_s) / step_s - 1e-9) == most
    assert str(pace) == text, "people read what they wrote"


@pytest.mark.parametrize("text", ["1/s", "2/s", "5/s", "10/s", "14/s", "20/s", "100/s", "1000/s", "600/m", "100/h"])
def test_nearly_all_of_a_rate_is_used_where_nobody_says_otherwise(text: str) -> None:
    given = rate(text)
    pace, burst = spaced(given)
    step_s = 1 / pace.per_second
    alone = (burst - 1) * step_s < AHEAD_S / 2
    assert pace.per_second / given.per_second * (step_s / (step_s + TRIP_S) if alone else 1) >= 0.9


def test_ordinary_mail_takes_from_its_part_of_the_day_and_security_mail_from_the_day() -> None:
    limits = Limits(parse(CONFIG).all_limits)
    ordinary = {b.name: b for b in limits.buckets(job(), {})}
    assert sorted(ordinary) == ["relay:main", "relay_day:main", "relay_ordinary:main"]
    assert [b.name for b in limits.buckets(job(), {"security": True})] == ["relay:main", "relay_day:main"]
    day, part = ordinary["relay_day:main"], ordinary["relay_ordinary:main"]
    assert (day.burst, part.burst) == (1000, 800)
    assert day.day == part.day == 7.5 * 3600
    assert all(bucket.at_call for bucket in ordinary.values())
    for security in (True, False):
        named = limits.named(names_of("main", security=security))
        assert set(named) == set(limits.buckets(job(), {"security": security}))


def test_forwards_take_from_the_same_relay() -> None:
    limits = Limits(parse(CONFIG).all_limits)
    assert limits.buckets(job(kind="email_forward"), {}) == limits.buckets(job(), {})


def test_rows_of_other_kinds_and_relays_are_not_counted() -> None:
    limits = Limits(parse(CONFIG).all_limits)
    assert limits.buckets(job(kind="webhook"), {}) == ()
    assert limits.buckets(job(lane="other"), {}) == ()
    assert limits.named(names_of("other", security=False)) == ()


@pytest.mark.parametrize(
    ("given", "key"),
    [({"rate": rate("10/s"), "burst": 11}, "burst"), ({"day_starts": "24:00"}, "day_starts"),
     ({"day_starts": "07:20"}, "day_starts"), ({"reserve": 1.0}, "reserve"), ({"messages_per_day": 0}, "messages_per")],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}"):
        RelaySettings(host="relay.example", **given)


def test_the_next_day_begins_within_a_day() -> None:
    relay = RelaySettings(host="relay.example", day_starts="07:30")
    assert relay.next_day_s(86400.0 * 3) == 7.5 * 3600
    assert relay.next_day_s(86400.0 * 3 + 7.5 * 3600) == 86400
    assert RelaySettings(host="relay.example").next_day_s(0.0) is None
