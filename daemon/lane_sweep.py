"""Rows of a shut destination that stand before those of others: claims are told to begin behind them, and they are
moved out of the way in bulk, beside the claims.

A claim moves what it meets, but no more than it has slots for: behind 100,000 rows of one that has just died the others
would wait for hundreds of claims.  To look where such rows end takes a fifth of the time that moving them does, and
locks nothing; once the claims are past them nobody waits for the moving, and it need not hurry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from daemon.lane_store import LaneStore
from daemon.observe import Observer
from daemon.passed import FROM_THE_FIRST, Position

LOOK = 2_000
"""Rows looked at in one statement, 5 µs each."""

PAGE = 1_000
"""Rows moved in one transaction: claims pass by those that it has locked."""

WORTH = 10
"""It goes on while one row in so many had to be moved."""

SHARE = 0.125
"""Of the time, to move rows that the claims need not meet: the others keep their rate meanwhile."""


@dataclass(slots=True)
class _Way:
    """Through one class of a place: moved up to, passed up to; not to be gone on with before."""

    moved: Position = FROM_THE_FIRST
    passed: Position = FROM_THE_FIRST
    looks: bool = True
    rest_until: float = 0.0


class Sweep:
    """Walks the classes of places that are named to it (open queues, and their retries), a look or a page of each a
    step."""

    def __init__(
        self,
        store: LaneStore,
        full: Callable[[], Sequence[str]],
        stuck: Callable[[], Sequence[str]],
        observer: Observer,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._full = full
        self._stuck = stuck
        self._observer = observer
        self._clock = clock
        self._ways: dict[tuple[tuple[str, str], int], _Way] = {}
        self.on_arrived: Callable[[str, str, int, float], None] = lambda queue, gate, priority, run_at: None
        """Rows of this queue and class stand at this gate now, the first of them due then (seconds since 1970)."""
        self.on_passed: Callable[[tuple[str, str], int, Position], None] = lambda place, priority, position: None
        """All ready rows of this (queue, gate) and class up to there are of shut destinations."""
        self.on_end: Callable[[tuple[str, str], int, float | None], None] = lambda place, priority, run_at: None
        """This no longer holds; rows as old as that (seconds since 1970) may be there."""

    @property
    def due_at(self) -> float | None:
        """When there is something to do, on the monotonic clock."""
        return min((way.rest_until for way in self._ways.values()), default=None)

    def begin(self, place: tuple[str, str], priority: int) -> None:
        """Claims meet such rows there.  If it is under way, they have come to the end of what was passed."""
        way = self._ways.setdefault((place, priority), _Way())
        way.looks, way.rest_until = True, 0.0

    def again(self) -> None:
        """A destination may be tried again, and its rows may be among those passed."""
        for (place, priority), way in self._ways.items():
            if way.moved < way.passed:
                way.passed, way.looks, way.rest_until = way.moved, True, 0.0
                self.on_end(place, priority, way.moved[0])

    async def step(self) -> None:
        for (place, priority), way in list(self._ways.items()):
            if way.rest_until > self._clock():
                continue
            if way.looks:
                await self._look(place, priority, way)
            else:
                await self._move(place, priority, way)

    async def _look(self, place: tuple[str, str], priority: int, way: _Way) -> None:
        """One look further, unless rows of others come next."""
        edge = await self._store.edge(place, priority, way.passed, self._stuck(), LOOK)
        way.looks = edge is not None and not edge.other and edge.looked == LOOK
        if edge is not None:
            way.passed = max(way.passed, edge.position)
        if way.passed > FROM_THE_FIRST:
            self.on_passed(place, priority, way.passed)

    async def _move(self, place: tuple[str, str], priority: int, way: _Way) -> None:
        began = self._clock()
        page, arrived = await self._store.park(place, priority, way.moved, self._full(), PAGE)
        for gate, rows, run_at in arrived:
            self.on_arrived(place[0], gate, priority, run_at)
            self._observer.held(gate, place[0], rows)
        worth = sum(each.rows for each in arrived) * WORTH >= page.looked > 0
        if worth:
            way.moved = page.run_at, page.id
        if not worth or page.looked < PAGE:
            del self._ways[place, priority]
            self.on_end(place, priority, way.moved[0] if way.moved < way.passed else None)
            return
        if way.moved < way.passed:
            now = self._clock()
            way.rest_until = now + (now - began) * (1 / SHARE - 1)
