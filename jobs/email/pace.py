"""How fast one process may send through a relay."""

from __future__ import annotations

from collections import deque

from jobs.values import Rate


class Pace:
    """Never more than `rate` in any window of its length, wherever it begins; `burst` at once, the rest spaced evenly.

    A token bucket alone would let twice the rate through around a full bucket, so the times of the last sends are kept
    as well.  The clock is the caller's: seconds that only grow.
    """

    def __init__(self, rate: Rate, burst: int | None = None) -> None:
        whole = max(1, int(rate.count))
        # "0.5/s" is one in two seconds
        self._period_s = rate.period_s if rate.count >= 1 else rate.period_s / rate.count
        self._sent: deque[float] = deque(maxlen=whole)
        self._burst = burst or whole
        self._spaced = self._burst < whole
        self._step_s = self._period_s / whole
        self._full_at = float("-inf")

    def wait_s(self, now: float) -> float:
        """How long the next message has to wait."""
        window = self._sent[0] + self._period_s if len(self._sent) == self._sent.maxlen else now
        bucket = self._full_at - (self._burst - 1) * self._step_s if self._spaced else now
        return max(0.0, window - now, bucket - now)

    def spend(self, now: float) -> None:
        """A message goes now."""
        self._sent.append(now)
        self._full_at = max(self._full_at, now) + self._step_s
