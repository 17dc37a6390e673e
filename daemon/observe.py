"""The one voice: whatever the daemon says, in its log and its metrics, is said here; one method, one event."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from daemon import events
from daemon.events import Event
from daemon.fields import JobLog, Keep, attempt_fault, fault, is_nobodys, job_fields
from daemon.lines import completed_line
from daemon.log import Logger
from daemon.metrics import Metrics
from daemon.seldom import Seldom
from daemon.series import AllSeries
from jobs.model import Job

Outcome = Literal["done", "retry", "snooze", "dead", "cancelled", "handed_back", "parked"]
Error = BaseException | str

_ENDED: Mapping[str, Event] = {
    "done": events.JOB_COMPLETED,
    "retry": events.JOB_RETRIED,
    "snooze": events.JOB_SNOOZED,
    "dead": events.JOB_DEAD,
    "cancelled": events.JOB_CANCELLED,
    "handed_back": events.JOB_HANDED_BACK,
    "parked": events.JOB_PARKED,
}
_NOT_RUN = frozenset({"handed_back", "parked"})
BLOCKED_S = 1.0
"""An event loop that late is worth a line: heartbeats and time limits are late by as much."""


class QueueSample(NamedTuple):
    """One queue's rows at the moment of a sample."""

    ready: int
    scheduled: int
    running: int
    oldest_ready_age_s: float


class Slots(NamedTuple):
    """One queue's slots in this daemon."""

    used: int
    limit: int


