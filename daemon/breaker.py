"""When a destination is left alone, and how carefully it is tried: one lane, as one daemon sees it.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.work_settings import LaneSettings
from jobs.model import spread

WINDOW_MAX = 100_000
"""A lane that answers may have so many attempts at once: more slots than any daemon has."""

STALE_S = 60.0
"""What a lane has shown is forgotten when it has not been used for so long."""


def open_s(settings: LaneSettings, rung: int, dice: float) -> float:
    """How long a lane stays closed the (rung + 1)th time in a row; `dice` in [0, 1) moves it inside the jitter."""
    return spread(min(settings.open * 2.0 ** min(rung, 60), settings.open_max), settings.jitter, dice)


def budget(settings: LaneSettings, seconds: float, daemons: int = 1) -> int:
    """The most attempts that a destination sees in `seconds` if it never answers one well, however many rows wait."""
    at, probes = open_s(settings, 0, 0.0), 0
    while at <= seconds:
        probes += 1
        at += open_s(settings, probes, 0.0)
    return daemons * (settings.start + settings.failures - 1) + probes


@dataclass(slots=True)
class Breaker:
    """`window` is how many attempts may be under way at once: few at first, and one more for each that goes well.  When
    one fails half as many, once for all that were under way with it; from there (`steady`) one more for each windowful
    that goes well: Postfix's law, and TCP's.  It grows to no more than twice what was made use of lately: a destination
    that is asked now and then has not shown what it can bear, and should it fall silent, holds few slots.

    Closed by the law of `failures` and `ratio`, or by what others wrote down: then nothing starts until it is opened,
    but for one probe that was granted."""

    settings: LaneSettings
    used_at: float
    window: int
    in_flight: int = 0
    steady: int = WINDOW_MAX  # from here on it grows slowly
    grown: int = 0  # towards the next step, once it does
    cut: int = 0  # attempts that were under way when it was halved last
    throttled: bool = False  # it has asked for less, so what it bears is remembered while it is closed
    peak: int = 0  # at most so many at once, in the current period
    peak_at: float = 0.0
    in_row: int = 0
    rung: int = 0  # of the next closing
    opened_at: float = 0.0
    closed_until: float | None = None
    granted: bool = False
    counted_at: float = 0.0
    now_counts: tuple[int, int] = (0, 0)  # well, failed: in this half of the period, and in the one before
    old_counts: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, settings: LaneSettings, now: float) -> Breaker:
        return cls(settings, now, settings.start, peak_at=now)

    @property
    def closed(self) -> bool:
        return self.closed_until is not None

    def room(self, now: float) -> int | None:
        """How many more attempts may start; None: any number.  One that was granted is the probe."""
        settings = self.settings
        if self.closed:
            return int(self.granted)
        if self.in_flight == 0 and now - self.used_at > STALE_S:
            self.window = min(self.window, settings.start)
        most = [] if settings.concurrency is None else [settings.concurrency]
        if settings.enabled:
            most.append(self.window)
        return max(0, min(most) - self.in_flight) if most else None

    def started(self, now: float) -> None:
        self.used_at = now
        self.in_flight += 1
        if self.in_flight > self.peak:
            self.peak = self.in_flight

    def ended(self, fault: bool | None, now: float, dice: float) -> float | None:
        """An attempt that was no probe has ended, through the destination's fault or not, or telling nothing.  Seconds
        to stay closed for, if that closes it.  What was under way when it closed tells nothing new."""
        self.used_at = now
        self.in_flight = max(0, self.in_flight - 1)
        if now - self.peak_at > STALE_S:
            self._look_back(now)
        was_cut = self.cut > 0
        if was_cut:
            self.cut -= 1
        if fault is None or self.closed or not self.settings.enabled:
            return None
        if not fault:
            self.in_row = 0
            if self.rung and now - self.opened_at > self.settings.window:
                self.rung = 0
            if self.window < 2 * self.peak:
                self._grow()
            if self.now_counts != (0, 0) or self.old_counts != (0, 0):  # a lane that never failed need not be counted
                self._count(0, now)
            return None
        self.in_row += 1
        if not was_cut:
            self._halve()
        self._count(1, now)
        if not self._fails():
            return None
        return open_s(self.settings, self.rung, dice)

    def throttle(self) -> None:
        """It asks to be left alone for a while: too much was under way."""
        if not self.closed:
            self._halve()
            self.throttled = True

    def close(self, until: float, rung: int) -> None:
        """It is closed, by this daemon or another; `rung` counts how often in a row."""
        self.closed_until = until
        self.rung = rung + 1
        self.granted = False

    def open(self, now: float) -> None:
        """A probe went well, or somebody says so: one attempt at first, so that what has just come up is not knocked
        down.  Should it fail again soon, it is left alone for longer."""
        self.closed_until = None
        self.granted = False
        self.window = 1
        self.grown = self.cut = 0
        if not self.throttled:
            self.steady = WINDOW_MAX
        self.throttled = False
        self.in_row = 0
        self.now_counts = self.old_counts = (0, 0)
        self.used_at = self.counted_at = self.opened_at = now

    def forgettable(self, now: float) -> bool:
        """Whether a new one would do as well."""
        if self.in_flight or self.granted:
            return False
        if self.closed_until is not None:
            return now > self.closed_until + self.settings.open_max
        quiet_s = max(STALE_S, self.settings.window if self.rung or self.in_row else 0.0)
        return now - self.used_at > quiet_s

    def _grow(self) -> None:
        self.grown += 1
        if self.window < self.steady or self.grown >= self.window:
            self.window, self.grown = min(self.window + 1, WINDOW_MAX), 0

    def _halve(self) -> None:
        """What was under way meanwhile and fails as well says no more than this."""
        self.window = self.steady = max(1, self.window // 2)
        self.grown, self.cut = 0, self.in_flight

    def _look_back(self, now: float) -> None:
        """A period has ended: what was not made use of in it is forgotten."""
        self.window = min(self.window, max(self.settings.start, 2 * self.peak))
        self.peak, self.peak_at = self.in_flight + 1, now

    def _count(self, failed: int, now: float) -> None:
        half_s = self.settings.window / 2
        if now - self.counted_at > half_s:
            self.old_counts = self.now_counts if now - self.counted_at <= 2 * half_s else (0, 0)
            self.now_counts, self.counted_at = (0, 0), now
        well, bad = self.now_counts
        self.now_counts = (well + 1 - failed, bad + failed)

    def _fails(self) -> bool:
        settings = self.settings
        if self.in_row >= settings.failures:
            return True
        well, bad = (now + old for now, old in zip(self.now_counts, self.old_counts, strict=True))
        return well + bad >= settings.ratio_of and bad >= settings.ratio * (well + bad)
