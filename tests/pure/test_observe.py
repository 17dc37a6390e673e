"""The one voice: each method's line and metrics, the fields people search by, and bounds on what rows can invent."""

from __future__ import annotations

import asyncio
import errno
import inspect
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from daemon import lag, observe
from daemon.events import EVENTS, FIELDS
from daemon.log import Logger
from daemon.observe import Observer, Slots
from daemon.observe_life import LifeObserver
from daemon.observe_upkeep import QueueSample, UpkeepObserver
from daemon.reference import DOCS, PAGES
from jobs.context import Log
from jobs.model import Job

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE = """Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
shop.errors.First: one

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
    h()
shop.errors.OutOfStock: nothing left
of: it
"""


class Heard:
    """An Observer and what it wrote.  `now` is its clock."""

    def __init__(self, file: Any, **options: Any) -> None:
        self._file = file
        self.now = 0.0
        self.log = Logger(file, level="debug")
        self.observer = Observer(self.log, clock=lambda: self.now, **options)

    def lines(self) -> list[dict[str, Any]]:
        """All lines; nothing can be said afterwards."""
        self.log.close()
        self._file.seek(0)
        return [json.loads(text) for text in self._file.read().splitlines()]

    def value(self, name: str, **labels: str) -> float | None:
        return self.observer.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def heard() -> Iterator[Heard]:
    with tempfile.TemporaryFile() as file:
        found = Heard(file)
        yield found
        found.log.close()


def a_job(id: int = 7, *, kind: str = "webhook", queue: str = "org:42:notifications") -> Job:
    return Job(
        id,
        3,
        kind,
        queue,
        2,
        2,
        '{"token": "c4n4ry"}',
        run_at=1000.0,
        claimed_at=1002.0,
        org_id="org_42",
        correlation_id="corr-1",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        actor_id="user_9",
        project_id="proj_5",
    )


WHO = {
    "job_id": 7,
    "job_type": "webhook",
    "queue": "org:42:notifications",
    "attempt": 2,
    "organization_id": "org_42",
    "project_id": "proj_5",
    "actor_id": "user_9",
    "correlation_id": "corr-1",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}

# --- one attempt ------------------------------------------------------------------------------------------------------


@pytest.mark.req("OR-11")
@pytest.mark.req("JP-06")
def test_every_line_of_a_job_says_which_and_on_whose_behalf(heard: Heard) -> None:
    heard.observer.started(a_job(), 0.25)
    heard.observer.log_for(a_job()).info("hook_sent", url="https://a.example")
    for outcome in get_args(observe.Outcome):
        heard.observer.ended(a_job(), outcome, 0.5)
    lines = heard.lines()
    assert [line["event"] for line in lines] == [
        "job_started",
        "hook_sent",
        "job_completed",
        "job_retried",
        "job_snoozed",
        "job_dead",
        "job_cancelled",
        "job_handed_back",
        "job_parked",
    ]
    for line in lines:
        assert line.items() >= WHO.items()
        assert "c4n4ry" not in str(line)


@pytest.mark.req("JD-07")
@pytest.mark.req("BJ-15")
def test_a_failed_attempt_says_why_where_and_when_it_is_tried_again(heard: Heard) -> None:
    heard.observer.ended(a_job(), "retry", 0.1234567, "exception", "nothing left", 61.00049, TRACE)
    (line,) = heard.lines()
    assert line["event"] == "job_failed"
    assert (line["outcome"], line["duration_ms"], line["next_retry_in_s"]) == ("retry", 123.457, 61.0)
    assert line["error"] == {"class": "shop.errors.OutOfStock", "message": "nothing left", "trace": TRACE}


def test_a_retry_without_an_exception_is_no_failure_of_the_code(heard: Heard) -> None:
    heard.observer.ended(a_job(), "retry", 0.1, "http_503", "the other side said 503", 60.0)
    (line,) = heard.lines()
    assert line["event"] == "job_retried"
    assert line["error"] == {"class": "http_503", "message": "the other side said 503"}


