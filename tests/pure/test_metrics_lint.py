"""Metric names and labels are what Prometheus' users expect (prometheus.io/docs/practices/naming)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from daemon.metrics import LABELS, PREFIX, Metrics, Spec

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_NOT_BASE = frozenset(
    "ms millis milliseconds micros microseconds nanoseconds minutes hours days kb mb gb kib mib gib kilobytes "
    "megabytes percent percentage".split()
)
_TIMES = frozenset("duration delay age lag wait skew latency time timestamp end".split())
_TYPES = frozenset("counter gauge histogram summary metric bucket count sum created".split())
_RESERVED = frozenset("le quantile job instance".split())
_UNBOUNDED = frozenset(
    "id job_id org_id organization_id worker_id correlation_id error message url host lane tick".split()
)


def faults(spec: Spec) -> Iterator[str]:
    """What a reader of Prometheus' naming rules would object to."""
    words = spec.name.split("_")
    if not spec.name.startswith(PREFIX) or not _NAME.fullmatch(spec.name):
        yield "is not jobsd_ and lower-case words"
    if (spec.type == "counter") != (words[-1] == "total"):
        yield "ends with _total if and only if it is a counter"
    if (spec.type == "info") != (words[-1] == "info"):
        yield "ends with _info if and only if it is one"
    if "timestamp" in words and words[-2:] != ["timestamp", "seconds"]:
        yield "ends with _timestamp_seconds if it is a moment"
    if _TIMES.intersection(words) and "seconds" not in words:
        yield "is a time without its unit"
    if _NOT_BASE.intersection(words):
        yield "has a unit that is no base unit"
    if _TYPES.intersection(words):
        yield "has its type or a reserved suffix in its name"
    if set(spec.labels) & set(words) - {"queue", "limit"}:
        yield "has a label in its name"
    if set(spec.labels) & _RESERVED:
        yield "has a label that Prometheus sets itself"
    if set(spec.labels) & _UNBOUNDED or not set(spec.labels) <= set(LABELS):
        yield "has a label whose values have no bound"
    if not re.fullmatch(r"[A-Z0-9].*\.", spec.doc):
        yield "has no sentence that explains it"


@pytest.mark.req("OR-10")
@pytest.mark.parametrize("spec", Metrics().specs, ids=lambda spec: spec.name)
def test_each_metric_is_named_as_prometheus_users_expect(spec: Spec) -> None:
    assert list(faults(spec)) == []


@pytest.mark.parametrize(
    "spec",
    [
        Spec("jobs_ready", "gauge", "Rows."),
        Spec("jobsd_Ready", "gauge", "Rows."),
        Spec("jobsd_claims", "counter", "Claims."),
        Spec("jobsd_ready_total", "gauge", "Rows."),
        Spec("jobsd_claim_duration_milliseconds", "histogram", "How long."),
        Spec("jobsd_claim_duration", "histogram", "How long."),
        Spec("jobsd_last_tick_timestamp", "gauge", "When."),
        Spec("jobsd_build", "info", "Which."),
        Spec("jobsd_failed_count_total", "counter", "Failures."),
        Spec("jobsd_attempts_by_kind_total", "counter", "Attempts.", ("kind",)),
        Spec("jobsd_attempts_total", "counter", "Attempts.", ("job",)),
        Spec("jobsd_attempts_total", "counter", "Attempts.", ("org_id",)),
        Spec("jobsd_attempts_total", "counter", "Attempts.", ("colour",)),
        Spec("jobsd_attempts_total", "counter", "attempts"),
    ],
    ids=lambda spec: spec.name,
)
def test_the_lint_objects_to_a_name_that_breaks_one_rule(spec: Spec) -> None:
    assert len(list(faults(spec))) == 1


def test_no_name_is_given_twice_and_every_label_is_used() -> None:
    specs = Metrics().specs
    assert len({spec.name for spec in specs}) == len(specs)
    assert {label for spec in specs for label in spec.labels} == set(LABELS)
