"""The claims whose rows this daemon still has: each is forgotten in the commit that writes the last of its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from jobs.model import Job


class Claims:
    """Counts, for each claim, the rows whose results are not written yet."""

    def __init__(self) -> None:
        self._open: Counter[int] = Counter()

    def known(self) -> list[int]:
        return list(self._open)

    def taken(self, jobs: Iterable[Job]) -> None:
        """Rows that were claimed for this daemon."""
        self._open.update(job.claim_id for job in jobs if job.claim_id is not None)

    def ending(self, jobs: Iterable[Job]) -> list[int]:
        """The claims that are over once the results of `jobs` are written."""
        left = Counter(job.claim_id for job in jobs if job.claim_id is not None)
        return [claim for claim, count in left.items() if self._open.get(claim, 0) <= count]

    def written(self, jobs: Iterable[Job]) -> None:
        """The results of `jobs` are on disk."""
        for claim, count in Counter(job.claim_id for job in jobs if job.claim_id is not None).items():
            if self._open.get(claim, 0) <= count:
                self._open.pop(claim, None)
            else:
                self._open[claim] -= count