@pytest.mark.req("OR-10")
@pytest.mark.req("JP-07")
def test_attempts_are_counted_and_timed_by_kind(heard: Heard) -> None:
    for outcome in ("done", "done", "retry", "dead", "snooze", "handed_back"):
        heard.observer.started(a_job(), 0.25)
        heard.observer.ended(a_job(), outcome, 2.0, "timeout")
    queue, kind = "org:42:notifications", "webhook"
    assert heard.value("jobsd_attempts_total", queue=queue, kind=kind, outcome="done") == 2
    assert heard.value("jobsd_attempts_total", queue=queue, kind=kind, outcome="retry") == 1
    assert heard.value("jobsd_retries_total", kind=kind, code="timeout") == 1
    assert heard.value("jobsd_dead_letters_total", reason="timeout") == 1
    assert heard.value("jobsd_attempt_duration_seconds_count", kind=kind) == 5  # what was handed back did not run
    assert heard.value("jobsd_attempt_duration_seconds_sum", kind=kind) == 10.0
    assert heard.value("jobsd_attempt_duration_seconds_bucket", kind=kind, le="1.0") == 0
    assert heard.value("jobsd_attempt_duration_seconds_bucket", kind=kind, le="2.5") == 5
    assert heard.value("jobsd_start_delay_seconds_count", queue=queue) == 6
    assert heard.value("jobsd_end_to_end_seconds_sum", kind=kind) == 3 * (2.0 + 2.0)  # claimed 2 s late, ran 2 s


def test_a_handlers_fields_cannot_pass_for_the_lines_own(heard: Heard) -> None:
    heard.observer.log_for(a_job()).warning("hook_sent", ts="then", level="none", job_id=1, other=2)
    (line,) = heard.lines()
    assert (line["level"], line["job_id"], line["other"]) == ("warning", 7, 2)
    assert (line["ts_"], line["level_"]) == ("then", "none")


def test_log_for_gives_what_a_context_takes(heard: Heard) -> None:
    log: Log = heard.observer.log_for(a_job())
    for say in (log.debug, log.info, log.warning, log.error):
        say("said")
    assert [line["level"] for line in heard.lines()] == ["debug", "info", "warning", "error"]


def test_the_level_of_job_started_is_the_operators_choice(heard: Heard) -> None:
    heard.observer.configure("info", "json")
    heard.observer.started(a_job(), 0.0)
    heard.observer.configure("info", "json", started="info")
    heard.observer.started(a_job(), 0.0)
    assert [line["event"] for line in heard.lines()] == ["job_started"]


# --- the catalogue ----------------------------------------------------------------------------------------------------

