"""Every metric the daemon exposes: name, type, labels and meaning.

Names follow prometheus.io/docs/practices/naming: base units, `_total` on counters, and labels over which a sum or an
average makes sense.  tests/pure/test_metrics_lint.py holds them to it; docs/metrics.md is written from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge, Info
from prometheus_client.exposition import choose_encoder

from daemon.bounded import Bounded
from daemon.process import Process
from daemon.tally import Count, Counts, Distribution, Distributions, Levels

PREFIX = "jobsd_"

LABELS: dict[str, str] = {
    "notice": "of an endpoint `warned` or `disabled`; of a domain `verified`, `degraded`, `failed` or `expired`",
    "verdict": "`match`, `mismatch`, `absent` or `indeterminate`",
    "state": "of a domain: `pending`, `verified`, `degraded`, `failed`, `expired`",
    "channel": "`webhook`, `email`, `push` or `sms`",
    "class": "`delivered`, `soft` (tried again), `hard` (never), `unknown` (perhaps), `deferred`, `suppressed`",
    "queue": "the row's queue; the first 500 of them, the rest is `other`",
    "kind": "the row's kind; the first 500 of them, the rest is `other`",
    "outcome": "`done`, `retry`, `snooze`, `dead`, `cancelled`, `handed_back`, `parked`",
    "code": "a word of a bounded vocabulary: `timeout`, `http_503`",
    "reason": "a word of a bounded vocabulary: `expired`, `attempts_spent`",
    "cause": "why rows were taken from a daemon; why a lane was closed: `breaker`, `retry_after`, `quota`",
    "result": "`well`, `failed` or `unknown`",
    "schedule": "the schedule's name",
    "action": "what was done: `run` or `skip` a missed tick, `created` or `dropped` a partition",
    "found": "`ok`, `poor`, `failed` or `unknown`",
    "limit": "the limit's name",
    "table": "the partitioned table",
    "task": "a piece of upkeep or a loop of the daemon",
    "logger": "the library's logger, its first word",
    "path": "the page of the admin server",
    "status": "the HTTP status of the answer",
    "hash": "a digest of the effective configuration, without secrets",
    "version": "the daemon's version",
    "python": "the interpreter's version",
}

# From a claim's few hundred microseconds to a five-minute timeout: about two bounds a decade.
SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
LONG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WAIT_S = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
ROWS = (0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0)


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric as the documentation shows it; `name` as it is exposed."""

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    doc: str
    labels: tuple[str, ...] = ()


