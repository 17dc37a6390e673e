"""The closed catalogue of what the daemon says in its log: each event's name, level, meaning and fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]
LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

FIELDS: dict[str, str] = {
    "ts": "when, RFC 3339 in UTC with microseconds; the daemon's clock",
    "level": "`debug`, `info`, `warning` or `error`",
    "event": "the name in this catalogue; lines of handlers have names of their own",
    "job_id": "the row's id",
    "job_type": "the row's kind",
    "gate": "where the rows wait: what is paused or closed",
    "queue": "the row's queue",
    "attempt": "1 for the first",
    "organization_id": "the row's `org_id`",
    "project_id": "the row's `project_id`",
    "actor_id": "the row's `actor_id`",
    "correlation_id": "the row's `correlation_id`",
    "trace_id": "the trace id in the row's `traceparent`",
    "outcome": "`done`, `retry`, `snooze`, `dead`, `cancelled`, `handed_back` or `parked`",
    "duration_ms": "how long it took, in milliseconds",
    "next_retry_in_s": "seconds until it is tried again",
    "start_delay_s": "seconds from `run_at` to the start of the handler; the database's clock",
    "code": "a word of a bounded vocabulary: `timeout`, `http_503`",
    "reason": "why, for people",
    "error": "`class`, `message` and, where there was an exception, `trace`",
    "fence": "the token of the attempt that came too late",
    "rows": "how many rows",
    "late": "results refused because their row had moved on",
    "dead": "rows that became dead letters",
    "pending": "results kept in memory until Postgres takes them",
    "suppressed": "lines of this event left out since the last one; at most one a second is written",
    "cause": "why the rows were taken back; of a lane: `breaker`, `retry_after` or `quota`",
    "worker_id": "the daemon's row in `job_workers`",
    "running": "attempts running at that moment",
    "handed_back": "rows given back unfinished; it costs them no attempt",
    "skew_s": "the database's clock less the daemon's",
    "seconds_deaf": "seconds without notifications before this",
    "table": "the table",
    "partition": "the partition",
    "action": "`created` or `dropped`",
    "schedule": "the schedule's name",
    "tick": "the moment that the schedule stands for",
    "missed": "true when it is caught up after its time",
    "count": "how many ticks",
    "policy": "`skip`, `one` or `all`",
    "limit": "the limit's name",
    "lane": "the destination: host, relay or domain",
    "share": "the part of its rate that is left, 1 for all of it",
    "endpoint_id": "the row in `webhook_endpoints`",
    "domain": "the registered domain",
    "state": "what it is now: `pending`, `verified`, `degraded`, `failed` or `expired`",
    "state_before": "what it was",
    "result": "`well`, `failed` or `unknown`",
    "retry_in_s": "seconds until the next try",
    "path": "the file, or the address asked for",
    "hash": "a digest of the effective configuration, without secrets",
    "warnings": "doubtful values, one sentence each",
    "changed": "keys whose value is another",
    "added": "keys that are new",
    "removed": "keys that are gone",
    "restart_required": "changed keys that count only after a restart",
    "errors": "everything wrong with the file, one sentence each",
    "version": "the daemon's version",
    "python": "the interpreter's version",
    "pid": "the process id",
    "seconds": "how long it took",
    "name": "the migration, the task, or the gate that was paused",
    "task": "which piece of upkeep",
    "lag_s": "seconds the event loop was late",
    "addresses": "where the admin server listens",
    "actor": "who asked for it",
    "logger": "the library's logger",
    "message": "the library's words",
    "lines": "how many lines were lost",
}

JOB = ("job_id", "job_type", "queue", "attempt")
CALLER = ("organization_id", "project_id", "actor_id", "correlation_id", "trace_id")
ENDED = (*JOB, *CALLER, "outcome", "duration_ms")
FAILED = (*ENDED, "code", "reason", "next_retry_in_s", "error")


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of line.  `fields`: what it may carry beside ts, level and event; one without a value is left out."""

    name: str
    level: Level
    doc: str
    fields: tuple[str, ...]


EVENTS: dict[str, Event] = {}


def _event(name: str, level: Level, doc: str, *fields: str) -> Event:
    EVENTS[name] = Event(name, level, doc, fields)
    return EVENTS[name]


