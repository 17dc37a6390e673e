"""How fast one process may send through a relay, and when it should leave a failing relay alone."""

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
