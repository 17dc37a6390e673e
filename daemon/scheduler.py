"""Turn the ticks of the configured schedules into rows, which then live the life of any other row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import time

import asyncpg

from daemon.cron import Cron, due, parse
from daemon.observe import Observer
from daemon.schedule_store import ScheduleStore
from daemon.statements import AWAY
from daemon.work_settings import ScheduleSettings

REFRESH_S = 30.0
"""How often another daemon's ticks and an operator's pauses are read back."""

TICKS_MAX = 1000
LATE_S = 60.0
"""A tick inserted later than this counts as missed."""


@dataclass(slots=True)
class _Clock:
    settings: ScheduleSettings
    cron: Cron
    last: datetime
    paused: bool


class Scheduler:
    """One loop over all schedules.  Times are the database's: ours plus the skew the heartbeat has measured."""

    def __init__(self, store: ScheduleStore, observer: Observer, schedules: Mapping[str, ScheduleSettings]) -> None:
        self._store = store
        self._observer = observer
        self._settings = dict(schedules)
        self._clocks: dict[str, _Clock] = {}
        self._refresh_at = 0.0
        self._wake = asyncio.Event()
        self.skew_s = 0.0

    def reload(self, schedules: Mapping[str, ScheduleSettings]) -> None:
        self._settings = dict(schedules)
        self._refresh_at = 0.0
        self._wake.set()

    def look_again(self) -> None:
        """An operator may have paused one, or resumed it."""
        self._refresh_at = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled: a tick is one statement, so it is inserted whole or not at all."""
        while True:
            self._wake.clear()
            try:
                sleep_s = await self._step()
            except AWAY as error:
                self._observer.keeper_failed("schedules", error)
                self._refresh_at = 0.0
                sleep_s = 1.0
            try:
                async with asyncio.timeout(sleep_s):
                    await self._wake.wait()
            except TimeoutError:
                continue  # the next tick, or time to refresh

    async def _step(self) -> float:
        """Insert what is due; the seconds until something else is."""
        if time() >= self._refresh_at:  # without schedules it asks nothing, but forgets those taken away
            self._refresh_at = time() + REFRESH_S  # before: a reload meanwhile asks for another
            await self._refresh()
        now = self._now()
        for name, clock in self._clocks.items():
            if not clock.paused:
                await self._fire(name, clock, now)
        nexts = [clock.cron.next_after(clock.last) for clock in self._clocks.values() if not clock.paused]
        soonest_s = min(((at - self._now()).total_seconds() for at in nexts), default=REFRESH_S)
        return min(max(soonest_s, 0.05), REFRESH_S)

    async def _refresh(self) -> None:
        clocks = {}
        wanted = {name: settings for name, settings in self._settings.items() if settings.enabled}
        known = await self._store.known(wanted) if wanted else {}
        for name, settings in wanted.items():
            if name in known and known[name].is_of(settings):  # adopted: writing it again would only be a write
                last, paused = known[name].last, known[name].paused
            else:
                last, paused = await self._store.adopt(name, settings.kind, settings.cron, settings.timezone)
            clocks[name] = _Clock(settings, parse(settings.cron, settings.timezone), last, paused)
        self._clocks = clocks

    async def _fire(self, name: str, clock: _Clock, now: datetime) -> None:
        newest = clock.cron.newest(clock.last, now)
        if newest is None:
            return
        missed = len(clock.cron.ticks(clock.last, now, TICKS_MAX))
        wanted = due(clock.cron, clock.last, now, clock.settings.missed, TICKS_MAX)
        for tick in wanted:
            if not await self._insert(name, clock, tick, now):
                return
        if clock.settings.missed != "all" and (not wanted or wanted[-1] < newest):
            won = await self._store.pass_over(name, newest)
            clock.last = newest
            if not won:
                return
        if skipped := missed - len(wanted):
            self._observer.upkeep.tick_skipped(name, skipped, clock.settings.missed)

    async def _insert(self, name: str, clock: _Clock, tick: datetime, now: datetime) -> bool:
        """False when the tick is not to be had now: the database's clock is behind ours, or the row is refused."""
        try:
            won, job_id, last, paused = await self._store.tick(name, tick, clock.settings)
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            self._observer.upkeep.schedule_invalid(name, error)
            clock.paused = True  # until the next refresh: the table refuses such a row
            return False
        if not won and last < tick:
            clock.paused = paused
            return False  # paused a moment ago, or the database's clock is behind ours: come back
        if won and job_id is not None:
            self._observer.upkeep.scheduled(name, tick, job_id, missed=now - tick > timedelta(seconds=LATE_S))
        elif won:
            self._observer.upkeep.tick_skipped(name, 1, "overlap")
        clock.last = max(tick, last)
        return True

    def _now(self) -> datetime:
        return datetime.fromtimestamp(time() + self.skew_s, UTC)
