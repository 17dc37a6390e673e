"""Writes down what attempts say of endpoints: those that only fail are warned of and disabled, as are those gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import orjson

import sql
from daemon.observe import Observer
from daemon.statements import AWAY, Statements
from jobs.webhook.health import Health

_SAID = sql.load("webhooks.sql")["said"]

GATHER_S = 0.5
"""What is said meanwhile goes into one statement."""

AWAY_S = 5.0
"""After a write that failed."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of an endpoint: `what` is warned or disabled."""

    id: int
    org_id: str | None
    name: str
    what: str
    why: str


class EndpointStore(Statements):
    """Raises one of AWAY when Postgres is."""

    async def said(self, said: list[dict[str, object]], patience_s: float | None) -> list[Told]:
        return [Told(*row) for row in await self._fetch(_SAID, orjson.dumps(said).decode(), patience_s)]


class EndpointWatch:
    """One per daemon; asks nothing while all endpoints do well."""

    def __init__(
        self, store: EndpointStore, health: Health, patience_s: Callable[[], float], observer: Observer
    ) -> None:
        self._store = store
        self._health = health
        self._patience_s = patience_s
        self._observer = observer
        self._unwritten: list[dict[str, object]] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._health.noted.wait()
            try:
                await self.write()
            except AWAY as error:
                self._observer.keeper_failed("endpoints", error)
                await asyncio.sleep(AWAY_S)
                self._health.noted.set()
            else:
                await asyncio.sleep(GATHER_S)

    async def flush(self) -> None:
        """Write until nothing is left."""
        while self._unwritten or self._health.noted.is_set():
            await self.write()

    async def write(self) -> None:
        """Write what there is.  What could not be written comes first; if only its answer was lost, it counts twice."""
        self._unwritten = self._unwritten or self._health.take()
        if not self._unwritten:
            return
        told = await self._store.said(self._unwritten, self._patience_s() or None)
        self._unwritten = []
        upkeep = self._observer.upkeep
        for one in told:
            tell = upkeep.endpoint_disabled if one.what == "disabled" else upkeep.endpoint_warned
            tell(one.id, one.org_id, one.name, one.why)