JOB_STARTED = _event("job_started", "debug", "A handler is about to be called.", *JOB, *CALLER, "start_delay_s")
JOB_COMPLETED = _event("job_completed", "info", "The work is done.", *ENDED)
JOB_FAILED = _event("job_failed", "warning", "The handler raised; the job is tried again.", *FAILED)
JOB_RETRIED = _event("job_retried", "warning", "It did not work this time; the job is tried again.", *FAILED)
JOB_SNOOZED = _event("job_snoozed", "info", "Not now; tried again later, and no attempt is charged.", *FAILED)
JOB_DEAD = _event("job_dead", "error", "No further attempt: the row is a dead letter.", *FAILED)
JOB_CANCELLED = _event("job_cancelled", "info", "Somebody no longer wants it.", *FAILED)
JOB_HANDED_BACK = _event("job_handed_back", "info", "Given back unfinished; no attempt is charged.", *FAILED)
JOB_PARKED = _event("job_parked", "warning", "Put aside until a daemon serves its kind.", *FAILED)
JOB_POISONED = _event(
    "job_poisoned", "error", "A row that cannot be run at all is a dead letter; its neighbours run.", *JOB[:2], "reason"
)
SLOT_LEAKED = _event("slot_leaked", "error", "A handler ignores its cancellation and keeps its slot.", *JOB, *CALLER)
LATE_RESULT = _event(
    "late_result", "warning", "A result was refused: its row had moved on to another attempt.", *JOB[:2], "fence"
)
RESULT_UNWRITABLE = _event(
    "result_unwritable", "error", "Postgres refuses this result; a plain one is written instead.", *JOB[:2], "error"
)

CLAIMED = _event("claimed", "debug", "A claim came back.", "rows", "duration_ms")
CLAIM_FAILED = _event("claim_failed", "warning", "A claim failed; it is tried again.", "error", "suppressed")
FINISHED = _event("finished", "debug", "A group of results was committed.", "rows", "late", "duration_ms")
FINISH_FAILED = _event(
    "finish_failed",
    "warning",
    "Results could not be committed; they are kept and tried again.",
    "error",
    "pending",
    "retry_in_s",
    "suppressed",
)
ROWS_PARKED = _event(
    "rows_parked", "warning", "Rows wait: no daemon serves their kind.", "job_type", "queue", "rows", "suppressed"
)
ROWS_HELD = _event(
    "rows_held", "info", "Rows wait: what they need is paused or closed.", "gate", "queue", "rows", "suppressed"
)
ROWS_UNPARKED = _event("rows_unparked", "info", "Rows go on: their kind is served again.", "job_type", "rows")
CATALOGUE_PARKED = _event(
    "catalogue_parked",
    "warning",
    "A job of the config is parked: the database does not have what it names.",
    "job_type",
    "reason",
)
CATALOGUE_UNPARKED = _event("catalogue_unparked", "info", "A parked job of the config runs again.", "job_type")
FORWARDS_GIVEN_UP = _event(
    "forwards_given_up", "info", "Forwards whose job is no more, or that are too old, failed.", "rows"
)
ROWS_EXPIRED = _event("rows_expired", "info", "Rows passed their expires_at and are dead letters.", "rows")
ROWS_CANCELLED = _event("rows_cancelled", "info", "Waiting rows were cancelled.", "rows")
ROWS_RESCUED = _event(
    "rows_rescued", "warning", "Rows of a silent daemon were taken back.", "worker_id", "rows", "dead", "cause"
)
LIMITED = _event("limited", "debug", "Rows wait for a limit.", "limit", "rows", "retry_in_s")
RELAY_THROTTLED = _event(
    "relay_throttled",
    "warning",
    "A relay finds it too much: all daemons send it half as much, and a tenth of its rate more each minute.",
    "lane",
    "share",
    "reason",
)
LANE_CLOSED = _event(
    "lane_closed",
    "warning",
    "A destination is left alone: its rows are not claimed.",
    "lane",
    "cause",
    "seconds",
    "reason",
    "suppressed",
)
ENDPOINT_WARNED = _event(
    "endpoint_warned",
    "warning",
    "A webhook endpoint has only failed for long, and will be disabled.",
    "endpoint_id",
    "organization_id",
    "name",
    "reason",
)
ENDPOINT_DISABLED = _event(
    "endpoint_disabled",
    "error",
    "A webhook endpoint was disabled, by what it answered or did not: its deliveries wait.",
    "endpoint_id",
    "organization_id",
    "name",
    "reason",
)
DOMAIN_CHANGED = _event(
    "domain_changed",
    "info",
    "A check brought a registered domain to another state.",
    "domain",
    "organization_id",
    "state_before",
    "state",
    "reason",
)
PROFILE_UNKNOWN = _event(
    "profile_unknown",
    "warning",
    "A webhook endpoint asks for a retry profile that this config does not have, and gets the default.",
    "name",
    "lane",
)
LANE_PROBED = _event("lane_probed", "debug", "One row tried a closed destination.", "lane", "result")
LANE_OPENED = _event("lane_opened", "info", "A destination is sent to again, at first a little.", "lane", "suppressed")
PAUSED = _event("paused", "info", "A kind, an organisation or a lane is no longer claimed.", "name", "actor", "reason")
RESUMED = _event("resumed", "info", "A kind, an organisation or a lane is claimed again.", "name")
QUEUE_PAUSED = _event("queue_paused", "info", "A queue is no longer claimed from.", "queue", "actor", "reason")
QUEUE_RESUMED = _event("queue_resumed", "info", "A queue is claimed from again.", "queue", "actor", "reason")

