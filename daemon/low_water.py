"""Up to where the rows of a place have been claimed, so that the next claim does not walk over them again.  Pure.

What was claimed leaves dead entries in the index.  Mostly the next reader marks them, and they cost nothing more; while
any transaction pins the vacuum horizon they cannot be marked, and every claim would walk over all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple

from jobs.model import Job

CLASSES = (1, 2, 3, 4)

MARGIN_S = 1.0
"""How much older than the newest claimed row one may be and still be found by a claim: it was inserted by a longer
transaction.  Still older ones are found by the next look."""

NEAR_S = 0.1
"""The same, for most claims: transactions that insert a row are short, and each entry that is passed over costs some
0.2 µs."""

WIDE_S = 0.5
"""So often a claim goes back by the whole margin."""

WIDE_IN_BACKLOG_S = 5.0
"""And so often where more rows wait than there are slots: who is late waits behind them anyhow."""

From = tuple[float, float, float, float]
"""By class: nothing older is ready, in seconds since 1970."""

FROM_THE_START: From = (-inf, -inf, -inf, -inf)


class Start(NamedTuple):
    """Where a claim begins: not before `after`, and in class `after_in` (0: none) with rows beyond id `after_id` of
    those that are just so old."""

    after: From = FROM_THE_START
    after_in: int = 0
    after_id: int = 0


class LowWater:
    """The marks of one place, the newest claimed row of each class."""

    __slots__ = ("_class", "_newest", "_wide_at", "narrow")

    def __init__(self) -> None:
        self._newest = [(-inf, 0)] * 4
        self._class = 0
        self._wide_at = 0.0
        self.narrow = False  # the last claim did not go back by the whole margin

    def start(self, now: float, *, full: bool) -> Start:
        """Of the next claim.  Behind one that was `full` it goes on at the very row: a million may be of one moment."""
        self.narrow = now < self._wide_at
        if not self.narrow:
            self._wide_at = now + (WIDE_IN_BACKLOG_S if full else WIDE_S)
            return Start(self._less(MARGIN_S))
        if not full or not self._class:
            return Start(self._less(NEAR_S))
        run_at, row_id = self._newest[self._class - 1]
        after = list(self._less(NEAR_S))
        after[self._class - 1] = run_at
        one, two, three, four = after
        return Start((one, two, three, four), self._class, row_id)

    @property
    def wide_at(self) -> float:
        """When a claim goes back by the whole margin again."""
        return self._wide_at

    def claimed(self, jobs: Sequence[Job]) -> None:
        """In their order: of class, time and id."""
        if not jobs:
            return
        for priority, job in {job.priority: job for job in jobs}.items():
            self._newest[priority - 1] = max(self._newest[priority - 1], (job.run_at, job.id))
        ((self._class, _rows),) = Counter(job.priority for job in jobs).most_common(1)

    def lower(self, priority: int, run_at: float) -> None:
        """A row that is so old is ready."""
        self._newest[priority - 1] = min(self._newest[priority - 1], (run_at, 0))

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Each class from which rows were claimed, and how old its rows may still be."""
        return ((n, at - MARGIN_S) for n, (at, _id) in zip(CLASSES, self._newest, strict=True) if at > -inf)

    def _less(self, margin_s: float) -> From:
        (one, _), (two, _), (three, _), (four, _) = self._newest
        return one - margin_s, two - margin_s, three - margin_s, four - margin_s
