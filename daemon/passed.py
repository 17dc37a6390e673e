"""Behind which rows of a place its claims begin, since all up to there are of destinations that are shut.  Pure."""

from __future__ import annotations

from math import inf

from daemon.low_water import Start

Position = tuple[float, int]
"""In the order of one class: due at (seconds since 1970), and id."""

FROM_THE_FIRST: Position = (-inf, 0)

BACK_S = 0.5
"""So often a claim begins as if nothing had been passed: a row of a longer transaction may stand among what was, and
would wait until that has been moved out of the way."""


class Passed:
    """Of one place, by class."""

    __slots__ = ("_back_at", "_to")

    def __init__(self) -> None:
        self._to: dict[int, Position] = {}
        self._back_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._to)

    def to(self, priority: int, position: Position, now: float) -> None:
        """All ready rows of this class up to there are of shut destinations."""
        if priority not in self._to:
            self._back_at = now + BACK_S
        self._to[priority] = position

    def end(self, priority: int) -> None:
        """They have been moved, or may run again."""
        self._to.pop(priority, None)

    def lowered(self, priority: int, run_at: float) -> None:
        """A row that is so old is ready: if it stands among what was passed, the next claim finds out."""
        if priority in self._to and (run_at, 0) < self._to[priority]:
            self._back_at = 0.0

    def due(self, now: float) -> bool:
        """Whether this claim begins behind them."""
        if not self._to:
            return False
        if now >= self._back_at:
            self._back_at = now + BACK_S
            return False
        return True

    def over(self, start: Start) -> Start:
        """Where it begins.  The very row counts in one class alone, the best in which something was passed."""
        after, after_in, after_id = list(start.after), start.after_in, start.after_id
        for priority in sorted(self._to, reverse=True):
            run_at, row_id = self._to[priority]
            known = after[priority - 1], after_id if after_in == priority else 0
            if (run_at, row_id) > known:
                after[priority - 1], after_in, after_id = run_at, priority, row_id
        one, two, three, four = after
        return Start((one, two, three, four), after_in, after_id)
