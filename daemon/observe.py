"""Whatever the daemon says, in its log and its metrics, is said by the observer; one method, one event.

Here: what it says of attempts, claims and commits; its parts `upkeep` and `life` say the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from daemon import events
from daemon.events import Event
from daemon.fields import JobLog, Keep, attempt_fault, fault, is_nobodys, job_fields
from daemon.lines import completed_line
from daemon.log import Logger
from daemon.metrics import Metrics
from daemon.observe_life import LifeObserver
from daemon.observe_upkeep import UpkeepObserver
from daemon.series import AllSeries
from daemon.voice import Error, Voice, ms
from jobs.model import Job

Outcome = Literal["done", "retry", "snooze", "dead", "cancelled", "handed_back", "parked"]

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
        self._voice = Voice(log, self.metrics, clock)
        self.upkeep = UpkeepObserver(self._voice)
        self.life = LifeObserver(self._voice)
        self._slots: Callable[[], Mapping[str, Slots]] = dict
        self._started_level = "debug"

    # --- settings and scrapes -----------------------------------------------------------------------------------------

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

    # --- one attempt --------------------------------------------------------------------------------------------------

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
        self._voice.say(events.JOB_POISONED, job_id=job_id, job_type=kind, reason=reason)

    def slot_leaked(self, job: Job) -> None:
        self.metrics.leaked.child(self.metrics.queue(job.queue)).inc()
        self._voice.say(events.SLOT_LEAKED, **job_fields(job))

    def late_result(self, job_id: int, kind: str, fence: int) -> None:
        """Once a refused result; this is what counts them."""
        self.metrics.stale.child(self.metrics.kind(kind)).inc()
        self._voice.say(events.LATE_RESULT, job_id=job_id, job_type=kind, fence=fence)

    def result_unwritable(self, job_id: int, kind: str, error: Error) -> None:
        self.metrics.unwritable.child(self.metrics.kind(kind)).inc()
        self._voice.say(events.RESULT_UNWRITABLE, job_id=job_id, job_type=kind, error=fault(error))

    # --- claims and commits -------------------------------------------------------------------------------------------

    def claimed(self, rows: int, seconds: float) -> None:
        self.metrics.claims.inc()
        self.metrics.claim_rows.observe(rows)
        self.metrics.claim_seconds.observe(seconds)
        if self.log.writes("debug"):
            self._voice.say(events.CLAIMED, rows=rows, duration_ms=ms(seconds))

    def claim_failed(self, error: Error) -> None:
        self.metrics.claim_failures.inc()
        self._voice.say_seldom(events.CLAIM_FAILED, "", error=fault(error))

    def finished(self, rows: int, seconds: float, late: int) -> None:
        """A commit of `rows` results, of which `late` were refused; `late_result` counts those one by one."""
        self.metrics.finish_rows.observe(rows)
        self.metrics.finish_seconds.observe(seconds)
        self.metrics.finish_pending.set(0)
        if self.log.writes("debug"):
            self._voice.say(events.FINISHED, rows=rows, late=late, duration_ms=ms(seconds))

    def finish_failed(self, error: Error, pending: int, retry_in_s: float) -> None:
        self.metrics.finish_failures.inc()
        self.metrics.finish_pending.set(pending)
        self._voice.say_seldom(events.FINISH_FAILED, "", error=fault(error), pending=pending, retry_in_s=retry_in_s)

    def delivered(self, channel: str, result: str, code: str, attempts: int) -> None:
        """So many alike, in the delivery logs' common words."""
        self.metrics.deliveries.child(channel, result, self.metrics.word(code)).inc(attempts)

    def checked(self, kind: str, found: str, checks: int) -> None:
        """So many alike of one monitor."""
        self.metrics.monitor_checks.child(self.metrics.kind(kind), found).inc(checks)

    def limited(self, limit: str, rows: int, retry_in_s: float) -> None:
        name = self.metrics.name(limit)
        self.metrics.limited.child(name).inc(rows)
        self.metrics.limit_wait.child(name).observe(retry_in_s)
        if self.log.writes("debug"):
            self._voice.say(events.LIMITED, limit=limit, rows=rows, retry_in_s=retry_in_s)

    def limit_day(self, limit: str, used: int, left: int) -> None:
        """What the database says of so many a day, as it lends from them."""
        name = self.metrics.name(limit)
        self.metrics.limit_day_used.put(name, used)
        self.metrics.limit_day_left.put(name, left)

    def limit_share(self, limit: str, share: float) -> None:
        """And of a rate that may be slowed."""
        self.metrics.limit_share.put(self.metrics.name(limit), share)

    def relay_throttled(self, limit: str, relay: str, share: float, said: str) -> None:
        self.metrics.limit_slowdowns.child(self.metrics.name(limit)).inc()
        self._voice.say(events.RELAY_THROTTLED, lane=relay, share=round(share, 3), reason=said[:500])

    def lane_closed(self, lane: str, cause: str, seconds: float, reason: str) -> None:
        self.metrics.lanes_closed.child(cause).inc()
        self._voice.say_seldom(
            events.LANE_CLOSED, lane, lane=lane, cause=cause, seconds=round(seconds, 3), reason=reason[:500]
        )

    def profile_unknown(self, profile: str, lane: str | None) -> None:
        """Once for each profile of each setup."""
        self._voice.say(events.PROFILE_UNKNOWN, name=profile, lane=lane)

    def lane_probed(self, lane: str, result: Literal["well", "failed", "unknown"]) -> None:
        self.metrics.lane_probes.child(result).inc()
        if self.log.writes("debug"):
            self._voice.say(events.LANE_PROBED, lane=lane, result=result)

    def lane_opened(self, lane: str) -> None:
        self._voice.say_seldom(events.LANE_OPENED, lane, lane=lane)

    def parked(self, kind: str, queue: str, rows: int) -> None:
        self._voice.say_seldom(events.ROWS_PARKED, kind, job_type=kind, queue=queue, rows=rows)

    def held(self, gate: str, queue: str, rows: int) -> None:
        """Rows met a hold and wait at its gate."""
        self._voice.say_seldom(events.ROWS_HELD, gate, gate=gate, queue=queue, rows=rows)

    def unparked(self, kind: str, rows: int) -> None:
        self._voice.say(events.ROWS_UNPARKED, job_type=kind, rows=rows)

    # --- any part of the daemon ---------------------------------------------------------------------------------------

    def keeper_failed(self, task: str, error: Error) -> None:
        self.metrics.keeper_failures.child(self.metrics.name(task)).inc()
        self._voice.say_seldom(events.KEEPER_FAILED, task, task=task, error=fault(error))

    def task_died(self, name: str, error: Error) -> None:
        self.metrics.deaths.child(self.metrics.name(name.partition(" ")[0])).inc()  # "attempt of job 7" is an attempt
        self._voice.say(events.TASK_DIED, task=name, error=fault(error))

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
