"""The holds of lanes, as daemons read and write them.  One method, one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sql
from daemon.statements import Statements
from daemon.texts import plain

_LANES = sql.load("lanes.sql")


@dataclass(frozen=True, slots=True)
class Closing:
    """A lane to be closed for so many seconds; `rung` counts how often in a row."""

    gate: str
    cause: str
    seconds: float
    rung: int
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a gate is shut, and for how long yet (None: until somebody says so); `won`: its probe is now ours."""

    gate: str
    cause: str
    left_s: float | None
    rung: int
    won: bool


class Page(NamedTuple):
    """So many rows were looked at, the last due at `run_at` (seconds since 1970) with this id."""

    looked: int
    run_at: float
    id: int


class Edge(NamedTuple):
    """Due rows up to this position, seconds since 1970 and id, are of shut lanes; `other`: the next one is not, else so
    many were looked at."""

    position: tuple[float, int]
    other: bool
    looked: int


class Arrived(NamedTuple):
    """So many rows were moved to this gate, the first of them due at `run_at`."""

    gate: str
    rows: int
    run_at: float


class LaneStore(Statements):
    """Raises one of AWAY when Postgres is."""

    async def close_lanes(self, closings: Sequence[Closing], worker_id: int) -> None:
        rows = sorted(closings, key=lambda closing: (closing.gate, closing.cause))
        await self._execute(
            _LANES["close"],
            [row.gate for row in rows],
            [row.cause for row in rows],
            [row.seconds for row in rows],
            [row.rung for row in rows],
            [plain(row.reason, 500) for row in rows],
            worker_id,
        )

    async def edge(
        self, place: tuple[str, str], priority: int, after: tuple[float, int], full: Sequence[str], most: int
    ) -> Edge | None:
        """How far the next `most` due rows of a (queue, gate) all are of lanes that are shut, or `full`.  None: no lane
        is, or no row is due."""
        queue, gate = place
        rows = await self._fetch(_LANES["edge"], queue, priority, *after, full, most, gate)
        return Edge((rows[0][0], rows[0][1]), *rows[0][2:]) if rows else None

    async def park(
        self, place: tuple[str, str], priority: int, after: tuple[float, int], full: Sequence[str], most: int
    ) -> tuple[Page, list[Arrived]]:
        """Of the next `most` due rows of a (queue, gate) move those whose lanes are shut, or `full`, to their gates."""
        queue, gate = place
        rows = await self._fetch(_LANES["park"], queue, priority, *after, full, most, gate)
        page = Page(*rows[0][:3]) if rows else Page(0, *after)
        return page, [Arrived(*row[3:]) for row in rows if row[3] is not None]

    async def holds(self, probe_s: Mapping[str, float], worker_id: int, most: int) -> list[Hold]:
        """What holds these gates; up to `most` probes that are due become this worker's."""
        rows = await self._fetch(_LANES["holds"], list(probe_s), list(probe_s.values()), worker_id, most)
        return [Hold(*row) for row in rows]

    async def open_lanes(self, gates: Sequence[str], worker_id: int) -> None:
        await self._execute(_LANES["open"], gates, worker_id)

    async def give_up_probes(self, gates: Sequence[str], worker_id: int) -> None:
        await self._execute(_LANES["give_up"], gates, worker_id)

    async def forget_lanes(self, idle_s: float, most: int) -> None:
        await self._execute(_LANES["forget"], idle_s, most)
