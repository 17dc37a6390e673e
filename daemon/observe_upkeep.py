"""What upkeep and schedules say: of rows in numbers, of holds, ticks, partitions; one method, one event."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from daemon import events
from daemon.fields import fault
from daemon.voice import Error, Voice


class QueueSample(NamedTuple):
    """One queue's rows at the moment of a sample."""

    ready: int
    scheduled: int
    running: int
    oldest_ready_age_s: float


class UpkeepObserver:
    """Part of daemon.observe.Observer, and as careful."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self.metrics = voice.metrics

    def expired(self, rows: int) -> None:
        """Rows that passed expires_at before they were claimed; dead letters all."""
        self.metrics.dead_letters.child("expired").inc(rows)
        self._voice.say(events.ROWS_EXPIRED, rows=rows)

    def forwards_given_up(self, rows: int) -> None:
        """Forwards whose job is no more, or that are too old."""
        self._voice.say(events.FORWARDS_GIVEN_UP, rows=rows)

    def cancelled_rows(self, rows: int) -> None:
        """Waiting rows that were cancelled; running ones end through `ended`."""
        self.metrics.cancelled.inc(rows)
        self._voice.say(events.ROWS_CANCELLED, rows=rows)

    def rescued(self, worker_id: object, rows: int, dead: int, cause: str = "silent") -> None:
        """`rows` taken back from a daemon, `dead` of them for good, after too many crashes."""
        self.metrics.rescues.child(self.metrics.word(cause)).inc(rows)
        if dead:
            self.metrics.dead_letters.child("crashed").inc(dead)
        self._voice.say(events.ROWS_RESCUED, worker_id=worker_id, rows=rows, dead=dead, cause=cause)

    def endpoint_warned(self, endpoint: int, org_id: str | None, name: str, why: str) -> None:
        self.metrics.endpoint_notices.child("warned").inc()
        self._voice.say(events.ENDPOINT_WARNED, endpoint_id=endpoint, organization_id=org_id, name=name, reason=why)

    def endpoint_disabled(self, endpoint: int, org_id: str | None, name: str, why: str) -> None:
        self.metrics.endpoint_notices.child("disabled").inc()
        self._voice.say(events.ENDPOINT_DISABLED, endpoint_id=endpoint, organization_id=org_id, name=name, reason=why)

    def domain_checked(self, verdict: str) -> None:
        self.metrics.domain_checks.child(self.metrics.word(verdict)).inc()

    def domain_noticed(self, notice: str) -> None:
        self.metrics.domain_notices.child(self.metrics.word(notice)).inc()

    def domain_changed(self, domain: str, org_id: str | None, before: str, state: str, why: str) -> None:
        """A check brought it to another state."""
        self.metrics.domain_changes.child(self.metrics.word(state)).inc()
        self._voice.say(
            events.DOMAIN_CHANGED, domain=domain, organization_id=org_id, state_before=before, state=state, reason=why
        )

    def domains_planned(self, rows: int, late_s: float) -> None:
        """Checks inserted for domains that were due, the oldest of them for `late_s`; of none, nothing is late."""
        self.metrics.domains_planned.inc(rows)
        self.metrics.domains_late.set(late_s)

    def domains_counted(self, states: Mapping[str, int]) -> None:
        """How many domains are in each state; none at all says nothing."""
        self.metrics.domains.replace(states.items() if any(states.values()) else ())

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
            self._voice.say(events.PAUSED, name=gate, actor=actor, reason=reason)

    def resumed(self, gate: str) -> None:
        noun, _, name = gate.partition(":")
        if noun == "queue":
            self.queue_resumed(name)
        else:
            self._voice.say(events.RESUMED, name=gate)

    def queue_paused(self, queue: str, actor: str | None = None, reason: str | None = None) -> None:
        self._voice.say(events.QUEUE_PAUSED, queue=queue, actor=actor, reason=reason)

    def queue_resumed(self, queue: str, actor: str | None = None, reason: str | None = None) -> None:
        self._voice.say(events.QUEUE_RESUMED, queue=queue, actor=actor, reason=reason)

    def scheduled(self, schedule: str, tick: datetime | float, job_id: int | None, missed: bool) -> None:
        """This daemon inserted the row of a tick; `missed`: after its time."""
        name = self.metrics.name(schedule)
        at = tick if isinstance(tick, datetime) else datetime.fromtimestamp(tick, UTC)
        self.metrics.ticks.child(name).inc()
        self.metrics.last_tick.labels(name).set(at.timestamp())
        if missed:
            self.metrics.missed.child(name, "run").inc()
        self._voice.say(events.SCHEDULED, schedule=schedule, tick=at, job_id=job_id, missed=missed)

    def tick_skipped(self, schedule: str, count: int, policy: str) -> None:
        self.metrics.missed.child(self.metrics.name(schedule), "skip").inc(count)
        self._voice.say(events.TICK_SKIPPED, schedule=schedule, count=count, policy=policy)

    def schedule_invalid(self, schedule: str, error: Error) -> None:
        self.metrics.invalid.child(self.metrics.name(schedule)).inc()
        self._voice.say(events.SCHEDULE_INVALID, schedule=schedule, error=fault(error))

    def job_parked(self, name: str, reason: str) -> None:
        """The database does not have what a job of the config names."""
        self._voice.say(events.CATALOGUE_PARKED, job_type=name, reason=reason)

    def job_unparked(self, name: str) -> None:
        self._voice.say(events.CATALOGUE_UNPARKED, job_type=name)

    def jobs_parked(self, names: Collection[str]) -> None:
        """All of them."""
        self.metrics.catalogue_parked.replace((self.metrics.kind(name), 1) for name in names)

    def job_rows(self, name: str, result: Mapping[str, Any]) -> None:
        """What a run of a job of the config has counted."""
        for what, rows in result.items():
            if isinstance(rows, int) and not isinstance(rows, bool) and rows > 0:
                self.metrics.catalogue_rows.child(self.metrics.kind(name), self.metrics.word(what)).inc(rows)

    def retention(self, table: str, partition: str, action: Literal["created", "dropped"]) -> None:
        self.metrics.partitions.child(self.metrics.name(table), action).inc()
        self._voice.say(events.RETENTION, table=table, partition=partition, action=action)

    def swept(self, table: str, rows: int) -> None:
        """Rows that their queue keeps for less than their day stays are deleted."""
        self.metrics.swept.child(self.metrics.name(table)).inc(rows)
        self._voice.say(events.ROWS_SWEPT, table=table, rows=rows)

    def partitions_sampled(self, tables: Mapping[str, tuple[int, int]]) -> None:
        """{table: (days from today on that have a partition, rows that stand in the default one)}."""
        self.metrics.partitions_ready.replace((table, days) for table, (days, _) in tables.items())
        self.metrics.default_rows.replace((table, rows) for table, (_, rows) in tables.items())
        for table, (days, rows) in tables.items():
            if rows or not days:
                self._voice.say_seldom(events.PARTITION_MISSING, table, table=table, rows=rows)
