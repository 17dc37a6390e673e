"""Say the same thing at most once a second."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

EVERY_S = 1.0


class Seldom:
    """Remembers, for each thing that was said, when it was, and how often it has been left out since.

    The caller bounds how many different things there are.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def suppressed(self, what: str, about: str) -> int | None:
        """None: leave it out.  Otherwise say it; so many were left out since the last one."""
        now = self._clock()
        since, left_out = self._said.get((what, about), (-inf, 0))
        if now - since < EVERY_S:
            self._said[what, about] = (since, left_out + 1)
            return None
        self._said[what, about] = (now, 0)
        return left_out
