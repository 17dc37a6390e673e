"""When a failing relay is left alone."""

from __future__ import annotations


class Rest:
    """A relay that failed is left alone for 10 s, then 20 s, and so on up to 5 min; after a refused login at once for
    5 min, since wrong passwords lock accounts."""

    FIRST_S = 10.0
    LONGEST_S = 300.0

    def __init__(self) -> None:
        self._until = float("-inf")
        self._next_s = self.FIRST_S

    def left_s(self, now: float) -> float:
        return max(0.0, self._until - now)

    def failed(self, now: float, *, login: bool = False) -> None:
        """What fails while it rests was under way when it began, and tells nothing new."""
        if now < self._until:
            return
        rest_s = self.LONGEST_S if login else self._next_s
        self._until = now + rest_s
        self._next_s = min(self._next_s * 2, self.LONGEST_S)

    def worked(self) -> None:
        self._next_s = self.FIRST_S
        self._until = float("-inf")
