"""Schedules and their ticks, as all daemons share them.  One method, one statement."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import sql
from daemon.cron import stagger_s
from daemon.statements import Statements
from daemon.texts import json_text
from daemon.work_settings import ScheduleSettings

_SCHEDULES = sql.load("schedules.sql")


class Tick(NamedTuple):
    """Whether we were the one to insert it, its id unless an earlier one is unfinished, and what was before."""

    won: bool
    job_id: int | None
    last: datetime
    paused: bool


class Known(NamedTuple):
    """A schedule as it stands in the table."""

    kind: str
    cron: str
    timezone: str
    last: datetime
    paused: bool

    def is_of(self, settings: ScheduleSettings) -> bool:
        """Whether it was adopted with these settings."""
        return self[:3] == (settings.kind, settings.cron, settings.timezone)


class ScheduleStore(Statements):
    """Raises one of AWAY when Postgres is."""

    async def known(self, names: Collection[str]) -> dict[str, Known]:
        """Those of these schedules that somebody has adopted."""
        rows = await self._fetch(_SCHEDULES["known"], list(names))
        return {row[0]: Known(*row[1:]) for row in rows}

    async def adopt(self, name: str, kind: str, cron: str, timezone: str) -> tuple[datetime, bool]:
        """Make a schedule of the config known; (its last tick, whether it is paused)."""
        (row,) = await self._fetch(_SCHEDULES["adopt"], name, kind, cron, timezone)
        return row[0], row[1]

    async def tick(self, name: str, tick: datetime, row: ScheduleSettings) -> Tick:
        """Insert the row of a tick, once over all daemons."""
        unique_key = f"schedule:{name}" if row.overlap == "skip" else None
        (found,) = await self._fetch(
            _SCHEDULES["tick"],
            name,
            tick,
            row.kind,
            json_text(row.args),
            row.queue,
            row.org_id,
            row.priority,
            unique_key,
            stagger_s(name, row.spread),
        )
        return Tick(*found)

    async def pass_over(self, name: str, tick: datetime) -> bool:
        """Count ticks up to this one as over without a row; whether we were the one."""
        return await self._value(_SCHEDULES["pass_over"], name, tick) is not None
