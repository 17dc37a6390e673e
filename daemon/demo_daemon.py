"""The demo's daemon: the real one, and beside it whoever wants to see what it has written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from time import monotonic

from daemon.app import Daemon
from daemon.config import Config
from daemon.demo_news import Line, about
from daemon.finisher import Written
from daemon.log import Logger
from daemon.observe import Observer
from daemon.observe_life import LifeObserver
from daemon.observe_upkeep import UpkeepObserver
from daemon.parking import PARKED_S
from daemon.parts import Parts
from daemon.voice import Error, Voice

SELDOM_S = 10.0
"""The same news about the same thing is shown once in this time."""


class WatchedDaemon(Daemon):
    """`on_written` hears of every batch of outcomes once it is in the database."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        observer: Observer,
        on_written: Written,
    ) -> None:
        super().__init__(config, load, observer)
        self._on_written = on_written

    def _opened(self, parts: Parts) -> None:
        parts.finisher.on_written.append(self._on_written)


class Announcer(Observer):
    """Shows what does not come out of an attempt; everything goes to the log as ever."""

    def __init__(self, log: Logger, show: Callable[[Line], None]) -> None:
        super().__init__(log)
        self.upkeep = self._upkeep = _Upkeep(self._voice, show)
        self.life = _Life(self._voice, show)
        self._show = show
        self._shown_at: dict[str, float] = {}

    def parked(self, kind: str, queue: str, rows: int) -> None:
        super().parked(kind, queue, rows)
        text = "no daemon serves this kind: its rows wait"
        if self._upkeep.waits(kind):
            text = f"its tables were not there at the last look: its rows wait for the next, {PARKED_S:g} s later"
        self._once(f"kind {kind}", about(kind, None, text, "wait"))

    def limited(self, limit: str, rows: int, retry_in_s: float) -> None:
        super().limited(limit, rows, retry_in_s)
        text = f"{limit} takes no more for {retry_in_s:.1f} s: rows wait in line"
        self._once(f"limit {limit}", about("limit", None, text, "wait"))

    def lane_closed(self, lane: str, cause: str, seconds: float, reason: str) -> None:
        super().lane_closed(lane, cause, seconds, reason)
        self._show(replace(about("lane", None, f"{lane} is left alone for {seconds:.1f} s", "wait"), note=reason))

    def lane_opened(self, lane: str) -> None:
        super().lane_opened(lane)
        self._show(about("lane", None, f"{lane} is well again: its rows go out, few at a time at first", "plain"))

    def claim_failed(self, error: Error) -> None:
        super().claim_failed(error)
        self._once("database", about("database", None, f"away, and tried again: {error}", "bad"))

    def _once(self, about_what: str, line: Line) -> None:
        now = monotonic()
        if now - self._shown_at.get(about_what, -SELDOM_S) >= SELDOM_S:
            if len(self._shown_at) > 1000:
                self._shown_at.clear()
            self._shown_at[about_what] = now
            self._show(line)


class _Upkeep(UpkeepObserver):
    def __init__(self, voice: Voice, show: Callable[[Line], None]) -> None:
        super().__init__(voice)
        self._show = show
        self._parked: frozenset[str] = frozenset()
        self._waiting: set[str] = set()

    def jobs_parked(self, names: Collection[str]) -> None:
        super().jobs_parked(names)
        self._parked = frozenset(names)

    def waits(self, kind: str) -> bool:
        """Rows of the kind have come: whether that is a job whose tables are missed."""
        if kind in self._parked:
            self._waiting.add(kind)
        return kind in self._parked

    def job_unparked(self, name: str) -> None:
        super().job_unparked(name)
        if name in self._waiting:
            self._waiting.discard(name)
            self._show(about(name, None, "its tables are there: its rows go on", "plain"))

    def scheduled(self, schedule: str, tick: datetime | float, job_id: int | None, missed: bool) -> None:
        super().scheduled(schedule, tick, job_id, missed)
        text = f"{schedule} is due" + (", late: the demo did not run at its time" if missed else "")
        self._show(about("schedule", job_id, text, "quiet"))


class _Life(LifeObserver):
    def __init__(self, voice: Voice, show: Callable[[Line], None]) -> None:
        super().__init__(voice)
        self._show = show

    def reloaded(
        self,
        changed: Sequence[str],
        added: Sequence[str],
        removed: Sequence[str],
        restart_required: Sequence[str],
        hash: str,
    ) -> None:
        super().reloaded(changed, added, removed, restart_required, hash)
        names = ", ".join([*changed, *added, *removed]) or "nothing"
        late = f"; only after a restart: {', '.join(restart_required)}" if restart_required else ""
        self._show(about("settings", None, f"read again, changed: {names}{late}", "plain"))

    def reload_refused(self, errors: Sequence[str]) -> None:
        super().reload_refused(errors)
        self._show(about("settings", None, f"refused, nothing changed: {'; '.join(errors)}", "bad"))