ERROR = OSError("no route")
SAYS: dict[str, Callable[[Observer], None]] = {
    "started": lambda o: o.started(a_job(), 0.1),
    "poison": lambda o: o.poison(7, "webhook", "bad_json"),
    "slot_leaked": lambda o: o.slot_leaked(a_job()),
    "late_result": lambda o: o.late_result(7, "webhook", 3),
    "result_unwritable": lambda o: o.result_unwritable(7, "webhook", ERROR),
    "claimed": lambda o: o.claimed(3, 0.001),
    "claim_failed": lambda o: o.claim_failed(ERROR),
    "finished": lambda o: o.finished(3, 0.001, 1),
    "finish_failed": lambda o: o.finish_failed(ERROR, 30, 0.5),
    "lane_closed": lambda o: o.lane_closed("example.com", "breaker", 30.0, "timeout: no answer"),
    "endpoint_warned": lambda o: o.upkeep.endpoint_warned(7, "acme", "crm", "nothing but failures"),
    "endpoint_disabled": lambda o: o.upkeep.endpoint_disabled(7, None, "crm", "it answered 410"),
    "profile_unknown": lambda o: o.profile_unknown("patient", "endpoint:7"),
    "lane_probed": lambda o: o.lane_probed("example.com", "well"),
    "lane_opened": lambda o: o.lane_opened("example.com"),
    "relay_throttled": lambda o: o.relay_throttled("relay:main", "main", 0.5, "454 Throttling failure"),
    "limited": lambda o: o.limited("example_com", 5, 1.5),
    "parked": lambda o: o.parked("thumbnail", "default", 4),
    "held": lambda o: o.held("lane:example.com", "default", 4),
    "unparked": lambda o: o.unparked("thumbnail", 4),
    "expired": lambda o: o.upkeep.expired(2),
    "job_parked": lambda o: o.upkeep.job_parked("old_visits", "table: there is no table zoo.visits"),
    "job_unparked": lambda o: o.upkeep.job_unparked("old_visits"),
    "forwards_given_up": lambda o: o.upkeep.forwards_given_up(2),
    "domain_changed": lambda o: o.upkeep.domain_changed("shop.test", "acme", "pending", "verified", "all is well"),
    "cancelled_rows": lambda o: o.upkeep.cancelled_rows(2),
    "rescued": lambda o: o.upkeep.rescued("w1", 5, 1),
    "queue_paused": lambda o: o.upkeep.queue_paused("default", "ann", "relay is down"),
    "queue_resumed": lambda o: o.upkeep.queue_resumed("default"),
    "paused": lambda o: o.upkeep.paused("kind:webhook", "ann", "they move"),
    "resumed": lambda o: o.upkeep.resumed("kind:webhook"),
    "worker_registered": lambda o: o.life.worker_registered("w1"),
    "worker_lost": lambda o: o.life.worker_lost("the row is gone"),
    "worker_fenced": lambda o: o.life.worker_fenced("w1", 9),
    "heartbeat": lambda o: o.life.heartbeat(0.002, -0.01),
    "heartbeat_failed": lambda o: o.life.heartbeat_failed(ERROR),
    "listening": lambda o: o.life.listening(3.0),
    "deaf": lambda o: o.life.deaf(ERROR),
    "scheduled": lambda o: o.upkeep.scheduled("heartbeat", datetime(2026, 1, 1, tzinfo=UTC), 8, missed=True),
    "tick_skipped": lambda o: o.upkeep.tick_skipped("heartbeat", 3, "skip"),
    "schedule_invalid": lambda o: o.upkeep.schedule_invalid("heartbeat", "no such time zone"),
    "retention": lambda o: o.upkeep.retention("job_history", "job_history_20260101", "dropped"),
    "swept": lambda o: o.upkeep.swept("job_history", 12),
    "partitions_sampled": lambda o: o.upkeep.partitions_sampled({"job_history": (0, 3), "job_attempts": (4, 0)}),
    "keeper_failed": lambda o: o.keeper_failed("rescue", ERROR),
    "task_died": lambda o: o.task_died("claimer", ERROR),
    "daemon_starting": lambda o: o.life.daemon_starting("1.2.3"),
    "daemon_ready": lambda o: o.life.daemon_ready(0.3),
    "daemon_draining": lambda o: o.life.daemon_draining(4),
    "daemon_stopped": lambda o: o.life.daemon_stopped(1.0, 2),
    "migrated": lambda o: o.life.migrated("0001_jobs", 0.1),
    "config_loaded": lambda o: o.life.config_loaded("config.toml", "abc", ["doubtful"]),
    "reloaded": lambda o: o.life.reloaded(["a"], ["b"], ["c"], ["d", "e"], "def"),
    "reload_refused": lambda o: o.life.reload_refused(["wrong"]),
    "loop_lag": lambda o: o.life.loop_lag(1.5),
    "library": lambda o: o.life.library("warning", "asyncpg", "odd", ERROR),
    "admin_listening": lambda o: o.life.admin_listening(["127.0.0.1:1"]),
    "admin_failed": lambda o: o.life.admin_failed("/metrics", ERROR),
}
SILENT = {
    "domain_checked",
    "domain_noticed",
    "domains_planned",
    "jobs_parked",
    "job_rows",
    "limit_day",
    "limit_share",
    "hint",
    "pool",
    "domains_counted",
    "sampled",
    "sampling_ended",
    "admin_answered",
    "checked",
    "delivered",
    "configure",
    "watch_slots",
    "refresh",
}
SEVERAL = {"ended", "log_for"}


@pytest.mark.parametrize("method", SAYS)
def test_each_method_says_one_line_out_of_the_catalogue(heard: Heard, method: str) -> None:
    SAYS[method](heard.observer)
    (line,) = heard.lines()
    event = EVENTS[line["event"]]
    assert line["level"] == event.level
    assert set(line) - {"ts", "level", "event"} <= set(event.fields)


def test_every_method_is_heard_and_every_event_is_said(heard: Heard) -> None:
    parts = (Observer, UpkeepObserver, LifeObserver)
    functions = [name for part in parts for name, _ in inspect.getmembers(part, inspect.isfunction)]
    methods = {name for name in functions if not name.startswith("_")}
    assert methods == set(SAYS) | SILENT | SEVERAL
    for say in SAYS.values():
        say(heard.observer)
    for outcome in get_args(observe.Outcome):
        heard.observer.ended(a_job(), outcome, 0.1, "c", "r", 1.0, "T" if outcome == "retry" else None)
    heard.observer.ended(a_job(), "retry", 0.1)
    said = {line["event"] for line in heard.lines()}
    assert said == set(EVENTS) - {"log_lines_dropped"}  # tests/pure/test_log.py makes the logger say that one


def test_every_field_of_every_event_is_explained_once() -> None:
    used = {field for event in EVENTS.values() for field in event.fields} | {"ts", "level", "event"}
    assert used == set(FIELDS)


@pytest.mark.parametrize("page", PAGES)
def test_the_reference_pages_are_those_of_the_code(page: str) -> None:
    assert (DOCS / page).read_text() == PAGES[page](), "run: python -m daemon.reference"


