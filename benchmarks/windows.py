"""Yardsticks of a limit that must hold in any window of time; the tests of limits measure by them too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def most_within(starts: Iterable[float], window_s: float) -> int:
    """The most starts in any window of this length, its end not included."""
    found = sorted(starts)
    most = first = 0
    for n, at in enumerate(found):
        while at - found[first] >= window_s:
            first += 1
        most = max(most, n + 1 - first)
    return most


def most_beyond(starts: Sequence[float], rate: float) -> float:
    """The greatest excess of starts, in order, in any window over what `rate` allows: at most the burst."""
    lowest = worst = 0.0
    for n, at in enumerate(starts):
        # n + 1 starts up to `at`: the excess over the window that began with start m is (n + 1 - m) - rate * (at - m's)
        lowest = min(lowest, n - rate * (at - starts[0]))
        worst = max(worst, n + 1 - rate * (at - starts[0]) - lowest)
    return worst
