"""Which buckets a job takes from, and who starts with what was granted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.limits import Bucket, Limits, share, spent
from daemon.work_settings import LimitSettings
from jobs.model import Job
from jobs.values import rate


def job(job_id: int = 1, **fields: Any) -> Job:
    return Job(**{"id": job_id, "fence": 1, "kind": "webhook", "queue": "default", "priority": 2, "attempt": 1,
                  "args_json": "{}", "run_at": 0.0, **fields})  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "fields", "args", "key"),
    [
        ({"lane": "example.com"}, {"lane": "example.com"}, {}, ""),
        ({"lane": "example.com"}, {"lane": "example.org"}, {}, None),
        ({"lane": "example.com"}, {}, {}, None),
        ({"queue": "org:*:mail"}, {"queue": "org:7:mail"}, {}, ""),
        ({"queue": "org:*:mail", "per": "queue"}, {"queue": "org:7:mail"}, {}, "org:7:mail"),
        ({"kind": "web*"}, {}, {}, ""),
        ({"kind": "web*", "org_id": "7"}, {"org_id": "8"}, {}, None),
        ({"per": "org_id"}, {"org_id": "7"}, {}, "7"),
        ({"per": "org_id"}, {}, {}, None),
        ({"per": "args.account"}, {}, {"account": 42}, "42"),
        ({"per": "args.account"}, {}, {"account": None}, None),
        ({"args": {"account": "42"}}, {}, {"account": 42}, ""),
        ({"args": {"account": "4*"}}, {}, {"account": "50"}, None),
        ({"args": {"account": "*"}}, {}, {}, None),
        ({"per": "lane"}, {"lane": "x" * 500}, {}, "x" * 150),
    ],
)
def test_a_limit_concerns_the_jobs_that_all_its_selectors_match(
    limit: dict[str, Any], fields: dict[str, Any], args: dict[str, Any], key: str | None
) -> None:
    limits = Limits({"l": LimitSettings(rate=rate("10/s"), burst=3, concurrency=2, **limit)})
    expected = () if key is None else (Bucket("l", key, 0.1, 3, 2),)
    assert limits.buckets(job(**fields), args) == expected


def test_the_buckets_of_a_job_come_in_one_order_whatever_the_configs() -> None:
    """All daemons lock them in that order."""
    several = {name: LimitSettings(per="queue", concurrency=1) for name in ("b", "c", "a")}
    assert [bucket.name for bucket in Limits(several).buckets(job(), {})] == ["a", "b", "c"]
    assert bool(Limits(several))
    assert not Limits({})


@pytest.mark.parametrize(
    ("limit", "kind", "queue", "concerned"),
    [
        ({"kind": "web*"}, "webhook", "default", True),
        ({"kind": "web*"}, "email", "default", False),
        ({"kind": "webhook", "queue": "bulk"}, "webhook", "default", False),
        ({"org_id": "7"}, "webhook", "default", True),
    ],
)
def test_of_jobs_that_no_limit_can_concern_nobody_reads_the_args(
    limit: dict[str, Any], kind: str, queue: str, concerned: bool
) -> None:
    limits = Limits({"l": LimitSettings(concurrency=1, **limit)})
    assert [limits.concern(kind, queue) for _again in range(2)] == [concerned] * 2


def test_a_rate_and_places_are_told_apart() -> None:
    limits = Limits({"r": LimitSettings(kind="*", rate=rate("600/m")), "p": LimitSettings(kind="*", concurrency=4)})
    places, tokens = limits.buckets(job(), {})
    assert (tokens.token_s, tokens.burst, tokens.places) == (0.1, 10, None)
    assert (places.token_s, places.burst, places.places) == (None, None, 4)
    assert places.gate == "limit:p:"


@pytest.mark.parametrize(
    ("gate", "found"),
    [
        ("limit:one:", [("one", "")]),
        ("limit:per:a:b", [("per", "a:b")]),
        ("limit:per:x:y", [("per", "x:y"), ("per:x", "y")]),
        ("limit:one:a", []),
        ("limit:gone:", []),
        ("limit:", []),
    ],
)
def test_a_gate_leads_to_its_bucket(gate: str, found: list[tuple[str, str]]) -> None:
    """Both a limit's name and a key may have colons, so a gate may be of either of two."""
    per = LimitSettings(per="org_id", concurrency=2)
    limits = Limits({"one": LimitSettings(kind="a", rate=rate("10/s")), "per": per, "per:x": per})
    assert [(bucket.name, bucket.key) for bucket in limits.buckets_at(gate)] == found


BUCKETS = [Bucket(name, "", 1.0, 9, None) for name in "abcd"]
WANTING = st.lists(st.lists(st.sampled_from(BUCKETS), unique=True, min_size=1), max_size=20)


@given(WANTING, st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_nobody_gets_more_than_is_in_hand_and_nobody_is_lost(wanting: list[list[Bucket]], granted: list[int]) -> None:
    jobs = [(job(n), tuple(buckets)) for n, buckets in enumerate(wanting)]
    verdict = share(jobs, dict(zip(BUCKETS, granted, strict=True)))
    used = spent(verdict.start)
    for bucket, n in zip(BUCKETS, granted, strict=True):
        assert used[bucket] <= n
    assert sorted(j.id for j, _ in (*verdict.start, *verdict.wait)) == list(range(len(wanting)))
    for waiting, bucket in verdict.wait:
        assert bucket in wanting[waiting.id]


@given(WANTING, st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_a_job_waits_only_for_a_bucket_that_was_empty_at_its_turn(
    wanting: list[list[Bucket]], granted: list[int]
) -> None:
    jobs = [(job(n), tuple(buckets)) for n, buckets in enumerate(wanting)]
    verdict = share(jobs, dict(zip(BUCKETS, granted, strict=True)))
    started = {j.id for j, _ in verdict.start}
    for waiting, bucket in verdict.wait:
        before = sum(bucket in buckets for n, buckets in enumerate(wanting[: waiting.id]) if n in started)
        assert before >= granted[BUCKETS.index(bucket)]
