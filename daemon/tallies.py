"""How many jobs ended, by hour, queue and outcome: counted in memory and written every few seconds into rows of this
daemon's own, so that no page ever counts the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from time import time

import sql
from daemon.bounded import QUEUES_MAX, Bounded
from daemon.settle import Transition
from daemon.upkeep_store import UpkeepStore

_TALLY = sql.load("history.sql")["tally"]
HOUR_S = 3600

Key = tuple[int, str, str, int]
"""The hour's beginning (seconds since 1970), queue, outcome, worker."""


class Tallies:
    """A daemon that is killed loses what it counted since the last flush, and a batch whose answer was lost is not
    counted: the numbers may be too low by that much, never too high."""

    def __init__(self, worker_id: Callable[[], int | None], *, clock: Callable[[], float] = time) -> None:
        self._worker_id = worker_id
        self._clock = clock
        self._queue = Bounded(QUEUES_MAX)
        self._new: Counter[tuple[str, str]] = Counter()
        self._totals: dict[Key, int] = {}
        self._unwritten: set[Key] = set()

    def ended(self, batch: Sequence[Transition], ours: Collection[int]) -> None:
        """A batch is written; `ours`: the ids whose result was taken."""
        if len(ours) < len(batch):
            batch = _taken(batch, ours)
        self.add_all((t.job.queue, t.state) for t in batch)

    def add_all(self, ends: Iterable[tuple[str, str]]) -> None:
        """(queue, outcome) of each job; those that are `ready` again have not ended."""
        for (queue, outcome), n in Counter(ends).items():
            if outcome != "ready":
                self._new[self._queue(queue), outcome] += n

    async def flush(self, store: UpkeepStore) -> None:
        """Write this hour's totals.  Totals and not differences: a write whose answer was lost is made again."""
        worker_id = self._worker_id()
        if worker_id is not None:
            self._assign(worker_id)
        by_worker: dict[int, list[Key]] = {}
        for key in self._unwritten:
            by_worker.setdefault(key[3], []).append(key)
        for worker, keys in by_worker.items():
            hours, queues, outcomes, _ = map(list, zip(*keys, strict=True))
            await store.fetch(_TALLY, worker, hours, queues, outcomes, [self._totals[key] for key in keys])
            self._unwritten.difference_update(keys)
        self._forget_past()

    def _assign(self, worker_id: int) -> None:
        """What is new belongs to the hour in which it is written first."""
        hour = self._hour()
        for (queue, outcome), n in self._new.items():
            key = (hour, queue, outcome, worker_id)
            self._totals[key] = self._totals.get(key, 0) + n
            self._unwritten.add(key)
        self._new.clear()

    def _forget_past(self) -> None:
        hour, worker_id = self._hour(), self._worker_id()
        self._totals = {
            key: n
            for key, n in self._totals.items()
            if key in self._unwritten or (key[0] == hour and key[3] == worker_id)
        }

    def _hour(self) -> int:
        return int(self._clock()) // HOUR_S * HOUR_S


def _taken(batch: Sequence[Transition], ours: Collection[int]) -> list[Transition]:
    """Of two attempts of one row the newer one's result is the one that was taken."""
    return list({t.job.id: t for t in sorted(batch, key=lambda t: t.job.fence) if t.job.id in ours}.values())
