"""Large bodies are told of, but not each of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from time import monotonic

EVERY_S = 3600.0
DESTINATIONS_MAX = 1000
"""Remembered; the one that was told of longest ago is forgotten for another."""


class Large:
    """Once an hour for each destination."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told_at: OrderedDict[str, float] = OrderedDict()

    def is_news(self, destination: str) -> bool:
        """Whether to tell of it now; it counts as told then."""
        now = self._clock()
        if now - self._told_at.get(destination, -inf) < EVERY_S:
            return False
        self._told_at.pop(destination, None)
        self._told_at[destination] = now
        if len(self._told_at) > DESTINATIONS_MAX:
            self._told_at.popitem(last=False)
        return True