class Metrics:
    """A private registry with everything in it, so that two daemons in one process (tests, the demo) do not mix."""

    def __init__(self, series_max: int = 500) -> None:
        self.registry = CollectorRegistry()
        self.specs: list[Spec] = []
        self.queue = Bounded(series_max)
        self.kind = Bounded(series_max)
        self.word = Bounded(series_max)  # codes and reasons, which handlers may invent
        self.name = Bounded(series_max)  # schedules, limits, tables, loggers

        # --- attempts
        self.attempts = self._counts("attempts_total", "Attempts that ended.", "queue", "kind", "outcome")
        self.retries = self._counts("retries_total", "Attempts that failed and are tried again.", "kind", "code")
        self.dead_letters = self._counts("dead_letters_total", "Rows that became dead letters.", "reason")
        self.cancelled = self._count("cancelled_rows_total", "Waiting rows that were cancelled.")
        self.duration = self._distributions(
            "attempt_duration_seconds",
            "How long handlers ran; attempts handed back or parked not counted.",
            LONG_S,
            "kind",
        )
        self.start_delay = self._distributions(
            "start_delay_seconds", "From run_at to the start of the handler: the promise to watch.", WAIT_S, "queue"
        )
        self.end_to_end = self._distributions(
            "end_to_end_seconds", "From the last run_at to the end of jobs that are done or dead.", WAIT_S, "kind"
        )
        self.poison = self._counts("poison_rows_total", "Rows that could not be run at all.", "reason")
        self.leaked = self._counts("slots_leaked_total", "Handlers that ignored their cancellation.", "queue")
        self.slots_used = self._levels("worker_slots_used", "Slots of this daemon with an attempt in them.", "queue")
        self.slots_limit = self._levels("worker_slots_limit", "Slots of this daemon.", "queue")

        # --- the claim, and the commit of results
        self.claims = self._count("claims_total", "Claims that came back.")
        self.claim_failures = self._count("claim_failures_total", "Claims that failed.")
        self.claim_rows = self._distribution("claim_batch_size", "Rows per claim.", ROWS)
        self.claim_seconds = self._distribution("claim_duration_seconds", "How long a claim takes.", SHORT_S)
        self.finish_failures = self._count(
            "finish_failures_total", "Commits of results that failed; they are repeated."
        )
        self.finish_rows = self._distribution("finish_batch_size", "Results per commit.", ROWS)
        self.finish_seconds = self._distribution(
            "finish_duration_seconds", "How long a commit of results takes.", SHORT_S
        )
        self.finish_pending = self._gauge("finish_pending", "Results in memory that Postgres could not take yet.")
        self.stale = self._counts(
            "stale_completions_rejected_total", "Results refused because their row had moved on.", "kind"
        )
        self.unwritable = self._counts("unwritable_results_total", "Results that Postgres cannot store.", "kind")
        self.limited = self._counts("rate_limited_rows_total", "Rows made to wait by a limit.", "limit")
        self.limit_wait = self._distributions(
            "rate_limit_wait_seconds", "How long a limit makes rows wait.", WAIT_S, "limit"
        )
        self.limit_day_used = self._levels(
            "limit_day_used", "Of so many a day: lent by now, over all daemons, when this one asked last.", "limit"
        )
        self.limit_day_left = self._levels("limit_day_left", "Of so many a day: what was left then.", "limit")
        self.limit_share = self._levels(
            "limit_rate_share", "The part of a relay's rate that is in force; less than 1 after it throttled.", "limit"
        )
        self.limit_slowdowns = self._counts(
            "limit_slowdowns_total", "Times this daemon halved a relay's rate, since the relay asked for less.", "limit"
        )

        self.lanes_closed = self._counts("lane_closings_total", "Times this daemon closed a destination.", "cause")
        self.lane_probes = self._counts("lane_probes_total", "Rows that tried a closed destination.", "result")

        self.deliveries = self._counts(
            "deliveries_total",
            "Attempts to deliver, one for each recipient of a mail, as the delivery logs have them.",
            "channel",
            "class",
            "code",
        )
        self.monitor_checks = self._counts("monitor_checks_total", "Checks of monitors.", "kind", "found")
        self.endpoint_notices = self._counts(
            "webhook_endpoint_notices_total", "Webhook endpoints that this daemon warned of or disabled.", "notice"
        )

        self.domain_checks = self._counts("domain_checks_total", "Checks of registered domains.", "verdict")
        self.domain_changes = self._counts(
            "domain_changes_total", "Registered domains that a check brought to another state.", "state"
        )
        self.domains = self._levels(
            "domains", "Registered domains; exact up to 10,000 in a state, verified ones estimated beyond.", "state"
        )
        self.domain_notices = self._counts("domain_notices_total", "Notices to owners of domains.", "notice")
        self.domains_planned = self._count("domains_planned_total", "Checks of domains that this daemon inserted.")
        self.domains_late = self._gauge(
            "domains_late_seconds", "How long the first of the domains planned last had been due."
        )

        # --- the table, as the last sample saw it
        self.ready = self._levels(
            "ready", "Rows due and waiting; exact up to 1,000 in a class of priority, estimated beyond.", "queue"
        )
        self.scheduled = self._levels(
            "scheduled", "Rows whose run_at is still to come; exact and estimated as jobsd_ready.", "queue"
        )
        self.running = self._levels("running", "Rows running, as all daemons said at their last heartbeat.", "queue")
        self.dead = self._levels("dead", "Dead letters kept; estimated beyond 1,000 in all.", "queue")
        self.oldest = self._levels("oldest_ready_age_seconds", "How long the oldest waiting row has been due.", "queue")
        self.parked = self._levels("parked", "Rows of kinds that no daemon serves.", "kind")
        self.catalogue_parked = self._levels(
            "catalogue_parked",
            "1 while a job of [jobs.NAME] is parked: the database does not have what it names.",
            "kind",
        )
        self.catalogue_rows = self._counts(
            "catalogue_rows_total", "Rows that jobs of [jobs.NAME] have dealt with, by what was done.", "kind", "action"
        )
        self.sampled = self._gauge("sample_timestamp_seconds", "When this daemon last looked at the table, since 1970.")

        # --- leases and rescue
        self.lease_lost = self._count("lease_lost_total", "Times this daemon found its lease gone.")
        self.fenced = self._count(
            "self_fences_total", "Times this daemon stopped its own attempts, its lease near its end."
        )
        self.rescues = self._counts("rescues_total", "Rows taken back from a daemon.", "cause")
        self.heartbeat = self._distribution("heartbeat_duration_seconds", "How long renewing the lease takes.", SHORT_S)
        self.heartbeat_failures = self._count("heartbeat_failures_total", "Renewals of the lease that failed.")
        self.skew = self._gauge("db_clock_skew_seconds", "The database's clock less this daemon's.")

        # --- notifications and connections
        self.notifies = self._count("notify_received_total", "Notifications heard.")
        self.reconnects = self._count("listener_reconnects_total", "Times the listener came back after it was deaf.")
        self.connected = self._gauge("listener_connected", "1 while notifications are heard.")
        self.pool_size = self._gauge("db_pool_size", "Open connections in the pool.")
        self.pool_idle = self._gauge("db_pool_idle", "Connections that nobody uses.")

        # --- schedules and upkeep
        self.ticks = self._counts("schedule_ticks_total", "Rows inserted by this daemon for a schedule.", "schedule")
        self.last_tick = self._gauge("schedule_last_tick_timestamp_seconds", "The last tick, since 1970.", "schedule")
        self.missed = self._counts("schedule_missed_total", "Ticks found after their time.", "schedule", "action")
        self.invalid = self._counts("schedule_invalid_total", "Schedules that could not be read.", "schedule")
        self.partitions = self._counts("partitions_total", "Partitions made or dropped.", "table", "action")
        self.partitions_ready = self._levels(
            "partitions_ready", "Partitions that are there from today on, one a day.", "table"
        )
        self.default_rows = self._levels(
            "default_partition_rows",
            "Rows no day's partition was there for, up to 10,000; 0 when all is well.",
            "table",
        )
        self.swept = self._counts("swept_rows_total", "Rows deleted since their queue keeps them no longer.", "table")
        self.keeper_failures = self._counts("keeper_failures_total", "Pieces of upkeep that failed.", "task")
        self.deaths = self._counts("task_deaths_total", "Loops of the daemon that ended when they should not.", "task")

        # --- the daemon itself
        self.lag = self._distribution("event_loop_lag_seconds", "How late the event loop is.", SHORT_S)
        self.reload_ok = self._gauge("config_last_reload_successful", "1 if the last configuration read was taken.")
        self.reload_time = self._gauge(
            "config_last_reload_success_timestamp_seconds", "When a configuration was last taken, since 1970."
        )
        self.restart_required = self._gauge("config_restart_required", "Changed keys that wait for a restart.")
        self.config = self._info("config_info", "Which configuration counts.", "hash")
        self.build = self._info("build_info", "Which daemon this is.", "version", "python")
        self.lines_dropped = self._count("log_lines_dropped_total", "Log lines lost because their reader was too slow.")
        self.library = self._counts("library_warnings_total", "Warnings and errors of libraries.", "logger")
        self.requests = self._counts("admin_requests_total", "Answers of the admin server.", "path", "status")
        self._add_process()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, OpenMetrics where `accept` asks for it.  About 7 µs a line, so call it
        in a thread."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counts(self, name: str, doc: str, *labels: str) -> Counts:
        self.specs.append(Spec(PREFIX + name, "counter", doc, labels))
        counts = Counts(PREFIX + name, doc, labels)
        self.registry.register(counts)
        return counts

    def _count(self, name: str, doc: str) -> Count:
        return self._counts(name, doc).child()

    def _distributions(self, name: str, doc: str, bounds: Sequence[float], *labels: str) -> Distributions:
        self.specs.append(Spec(PREFIX + name, "histogram", doc, labels))
        distributions = Distributions(PREFIX + name, doc, labels, bounds)
        self.registry.register(distributions)
        return distributions

    def _distribution(self, name: str, doc: str, bounds: Sequence[float]) -> Distribution:
        return self._distributions(name, doc, bounds).child()

    def _gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        self.specs.append(Spec(PREFIX + name, "gauge", doc, labels))
        return Gauge(PREFIX + name, doc, labels, registry=self.registry)

    def _levels(self, name: str, doc: str, label: str) -> Levels:
        self.specs.append(Spec(PREFIX + name, "gauge", doc, (label,)))
        levels = Levels(PREFIX + name, doc, label)
        self.registry.register(levels)
        return levels

    def _info(self, name: str, doc: str, *labels: str) -> Info:
        self.specs.append(Spec(PREFIX + name, "info", doc, labels))
        return Info(PREFIX + name.removesuffix("_info"), doc, registry=self.registry)

    def _add_process(self) -> None:
        process = Process()
        self.registry.register(process)
        for family in process.collect():
            counter = family.type == "counter"
            name = family.name + "_total" if counter else family.name
            self.specs.append(Spec(name, "counter" if counter else "gauge", family.documentation))
