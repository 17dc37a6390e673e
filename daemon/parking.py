"""Jobs of the config that cannot run, since the database does not have what they name: parked until it has.

A parked job is a kind that this daemon does not serve: its rows wait at the gate of their kind, its schedule goes on,
and so does everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

import asyncpg

from daemon.observe import Observer
from daemon.rules import Setup
from daemon.statements import AWAY
from jobs.catalogue.kinds import look
from jobs.catalogue.settings import JobSettings

PARKED_S = 3.0
"""So often is looked whether the tables of parked jobs have come."""

USUAL_S = 60.0
"""And whether those of the others are still there: a run that finds them gone goes back to its queue meanwhile."""

UNKNOWN = "the database was not looked at yet"


class Parking:
    """Owns which jobs of the setup are served.  `use`: puts a setup to work."""

    def __init__(self, pool: asyncpg.Pool, setup: Setup, observer: Observer, use: Callable[[Setup], None]) -> None:
        self._pool = pool
        self._observer = observer
        self._use = use
        self._whole = setup
        self._asked = asyncio.Event()
        self._seen: dict[str, JobSettings] = {}
        self._whole_at = 0.0
        self.parked: dict[str, str] = dict.fromkeys(setup.config.jobs, UNKNOWN)
        """Why, by job."""

    @property
    def served(self) -> Setup:
        """The setup without the kinds that are parked."""
        kinds = {name: kind for name, kind in self._whole.kinds.items() if name not in self.parked}
        return replace(self._whole, kinds=kinds)

    def reload(self, setup: Setup) -> None:
        """Jobs that are as they were stay as they are; the others wait until the database was looked at: a moment."""
        jobs = setup.config.jobs
        self._whole = setup
        fresh = {name for name, settings in jobs.items() if self._seen.get(name) != settings}
        self.parked = {name: self.parked.get(name, UNKNOWN) for name in jobs if name in self.parked or name in fresh}
        self._use(self.served)
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(PARKED_S if self.parked else USUAL_S):
                    await self._asked.wait()
            except TimeoutError:
                pass  # the clock asks too
            self._asked.clear()
            try:
                await self.look()
            except AWAY as error:
                self._observer.keeper_failed("parking", error)

    async def look(self) -> None:
        """Ask the database about those that are parked, and now and then about each job; serve those it has the tables
        of.  Raises one of AWAY."""
        jobs = self._whole.config.jobs
        every = monotonic() >= self._whole_at
        asked = {name: settings for name, settings in jobs.items() if every or name in self.parked}
        if not asked:
            return
        async with self._pool.acquire() as conn:
            found = {name: await _reason(conn, settings) for name, settings in asked.items()}
        if self._whole.config.jobs is not jobs:
            return  # a reload came meanwhile, and has asked again
        if every:
            self._whole_at = monotonic() + USUAL_S
        self._seen = dict(jobs)
        self._park({name: reason for name, reason in found.items() if reason is not None})

    def _park(self, parked: Mapping[str, str]) -> None:
        before, self.parked = self.parked, dict(parked)
        for name, reason in parked.items():
            if before.get(name) != reason:
                self._observer.upkeep.job_parked(name, reason)
        for name in before.keys() - parked.keys():
            if before[name] != UNKNOWN:
                self._observer.upkeep.job_unparked(name)
        self._observer.upkeep.jobs_parked(self.parked)
        if before.keys() != parked.keys():
            self._use(self.served)


async def _reason(conn: Any, settings: JobSettings) -> str | None:
    try:
        return (await look(conn, settings)).reason
    except AWAY:
        raise
    except asyncpg.PostgresError as error:  # one job that cannot be looked at parks itself, and nothing else
        return f"its tables cannot be looked at: {error}"