# --- outages ----------------------------------------------------------------------------------------------------------


def test_an_outage_is_one_line_a_second_however_often_it_is_met(heard: Heard) -> None:
    heard.observer.life.deaf(ERROR)
    for tenth in range(0, 25, 4):
        heard.now = tenth / 10
        heard.observer.claim_failed(ERROR)
    heard.now = 9.0
    heard.observer.claim_failed(ERROR)
    assert [(line["event"], line.get("suppressed")) for line in heard.lines()] == [
        ("deaf", None),
        ("claim_failed", None),  # at 0.0, then not at 0.4 and 0.8
        ("claim_failed", 2),  # at 1.2, then not at 1.6 and 2.0
        ("claim_failed", 2),  # at 2.4
        ("claim_failed", None),
    ]
    assert heard.value("jobsd_claim_failures_total") == 8


def test_a_library_that_repeats_itself_is_one_line_a_second(heard: Heard) -> None:
    for number in range(100):
        heard.observer.life.library("error", "asyncio", f"Future exception was never retrieved\nfuture: {number}", None)
    heard.observer.life.library("error", "asyncio", "Something else", None)
    assert [line["message"].splitlines()[0] for line in heard.lines()] == [
        "Future exception was never retrieved",
        "Something else",
    ]
    assert heard.value("jobsd_library_warnings_total", logger="asyncio") == 101


def test_the_first_connection_is_no_reconnect(heard: Heard) -> None:
    heard.observer.life.listening(0.2)
    assert heard.value("jobsd_listener_reconnects_total") == 0
    heard.observer.life.deaf(ERROR)
    assert heard.value("jobsd_listener_connected") == 0
    heard.observer.life.listening(3.0)
    assert heard.value("jobsd_listener_reconnects_total") == 1
    assert heard.value("jobsd_listener_connected") == 1


# --- gauges -----------------------------------------------------------------------------------------------------------


def test_a_sample_replaces_the_one_before(heard: Heard) -> None:
    heard.observer.upkeep.sampled(
        {"a": QueueSample(1, 2, 3, 4.5), "b": (5, 6, 7, 8.0)}, parked={"thumbnail": 9}, dead={"a": 10}
    )
    assert heard.value("jobsd_ready", queue="a") == 1
    assert heard.value("jobsd_scheduled", queue="b") == 6
    assert heard.value("jobsd_running", queue="b") == 7
    assert heard.value("jobsd_oldest_ready_age_seconds", queue="a") == 4.5
    assert heard.value("jobsd_parked", kind="thumbnail") == 9
    assert heard.value("jobsd_dead", queue="a") == 10
    heard.observer.upkeep.sampled({"b": (1, 1, 1, 1.0)}, parked={}, dead={})
    assert heard.value("jobsd_ready", queue="a") == 0
    assert heard.value("jobsd_parked", kind="thumbnail") == 0
    heard.observer.upkeep.sampling_ended()
    assert heard.value("jobsd_ready", queue="a") is None


def test_slots_and_lost_lines_are_read_at_the_scrape(heard: Heard) -> None:
    heard.observer.watch_slots(lambda: {"default": Slots(3, 100)})
    heard.log.dropped = 12
    heard.observer.refresh()
    assert heard.value("jobsd_worker_slots_used", queue="default") == 3
    assert heard.value("jobsd_worker_slots_limit", queue="default") == 100
    assert heard.value("jobsd_log_lines_dropped_total") == 12


