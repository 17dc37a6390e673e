"""The series of one (queue, kind), looked up once and then at hand for each attempt."""

from __future__ import annotations

from daemon.bounded import OTHER
from daemon.lines import names_part
from daemon.metrics import Metrics
from daemon.tally import Count


class Series:
    """What one attempt adds to."""

    __slots__ = ("_metrics", "_outcomes", "delay", "duration", "end_to_end", "kind", "names", "queue")

    def __init__(self, metrics: Metrics, queue: str, kind: str) -> None:
        self.queue = queue
        self.kind = kind
        self.delay = metrics.start_delay.child(queue)
        self.duration = metrics.duration.child(kind)
        self.end_to_end = metrics.end_to_end.child(kind)
        self._metrics = metrics
        self._outcomes: dict[str, Count] = {}
        self.names: tuple[bytes, bytes] | None = None  # of the log line, while the row's own names are these

    def count(self, outcome: str) -> None:
        count = self._outcomes.get(outcome)
        if count is None:
            count = self._outcomes[outcome] = self._metrics.attempts.child(self.queue, self.kind, outcome)
        count.value += 1


class AllSeries:
    """Series by the names in a row.  At most `limit` pairs have their own; for the rest the queue is "other"."""

    def __init__(self, metrics: Metrics, limit: int) -> None:
        self._metrics = metrics
        self._limit = limit
        self._known: dict[tuple[str, str], Series] = {}  # by the row's own names
        self._made: dict[tuple[str, str], Series] = {}  # by bounded ones

    def of(self, queue: str, kind: str) -> Series:
        return self._known.get((queue, kind)) or self._admit(queue, kind)

    def _admit(self, queue: str, kind: str) -> Series:
        full = len(self._known) >= self._limit
        names = (OTHER if full else self._metrics.queue(queue), self._metrics.kind(kind))
        series = self._made.get(names)
        if series is None:
            series = self._made[names] = Series(self._metrics, *names)
            series.names = names_part(kind, queue) if names == (queue, kind) else None
        if not full:
            self._known[queue, kind] = series
        return series