WORKER_REGISTERED = _event("worker_registered", "info", "This daemon has its row in job_workers.", "worker_id")
WORKER_LOST = _event("worker_lost", "error", "This daemon's lease is gone; it registers anew.", "reason")
WORKER_FENCED = _event(
    "worker_fenced",
    "error",
    "No heartbeat came through: attempts are stopped before somebody else takes them.",
    "worker_id",
    "running",
)
HEARTBEAT = _event("heartbeat", "debug", "The lease was renewed.", "duration_ms", "skew_s")
HEARTBEAT_FAILED = _event("heartbeat_failed", "warning", "The lease was not renewed.", "error", "suppressed")
LISTENING = _event("listening", "info", "Notifications are heard.", "seconds_deaf")
DEAF = _event("deaf", "warning", "No notifications; polling goes on.", "error", "suppressed")

SCHEDULED = _event("schedule_ticked", "info", "A schedule's row was inserted.", "schedule", "tick", "job_id", "missed")
TICK_SKIPPED = _event("schedule_skipped", "warning", "Missed ticks were left out.", "schedule", "count", "policy")
SCHEDULE_INVALID = _event(
    "schedule_invalid", "error", "A schedule cannot be read and stands still.", "schedule", "error"
)

DAEMON_STARTING = _event("daemon_starting", "info", "The process has begun.", "version", "python", "pid")
DAEMON_READY = _event("daemon_ready", "info", "Rows are taken.", "seconds")
DAEMON_DRAINING = _event("daemon_draining", "info", "No more rows are taken; the running ones end.", "running")
DAEMON_STOPPED = _event("daemon_stopped", "info", "Everything is written down; good-bye.", "seconds", "handed_back")
MIGRATED = _event("migrated", "info", "A migration was applied.", "name", "seconds")
CONFIG_LOADED = _event("config_loaded", "info", "The configuration was read.", "path", "hash", "warnings")
CONFIG_RELOADED = _event(
    "config_reloaded",
    "info",
    "A new configuration counts from now on.",
    "changed",
    "added",
    "removed",
    "restart_required",
    "hash",
)
RELOAD_REFUSED = _event("reload_refused", "error", "A new configuration is wrong; the old one stays.", "errors")
RETENTION = _event("retention", "info", "A partition was made ahead or dropped.", "table", "partition", "action")
ROWS_SWEPT = _event("rows_swept", "info", "Rows that their queue keeps no longer were deleted.", "table", "rows")
PARTITION_MISSING = _event(
    "partition_missing",
    "error",
    "Today has no partition, or rows stand in the default one: somebody holds a lock on the table.",
    "table",
    "rows",
    "suppressed",
)
KEEPER_FAILED = _event("keeper_failed", "warning", "A piece of upkeep failed.", "task", "error", "suppressed")
TASK_DIED = _event("task_died", "error", "A loop of the daemon ended when it should not.", "task", "error")
LOOP_BLOCKED = _event("loop_blocked", "warning", "The event loop stood still.", "lag_s", "suppressed")
ADMIN_LISTENING = _event("admin_listening", "info", "The admin server answers.", "addresses")
ADMIN_FAILED = _event("admin_failed", "error", "An admin page failed.", "path", "error", "suppressed")
LIBRARY = _event(
    "library", "warning", "A library's warning or error, at its own level.", "logger", "message", "error", "suppressed"
)
LOG_LINES_DROPPED = _event("log_lines_dropped", "warning", "The log's reader was too slow; lines are lost.", "lines")
