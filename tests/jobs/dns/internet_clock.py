"""The time of the lab's caches: it stands still until a test moves it."""

from __future__ import annotations


class Clock:
    def __init__(self) -> None:
        self._now_s = 0.0

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
