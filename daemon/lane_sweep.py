"""Rows of a shut destination that stand before those of others are moved out of the way in bulk, beside the claims.

A claim moves what it meets, but no more than it has slots for: behind 100,000 rows of one that has just died
the others would wait for hundreds of claims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from daemon.lane_store import LaneStore
from daemon.observe import Observer

PAGE = 1_000
"""Rows looked at in one transaction: claims pass by those that it has locked."""

WORTH = 10
"""It goes on while one row in so many had to be moved."""

FROM_THE_FIRST = (-inf, 0)


class Sweep:
    """Walks the open queues named to it, each once and class by class, a page of each a step."""

    def __init__(self, store: LaneStore, full: Callable[[], Sequence[str]], observer: Observer) -> None:
        self._store = store
        self._full = full
        self._observer = observer
        self._at: dict[str, tuple[int, tuple[float, int]]] = {}  # queue → class, and how far
        self.on_arrived: Callable[[str, str, int, float], None] = lambda queue, gate, priority, run_at: None
        """Rows of this queue and class stand at this gate now, the first of them due then (seconds since 1970)."""

    def __bool__(self) -> bool:
        return bool(self._at)

    def begin(self, queue: str) -> None:
        """Unless it is under way."""
        self._at.setdefault(queue, (1, FROM_THE_FIRST))

    async def step(self) -> None:
        for queue, (priority, after) in list(self._at.items()):
            page, arrived = await self._store.park(queue, priority, after, self._full(), PAGE)
            for gate, rows, run_at in arrived:
                self.on_arrived(queue, gate, priority, run_at)
                self._observer.held(gate, queue, rows)
            if page.looked == PAGE and sum(each.rows for each in arrived) * WORTH >= PAGE:
                self._at[queue] = priority, (page.run_at, page.id)
            elif priority < 4:
                self._at[queue] = priority + 1, FROM_THE_FIRST
            else:
                del self._at[queue]
