"""Metric names and labels are what Prometheus' users expect (prometheus.io/docs/practices/naming)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from daemon.metrics import LABELS, PREFIX, Metrics, Spec

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_NOT_BASE = {"ms", "millis", "milliseconds", "microseconds", "minutes", "hours", "days", "kb", "mb", "mib", "percent"}
_TIMES = {"duration", "delay", "age", "lag", "wait", "skew", "latency", "time", "timestamp", "end"}
_TYPES = {"counter", "gauge", "histogram", "summary", "metric", "bucket", "count", "sum", "created"}
_RESERVED = {"le", "quantile", "job", "instance"}


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
    if "by" in words:
        yield "has a label in its name"
    if set(spec.labels) & _RESERVED:
        yield "has a label that Prometheus sets itself"
    if not set(spec.labels) <= set(LABELS):
        yield "has a label that is not explained, and so not bounded"
    if not re.fullmatch(r"[A-Z0-9].*\.", spec.doc):
        yield "has no sentence that explains it"


@pytest.mark.req("OR-10")
@pytest.mark.parametrize("spec", Metrics().specs, ids=lambda spec: spec.name)
def test_each_metric_is_named_as_prometheus_users_expect(spec: Spec) -> None:
    assert list(faults(spec)) == []


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (Spec("jobs_ready", "gauge", "Rows."), "is not jobsd_ and lower-case words"),
        (Spec("jobsd_Ready", "gauge", "Rows."), "is not jobsd_ and lower-case words"),
        (Spec("jobsd_claims", "counter", "Claims."), "ends with _total if and only if it is a counter"),
        (Spec("jobsd_ready_total", "gauge", "Rows."), "ends with _total if and only if it is a counter"),
        (Spec("jobsd_claim_milliseconds", "histogram", "How long."), "has a unit that is no base unit"),
        (Spec("jobsd_claim_duration", "histogram", "How long."), "is a time without its unit"),
        (Spec("jobsd_tick_timestamp", "gauge", "When."), "ends with _timestamp_seconds if it is a moment"),
        (Spec("jobsd_build", "info", "Which."), "ends with _info if and only if it is one"),
        (Spec("jobsd_failed_count_total", "counter", "Failures."), "has its type or a reserved suffix in its name"),
        (Spec("jobsd_attempts_by_kind_total", "counter", "Attempts.", ("kind",)), "has a label in its name"),
        (Spec("jobsd_attempts_total", "counter", "Attempts.", ("job",)), "has a label that Prometheus sets itself"),
        (
            Spec("jobsd_attempts_total", "counter", "Attempts.", ("org_id",)),
            "has a label that is not explained, and so not bounded",
        ),
        (Spec("jobsd_attempts_total", "counter", "attempts"), "has no sentence that explains it"),
    ],
)
def test_the_lint_objects_to_a_name_that_breaks_a_rule(spec: Spec, fault: str) -> None:
    assert fault in faults(spec)


def test_no_name_is_given_twice_and_every_label_is_used() -> None:
    specs = Metrics().specs
    assert len({spec.name for spec in specs}) == len(specs)
    assert {label for spec in specs for label in spec.labels} == set(LABELS)
