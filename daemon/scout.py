"""Look where ready rows are and whose, beside the claims: none of them waits for an answer of this."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from daemon.observe import Observer
from daemon.sources import MOST, SURVEY_S, Place, Sources
from daemon.statements import AWAY
from daemon.store import Mark, Store

SHARE = 0.1
"""Of its time: a survey that took 3 ms is not made again for 30.  With ten thousand organisations, or a vacuum horizon
that is pinned for an hour, looking costs more; it is done less often then."""

WHOLE_SHARE = 0.02
"""Of its time, to look at rows of any age.  A look at those younger than what was claimed last costs as little as ever
while the vacuum horizon is pinned, and finds all but the rows of long transactions."""

FROM_THE_FIRST = ("", "", 0)


class Pace:
    """How long to leave something alone that may take a share of the time, by the least of what it took the last three
    times: one that a full disk held up for half a second is no reason not to look for five."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._took_s: deque[float] = deque(maxlen=3)

    def pause_s(self, took_s: float) -> float:
        """The pause after one more, which took so long."""
        self._took_s.append(took_s)
        return min(self._took_s) / self._share


class Scout:
    """Makes the map that claims go by; `on_news` is called when there is something new on it."""

    def __init__(
        self,
        store: Store,
        sources: Sources,
        observer: Observer,
        poll_s: Callable[[], float],
        on_news: Callable[[], None],
    ) -> None:
        self._store = store
        self._sources = sources
        self._observer = observer
        self._poll_s = poll_s
        self._on_news = on_news
        self._wake = asyncio.Event()
        self._closing = False
        self._looks, self._whole_looks, self._surveys = Pace(SHARE), Pace(WHOLE_SHARE), Pace(SHARE)
        self._look_at = 0.0
        self._soon_at = 0.0  # not before: looking has its share of the time
        self._whole_at = 0.0
        self._doubts = False  # rows may be older than what was claimed last
        self._known: list[Mark] = []  # what the pages of this look leave out
        self._cursor = FROM_THE_FIRST
        self._survey_at = 0.0
        self._orgs: dict[Place, tuple[int, str]] = {}  # how far the survey of a place with very many has come
        self.looked_at = monotonic()

    def look_again(self) -> None:
        """Take nothing for granted."""
        self._look_at = 0.0
        self._doubts = True
        self._wake.set()

    def look_soon(self) -> None:
        """Something was inserted, nobody knows where."""
        self._look_at = min(self._look_at, self._soon_at)
        self._wake.set()

    def wake(self) -> None:
        """A place may want a survey."""
        now = monotonic()
        if self._survey_at <= now and self._sources.to_survey(now) is not None:
            self._wake.set()

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                await self.step()
            except AWAY as error:
                self._observer.claim_failed(error)
                self._look_at = monotonic() + min(0.5, self._poll_s())
                self._doubts = True
            await self._nap()

    async def step(self) -> None:
        """Whatever is due now."""
        if monotonic() >= self._look_at:
            await self._look()
        place = self._sources.to_survey(monotonic())
        if place is not None and monotonic() >= self._survey_at:
            await self._survey(place)

    async def _look(self) -> None:
        started, after = monotonic(), self._cursor
        if after == FROM_THE_FIRST:
            self._known = self._sources.marks() if started < self._whole_at else []
            self._doubts = self._doubts and bool(self._known)  # those that come while this is on the wire stay
        heads = await self._store.look(after, MOST, self._known)
        now = monotonic()
        to_the_end = len(heads) < MOST
        if not self._known:
            self._whole_at = now + self._whole_looks.pause_s(now - started)
        self._sources.found(heads, now, after, to_the_end=to_the_end)
        self._cursor = FROM_THE_FIRST if to_the_end else heads[-1][:3]
        pause_s = self._poll_s() if to_the_end else 0.0
        self._soon_at = now + self._looks.pause_s(now - started)
        self._look_at = max(now + pause_s, self._soon_at)
        if self._doubts:
            self._look_at = min(self._look_at, max(self._whole_at, self._soon_at))
        self.looked_at = now
        self._on_news()

    async def _survey(self, place: Place) -> None:
        started = monotonic()
        waiting = await self._store.waiting(*place, self._orgs.get(place, (0, "")), MOST)
        now = monotonic()
        self._survey_at = now + self._surveys.pause_s(now - started)
        if len(waiting) < MOST:
            self._orgs.pop(place, None)
        else:
            self._orgs[place] = waiting[-1][:2]
        self._sources.surveyed(place, waiting, now + (SURVEY_S if len(waiting) < MOST else 0.0))
        self._on_news()

    async def _nap(self) -> None:
        if self._closing:
            return
        now = monotonic()
        until = self._look_at
        survey_at = self._sources.next_survey()
        if survey_at is not None:
            until = min(until, max(self._survey_at, survey_at))
        try:
            async with asyncio.timeout(max(0.001, until - now)):
                await self._wake.wait()
        except TimeoutError:
            return  # nobody called; the clock did
