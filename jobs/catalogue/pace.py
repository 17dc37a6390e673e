"""How many rows the next batch has: as many as take a tenth of a second, whatever a row costs today.  Pure."""

from __future__ import annotations

AIM_S = 0.1
"""A transaction should take so long: twice of it is the promise."""

FIRST = 100
"""Nobody knows yet what a row costs."""

LEAST = 1
GROWTH = 2.0
SHRINK = 0.25
"""One batch changes the number by no more than this, since one may be slow for reasons of its own."""


class Pace:
    """`rows`: of the next batch."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.rows = min(FIRST, most)

    def took(self, seconds: float, rows: int) -> None:
        """A batch of so many rows took so long; one that was not full says little, unless it was slow."""
        if rows < self.rows and seconds < AIM_S:
            return
        self._change(AIM_S / max(seconds, 1e-4))

    def refused(self) -> None:
        """A lock was not to be had in time, or it came to a deadlock."""
        self._change(0.5)

    def _change(self, factor: float) -> None:
        rows = round(self.rows * min(max(factor, SHRINK), GROWTH))
        self.rows = min(max(rows, LEAST), self._most)