@pytest.mark.req("DC-04")
def test_the_last_reload_and_the_configuration_it_left_can_be_asked_for(heard: Heard) -> None:
    heard.observer.life.config_loaded("config.toml", "one", [])
    assert heard.value("jobsd_config_last_reload_successful") == 1
    heard.observer.life.reload_refused(["wrong"])
    assert heard.value("jobsd_config_last_reload_successful") == 0
    assert heard.value("jobsd_config_info", hash="one") == 1
    heard.observer.life.reloaded(["daemon.lease"], [], [], ["daemon.lease"], "two")
    assert heard.value("jobsd_config_last_reload_successful") == 1
    assert heard.value("jobsd_config_restart_required") == 1
    assert heard.value("jobsd_config_info", hash="one") is None
    assert heard.value("jobsd_config_info", hash="two") == 1


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_rows_that_invent_queues_and_kinds_fill_neither_memory_nor_prometheus() -> None:
    with tempfile.TemporaryFile() as file:
        heard = Heard(file, series_max=20)
        heard.observer.configure("error", "json")
        for number in range(5000):
            job = a_job(kind=f"kind{number % 700}", queue=f"queue{number}")
            heard.observer.started(job, 0.1)
            heard.observer.ended(job, "retry", 0.1, code=f"code{number}")
            heard.observer.parked(job.kind, job.queue, 1)
            heard.observer.limited(job.queue, 1, 1.0)
            heard.observer.upkeep.scheduled(job.queue, 0.0, None, missed=False)
        heard.observer.upkeep.sampled(
            {f"queue{number}": (1, 0, 0, float(number)) for number in range(5000)}, parked={}, dead={}
        )
        text, _ = heard.observer.metrics.render("")
        heard.log.close()
    series = [line for line in text.decode().splitlines() if not line.startswith("#")]
    assert len(series) < 20 * 100
    assert heard.value("jobsd_ready", queue="other") == 4980  # nothing is lost, only the name
    assert heard.value("jobsd_oldest_ready_age_seconds", queue="other") == 4999.0
    assert len(heard.observer._series._known) <= 40
    assert len(heard.observer._series._made) <= 40 + 21
    assert len(heard.observer._voice.seldom._said) <= 100


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "x" * 1000, "\x00"])
def test_a_name_that_prometheus_cannot_show_is_other(heard: Heard, name: str) -> None:
    heard.observer.ended(a_job(kind=name, queue=name), "dead", 0.1, code=name)
    heard.observer.metrics.render("")
    assert heard.value("jobsd_attempts_total", queue="other", kind="other", outcome="dead") == 1


# --- what Prometheus reads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accept", "read"), [("", parse), (OPENMETRICS, parse_openmetrics)])
def test_prometheus_own_parsers_read_every_metric(heard: Heard, accept: str, read: Callable[[str], Any]) -> None:
    for say in SAYS.values():
        say(heard.observer)
    for outcome in get_args(observe.Outcome):
        heard.observer.ended(a_job(queue='"quo\\ted"'), outcome, 0.1)
    heard.observer.upkeep.sampled({"default": (1, 2, 3, 4.0)}, {"thumbnail": 1}, {"default": 1})
    heard.observer.watch_slots(lambda: {"default": Slots(3, 100)})
    heard.observer.life.admin_answered("/metrics", 200)
    heard.observer.delivered("push", "hard", "gone", 1)
    heard.observer.checked("shop", "ok", 1)
    heard.observer.upkeep.domain_checked("match")
    heard.observer.upkeep.domain_noticed("verified")
    heard.observer.upkeep.domains_planned(3, 12.5)
    heard.observer.upkeep.domains_counted({"verified": 7, "failed": 1})
    heard.observer.limit_day("relay_day:main", 800, 200)
    heard.observer.limit_share("relay:main", 0.5)
    heard.observer.upkeep.jobs_parked(["old_visits"])
    heard.observer.upkeep.job_rows("old_visits", {"deleted": 7})
    heard.observer.refresh()
    text, content_type = heard.observer.metrics.render(accept)
    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    families = {family.name: family for family in read(text.decode())}
    for spec in heard.observer.metrics.specs:
        plain = {"counter": "_total", "info": "_info"}.get(spec.type, "")
        family = families.get(spec.name) or families[spec.name.removesuffix(plain)]
        assert family.documentation == spec.doc
        assert family.samples, spec.name
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == set(spec.labels)
        assert not any(sample.name.endswith("_created") for sample in family.samples)


def test_a_scrape_answers_when_no_file_can_be_opened(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor_is_free(path: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "listdir", no_descriptor_is_free)
    heard.observer.metrics.render("")
    assert heard.value("jobsd_process_open_fds") is None
    assert heard.value("jobsd_process_cpu_seconds_total")


def test_two_observers_do_not_mix(heard: Heard) -> None:
    other = Observer(heard.log)
    other.life.hint()
    assert heard.value("jobsd_notify_received_total") == 0
    assert other.metrics.registry.get_sample_value("jobsd_notify_received_total") == 1


# --- the event loop ---------------------------------------------------------------------------------------------------


async def test_a_blocked_event_loop_is_measured(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    lags: asyncio.Queue[float] = asyncio.Queue()
    monkeypatch.setattr(heard.observer.life, "loop_lag", lags.put_nowait)
    monkeypatch.setattr(lag, "EVERY_S", 0.01)
    probe = asyncio.create_task(lag.probe(heard.observer))
    await lags.get()
    while not lags.empty():
        lags.get_nowait()
    time.sleep(0.2)  # noqa: ASYNC251 - a handler that does not await; the probe is due 0.01 s into it at the latest
    assert await lags.get() >= 0.15
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