class Observer:
    """Says what happens, as one log line and its metrics.

    Cheap enough to be called for each job, never raises on what a job contains, never waits; any thread may call it.
    `series_max` bounds the values of each label that rows can invent.
    """

    def __init__(self, log: Logger, *, series_max: int = 500, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = Metrics(series_max)
        self.log = log
        self._series = AllSeries(self.metrics, 2 * series_max)
        self._seldom = Seldom(clock)
        self._slots: Callable[[], Mapping[str, Slots]] = dict
        self._started_level = "debug"
        self._has_listened = False

    # --- one attempt ------------------------------------------------------------------------------------------------

    def started(self, job: Job, start_delay_s: float) -> None:
        """`start_delay_s`: from run_at to now, by the database's clock."""
        series = self._series.of(job.queue, job.kind)
        series.delay.observe(start_delay_s)
        if self.log.writes(self._started_level):
            fields = {**job_fields(job), "start_delay_s": round(start_delay_s, 6)}
            self.log.emit(self._started_level, events.JOB_STARTED.name, fields)

    def ended(
        self,
        job: Job,
        outcome: Outcome,
        duration_s: float,
        code: str | None = None,
        reason: str | None = None,
        retry_in_s: float | None = None,
        error: str | None = None,
    ) -> None:
        """`error`: the text of the handler's traceback, where it raised."""
        series = self._series.of(job.queue, job.kind)
        series.count(outcome)
        if outcome == "done":
            series.duration.observe(duration_s)
            series.end_to_end.observe(max(0.0, job.claimed_at - job.run_at) + duration_s)
            if not self.log.writes("info"):
                return
            if self.log.json and series.names is not None and is_nobodys(job):
                line = completed_line(series.names, job.id, job.attempt, duration_s * 1000)
                self.log.emit_line("info", line)
                return
        elif outcome not in _NOT_RUN:
            series.duration.observe(duration_s)
        if outcome == "dead":
            series.end_to_end.observe(max(0.0, job.claimed_at - job.run_at) + duration_s)
        if outcome == "retry":
            self.metrics.retries.child(series.kind, self.metrics.word(code or "retry")).inc()
        elif outcome == "dead":
            self.metrics.dead_letters.child(self.metrics.word(code or "failed")).inc()
        event = events.JOB_FAILED if outcome == "retry" and error else _ENDED[outcome]
        if not self.log.writes(event.level):
            return
        fields = job_fields(job)
        fields["outcome"] = outcome
        fields["duration_ms"] = round(duration_s * 1000, 3)
        if outcome != "done":
            self._add_why(fields, outcome, code, reason, retry_in_s, error)
        self.log.emit(event.level, event.name, fields)

    def log_for(self, job: Job, keep: Keep | None = None) -> JobLog:
        """The `ctx.log` of one attempt; `keep` is given its lines too."""
        return JobLog(self.log, job, keep)

    def poison(self, job_id: int, kind: str, reason: str) -> None:
        """A row that cannot be run became a dead letter; `reason` is a word of a bounded vocabulary.  `ended` is not
        called for it."""
        self.metrics.poison.child(self.metrics.word(reason)).inc()
        self.metrics.dead_letters.child(self.metrics.word(reason)).inc()
        self._say(events.JOB_POISONED, job_id=job_id, job_type=kind, reason=reason)

    def slot_leaked(self, job: Job) -> None:
        self.metrics.leaked.child(self.metrics.queue(job.queue)).inc()
        self._say(events.SLOT_LEAKED, **job_fields(job))

    def late_result(self, job_id: int, kind: str, fence: int) -> None:
        """Once a refused result; this is what counts them."""
        self.metrics.stale.child(self.metrics.kind(kind)).inc()
        self._say(events.LATE_RESULT, job_id=job_id, job_type=kind, fence=fence)

    def result_unwritable(self, job_id: int, kind: str, error: Error) -> None:
        self.metrics.unwritable.child(self.metrics.kind(kind)).inc()
        self._say(events.RESULT_UNWRITABLE, job_id=job_id, job_type=kind, error=fault(error))

    # --- claims and commits -----------------------------------------------------------------------------------------

    def claimed(self, rows: int, seconds: float) -> None:
        self.metrics.claims.inc()
        self.metrics.claim_rows.observe(rows)
        self.metrics.claim_seconds.observe(seconds)
        if self.log.writes("debug"):
            self._say(events.CLAIMED, rows=rows, duration_ms=_ms(seconds))

    def claim_failed(self, error: Error) -> None:
        self.metrics.claim_failures.inc()
        self._say_seldom(events.CLAIM_FAILED, "", error=fault(error))

    def finished(self, rows: int, seconds: float, late: int) -> None:
        """A commit of `rows` results, of which `late` were refused; `late_result` counts those one by one."""
        self.metrics.finish_rows.observe(rows)
        self.metrics.finish_seconds.observe(seconds)
        self.metrics.finish_pending.set(0)
        if self.log.writes("debug"):
            self._say(events.FINISHED, rows=rows, late=late, duration_ms=_ms(seconds))

    def finish_failed(self, error: Error, pending: int, retry_in_s: float) -> None:
        self.metrics.finish_failures.inc()
        self.metrics.finish_pending.set(pending)
        self._say_seldom(events.FINISH_FAILED, "", error=fault(error), pending=pending, retry_in_s=retry_in_s)

    def limited(self, limit: str, rows: int, retry_in_s: float) -> None:
        name = self.metrics.name(limit)
        self.metrics.limited.child(name).inc(rows)
        self.metrics.limit_wait.child(name).observe(retry_in_s)
        if self.log.writes("debug"):
            self._say(events.LIMITED, limit=limit, rows=rows, retry_in_s=retry_in_s)

    def lane_closed(self, lane: str, cause: str, seconds: float, reason: str) -> None:
        self.metrics.lanes_closed.child(cause).inc()
        self._say_seldom(
            events.LANE_CLOSED, lane, lane=lane, cause=cause, seconds=round(seconds, 3), reason=reason[:500]
        )

    def lane_probed(self, lane: str, result: Literal["well", "failed", "unknown"]) -> None:
        self.metrics.lane_probes.child(result).inc()
        if self.log.writes("debug"):
            self._say(events.LANE_PROBED, lane=lane, result=result)

    def lane_opened(self, lane: str) -> None:
        self._say_seldom(events.LANE_OPENED, lane, lane=lane)

    # --- rows in numbers --------------------------------------------------------------------------------------------

    def parked(self, kind: str, queue: str, rows: int) -> None:
        self._say_seldom(events.ROWS_PARKED, kind, job_type=kind, queue=queue, rows=rows)

    def held(self, gate: str, queue: str, rows: int) -> None:
        """Rows met a hold and wait at its gate."""
        self._say_seldom(events.ROWS_HELD, gate, gate=gate, queue=queue, rows=rows)

    def unparked(self, kind: str, rows: int) -> None:
        self._say(events.ROWS_UNPARKED, job_type=kind, rows=rows)

    def expired(self, rows: int) -> None:
        """Rows that passed expires_at before they were claimed; dead letters all."""
        self.metrics.dead_letters.child("expired").inc(rows)
        self._say(events.ROWS_EXPIRED, rows=rows)

    def cancelled_rows(self, rows: int) -> None:
        """Waiting rows that were cancelled; running ones end through `ended`."""
        self.metrics.cancelled.inc(rows)
        self._say(events.ROWS_CANCELLED, rows=rows)

    def rescued(self, worker_id: object, rows: int, dead: int, cause: str = "silent") -> None:
        """`rows` taken back from a daemon, `dead` of them for good, after too many crashes."""
        self.metrics.rescues.child(self.metrics.word(cause)).inc(rows)
        if dead:
            self.metrics.dead_letters.child("crashed").inc(dead)
        self._say(events.ROWS_RESCUED, worker_id=worker_id, rows=rows, dead=dead, cause=cause)

    def sampled(
        self,
        queues: Mapping[str, QueueSample | tuple[int, int, int, float]],
        parked: Mapping[str, int],
        dead: Mapping[str, int],
    ) -> None:
        """The whole table in numbers: {queue: (ready, scheduled, running, age of the oldest ready row in s)}, rows of
        unserved kinds by kind, dead letters by queue.  A queue or kind that is not named any more counts as 0."""
        metrics = self.metrics
        name = metrics.queue
        samples = {queue: QueueSample(*sample) for queue, sample in queues.items()}
        metrics.ready.replace(((name(queue), sample.ready) for queue, sample in samples.items()))
        metrics.scheduled.replace(((name(queue), sample.scheduled) for queue, sample in samples.items()))
        metrics.running.replace(((name(queue), sample.running) for queue, sample in samples.items()))
        metrics.oldest.replace(((name(queue), s.oldest_ready_age_s) for queue, s in samples.items()), max)
        metrics.parked.replace(((metrics.kind(kind), rows) for kind, rows in parked.items()))
        metrics.dead.replace(((name(queue), rows) for queue, rows in dead.items()))
        metrics.sampled.set(time.time())

    def sampling_ended(self) -> None:
        """Another daemon samples from now on: forget the numbers, lest two answers are scraped."""
        metrics = self.metrics
        for gauge in (metrics.ready, metrics.scheduled, metrics.running, metrics.oldest, metrics.parked, metrics.dead):
            gauge.clear()
        metrics.sampled.set(0)

    def paused(self, gate: str, actor: str | None = None, reason: str | None = None) -> None:
        """Of whatever a gate can hold: 'queue:mail', 'kind:webhook', 'org:7', 'lane:example.com'."""
        noun, _, name = gate.partition(":")
        if noun == "queue":
            self.queue_paused(name, actor, reason)
        else:
            self._say(events.PAUSED, name=gate, actor=actor, reason=reason)

    def resumed(self, gate: str) -> None:
        noun, _, name = gate.partition(":")
        if noun == "queue":
            self.queue_resumed(name)
        else:
            self._say(events.RESUMED, name=gate)

    def queue_paused(self, queue: str, actor: str | None = None, reason: str | None = None) -> None:
        self._say(events.QUEUE_PAUSED, queue=queue, actor=actor, reason=reason)

    def queue_resumed(self, queue: str, actor: str | None = None, reason: str | None = None) -> None:
        self._say(events.QUEUE_RESUMED, queue=queue, actor=actor, reason=reason)

    # --- this daemon among others -----------------------------------------------------------------------------------

    def worker_registered(self, worker_id: object) -> None:
        self._say(events.WORKER_REGISTERED, worker_id=worker_id)

    def worker_lost(self, reason: str) -> None:
        self.metrics.lease_lost.inc()
        self._say(events.WORKER_LOST, reason=reason)

    def worker_fenced(self, worker_id: object, running: int) -> None:
        self.metrics.fenced.inc()
        self._say(events.WORKER_FENCED, worker_id=worker_id, running=running)

    def heartbeat(self, seconds: float, skew_s: float) -> None:
        """`skew_s`: the database's clock less this daemon's."""
        self.metrics.heartbeat.observe(seconds)
        self.metrics.skew.set(skew_s)
        if self.log.writes("debug"):
            self._say(events.HEARTBEAT, duration_ms=_ms(seconds), skew_s=round(skew_s, 6))

    def heartbeat_failed(self, error: Error) -> None:
        self.metrics.heartbeat_failures.inc()
        self._say_seldom(events.HEARTBEAT_FAILED, "", error=fault(error))

    def listening(self, seconds_deaf: float) -> None:
        """The first time is no reconnect."""
        if self._has_listened:
            self.metrics.reconnects.inc()
        self._has_listened = True
        self.metrics.connected.set(1)
        self._say(events.LISTENING, seconds_deaf=round(seconds_deaf, 3))

    def deaf(self, error: Error) -> None:
        self.metrics.connected.set(0)
        self._say_seldom(events.DEAF, "", error=fault(error))

    def hint(self) -> None:
        """A notification came.  No line: anybody who may connect can send thousands a second."""
        self.metrics.notifies.inc()

    def pool(self, size: int, idle: int) -> None:
        self.metrics.pool_size.set(size)
        self.metrics.pool_idle.set(idle)

    # --- schedules and upkeep ---------------------------------------------------------------------------------------

    def scheduled(self, schedule: str, tick: datetime | float, job_id: int | None, missed: bool) -> None:
        """This daemon inserted the row of a tick; `missed`: after its time."""
        name = self.metrics.name(schedule)
        at = tick if isinstance(tick, datetime) else datetime.fromtimestamp(tick, UTC)
        self.metrics.ticks.child(name).inc()
        self.metrics.last_tick.labels(name).set(at.timestamp())
        if missed:
            self.metrics.missed.child(name, "run").inc()
        self._say(events.SCHEDULED, schedule=schedule, tick=at, job_id=job_id, missed=missed)

    def tick_skipped(self, schedule: str, count: int, policy: str) -> None:
        self.metrics.missed.child(self.metrics.name(schedule), "skip").inc(count)
        self._say(events.TICK_SKIPPED, schedule=schedule, count=count, policy=policy)

    def schedule_invalid(self, schedule: str, error: Error) -> None:
        self.metrics.invalid.child(self.metrics.name(schedule)).inc()
        self._say(events.SCHEDULE_INVALID, schedule=schedule, error=fault(error))

    def retention(self, table: str, partition: str, action: Literal["created", "dropped"]) -> None:
        self.metrics.partitions.child(self.metrics.name(table), action).inc()
        self._say(events.RETENTION, table=table, partition=partition, action=action)

    def swept(self, table: str, rows: int) -> None:
        """Rows that their queue keeps for less than their day stays are deleted."""
        self.metrics.swept.child(self.metrics.name(table)).inc(rows)
        self._say(events.ROWS_SWEPT, table=table, rows=rows)

    def partitions_sampled(self, tables: Mapping[str, tuple[int, int]]) -> None:
        """{table: (days from today on that have a partition, rows that stand in the default one)}."""
        self.metrics.partitions_ready.replace((table, days) for table, (days, _) in tables.items())
        self.metrics.default_rows.replace((table, rows) for table, (_, rows) in tables.items())
        for table, (days, rows) in tables.items():
            if rows or not days:
                self._say_seldom(events.PARTITION_MISSING, table, table=table, rows=rows)

    def keeper_failed(self, task: str, error: Error) -> None:
        self.metrics.keeper_failures.child(self.metrics.name(task)).inc()
        self._say_seldom(events.KEEPER_FAILED, task, task=task, error=fault(error))

    def task_died(self, name: str, error: Error) -> None:
        self.metrics.deaths.child(self.metrics.name(name.partition(" ")[0])).inc()  # "attempt of job 7" is an attempt
        self._say(events.TASK_DIED, task=name, error=fault(error))

    # --- the daemon's life ------------------------------------------------------------------------------------------

    def daemon_starting(self, version: str) -> None:
        python = platform.python_version()
        self.metrics.build.info({"version": version, "python": python})
        self._say(events.DAEMON_STARTING, version=version, python=python, pid=os.getpid())

    def daemon_ready(self, seconds: float) -> None:
        self._say(events.DAEMON_READY, seconds=round(seconds, 3))

    def daemon_draining(self, running: int) -> None:
        self._say(events.DAEMON_DRAINING, running=running)

    def daemon_stopped(self, seconds: float, handed_back: int) -> None:
        self._say(events.DAEMON_STOPPED, seconds=round(seconds, 3), handed_back=handed_back)

    def migrated(self, name: str, seconds: float) -> None:
        self._say(events.MIGRATED, name=name, seconds=round(seconds, 3))

    def config_loaded(self, path: object, hash: str, warnings: Sequence[str]) -> None:
        self._config_taken(hash)
        self._say(events.CONFIG_LOADED, path=str(path), hash=hash, warnings=list(warnings))

    def reloaded(
        self,
        changed: Sequence[str],
        added: Sequence[str],
        removed: Sequence[str],
        restart_required: Sequence[str],
        hash: str,
    ) -> None:
        """Names of keys, never their values."""
        self._config_taken(hash)
        self.metrics.restart_required.set(len(restart_required))
        self._say(
            events.CONFIG_RELOADED,
            changed=list(changed),
            added=list(added),
            removed=list(removed),
            restart_required=list(restart_required),
            hash=hash,
        )

    def reload_refused(self, errors: Sequence[str]) -> None:
        self.metrics.reload_ok.set(0)
        self._say(events.RELOAD_REFUSED, errors=list(errors))

    def loop_lag(self, seconds: float) -> None:
        self.metrics.lag.observe(seconds)
        if seconds >= BLOCKED_S:
            self._say_seldom(events.LOOP_BLOCKED, "", lag_s=round(seconds, 3))

    def library(self, level: str, logger: str, message: str, error: BaseException | None) -> None:
        """What a library said through `logging` (see daemon.log.Bridge)."""
        self.metrics.library.child(self.metrics.name(logger.partition(".")[0])).inc()
        suppressed = self._seldom.suppressed(logger, self.metrics.name(message.partition("\n")[0][:40]))
        if suppressed is None:
            return
        fields: dict[str, Any] = {"logger": logger, "message": message}
        if error is not None:
            fields["error"] = fault(error)
        if suppressed:
            fields["suppressed"] = suppressed
        self.log.emit(level, events.LIBRARY.name, fields)

    # --- the admin server -------------------------------------------------------------------------------------------

    def admin_listening(self, addresses: Sequence[str]) -> None:
        self._say(events.ADMIN_LISTENING, addresses=list(addresses))

    def admin_answered(self, path: str, status: int) -> None:
        """`path` is one of our own pages or "other".  No line: scrapes and probes come every few seconds."""
        self.metrics.requests.child(path, str(status)).inc()

    def admin_failed(self, path: str, error: Error) -> None:
        self._say_seldom(events.ADMIN_FAILED, path, path=path, error=fault(error))

    def configure(self, level: str, format: str, started: str = "debug") -> None:
        """The [log] section from now on; `started` is the level of job_started."""
        self.log.configure(level, format)
        self._started_level = started

    def watch_slots(self, slots: Callable[[], Mapping[str, Slots]]) -> None:
        """Ask `slots` for {queue: (used, limit)} at each scrape."""
        self._slots = slots

    def refresh(self) -> None:
        """Read what is only read at a scrape.  Call it on the event loop, before `metrics.render` in a thread."""
        slots = [(self.metrics.queue(queue), of) for queue, of in self._slots().items()]
        self.metrics.slots_used.replace(((queue, of.used) for queue, of in slots))
        self.metrics.slots_limit.replace(((queue, of.limit) for queue, of in slots))
        self.metrics.lines_dropped.value = self.log.dropped

    # --- how it is said ---------------------------------------------------------------------------------------------

    def _say(self, event: Event, **fields: Any) -> None:
        self.log.emit(event.level, event.name, {name: value for name, value in fields.items() if value is not None})

    def _say_seldom(self, event: Event, about: str, **fields: Any) -> None:
        """At most one line a second of `event` about one thing: an outage must not fill the disk."""
        suppressed = self._seldom.suppressed(event.name, self.metrics.name(about))
        if suppressed is not None:
            self._say(event, **fields, suppressed=suppressed or None)

    def _add_why(
        self,
        fields: dict[str, Any],
        outcome: str,
        code: str | None,
        reason: str | None,
        retry_in_s: float | None,
        error: str | None,
    ) -> None:
        if code:
            fields["code"] = code
        if reason:
            fields["reason"] = reason[:1000]
        if retry_in_s is not None:
            fields["next_retry_in_s"] = round(retry_in_s, 3)
        if outcome in ("retry", "dead"):
            fields["error"] = attempt_fault(code, reason, error)

    def _config_taken(self, hash: str) -> None:
        self.metrics.reload_ok.set(1)
        self.metrics.reload_time.set(time.time())
        self.metrics.config.info({"hash": hash})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
