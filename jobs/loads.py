"""Values out of the database by key, remembered for a while; many that are asked for at once are one question."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

A_TURN = 20
"""Keys whose askers go on in the same turn of the loop: what all of them do next would hold up everybody else."""

PAGE = 200
"""Ids of one question: to read a thousand endpoints holds up the loop for 25 ms."""


@dataclass(slots=True)
class _Known(Generic[V]):
    value: V | None
    weight: int
    at: float
    used_at: float


class Loads(Generic[K, V]):
    """`load` answers for many ids; one that its answer lacks is None.  `stale_s`: so old may an answer be; `most`: so
    much weight is remembered, the longest unused goes first.

    One question is on the wire at a time: whoever asks meanwhile is in the next one.  Whoever gives up waiting takes
    nothing from the others.
    """

    def __init__(
        self,
        load: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        most: int,
        stale_s: float = inf,
        weigh: Callable[[V], int] = lambda value: 1,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._load = load
        self._most = most
        self._stale_s = stale_s
        self._weigh = weigh
        self._clock = clock
        self._known: OrderedDict[K, _Known[V]] = OrderedDict()
        self._weight = 0
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Raises what `load` raised."""
        now = self._clock()
        known = self._known.get(key)
        if known is not None and now - known.at < self._stale_s:
            known.used_at = now
            self._known.move_to_end(key)
            return known.value
        return await self._ask(key)

    async def anew(self, key: K) -> V | None:
        """Asked for now, whatever is remembered.  Raises what `load` raised."""
        return await self._ask(key)

    async def have(self, keys: Sequence[K]) -> None:
        """Let `peek` know these."""
        now = self._clock()
        missing = [self._ask(key) for key in keys if (known := self._known.get(key)) is None or self._old(known, now)]
        if missing:
            await asyncio.gather(*missing)

    def peek(self, key: K) -> V | None:
        """What is remembered, however old."""
        known = self._known.get(key)
        if known is None:
            return None
        known.used_at = self._clock()
        return known.value

    def values(self) -> list[V]:
        """All that is remembered."""
        return [known.value for known in self._known.values() if known.value is not None]

    def forget(self) -> None:
        """Ask anew for everything."""
        self._known.clear()
        self._weight = 0

    def close(self) -> None:
        """Whoever waits is cancelled."""
        if self._task is not None:
            self._task.cancel()

    def _ask(self, key: K) -> asyncio.Future[V | None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[V | None] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._task is None:  # it begins when everybody who is about to ask in this turn has done so
            self._task = loop.create_task(self._run())  # owned here, until nobody waits, or close
        return future

    async def _run(self) -> None:
        asked: dict[K, list[asyncio.Future[V | None]]] = {}
        try:
            while self._waiting:
                asked = {key: self._waiting.pop(key) for key in list(islice(self._waiting, PAGE))}
                asked_at = self._clock()  # the answer may be as old as the question
                try:
                    found = await self._load([*asked, *self._in_company(asked)])
                except Exception as error:  # whatever it was, it is for those who asked
                    _fail(asked, error)
                    continue
                await self._take_in(asked, found, asked_at)
        finally:
            self._task = None
            for futures in (*asked.values(), *self._waiting.values()):
                for future in futures:
                    future.cancel()  # of one that is done it does nothing
            self._waiting.clear()

    def _in_company(self, asked: Mapping[K, object]) -> list[K]:
        """Those in use that will be stale soon: they are asked for together, and not one by one as each is needed."""
        if self._stale_s == inf:
            return []
        now, found = self._clock(), list[K]()
        for key in reversed(self._known):
            known = self._known[key]
            if now - known.used_at > self._stale_s or len(asked) + len(found) >= PAGE:
                break
            if key not in asked and now - known.at > self._stale_s / 2:
                found.append(key)
        return found

    async def _take_in(
        self, asked: Mapping[K, list[asyncio.Future[V | None]]], found: Mapping[K, V], asked_at: float
    ) -> None:
        now = self._clock()
        for key in found.keys() - asked.keys():
            self._keep(key, found[key], asked_at, self._known[key].used_at if key in self._known else now)
        for n, (key, futures) in enumerate(asked.items(), 1):
            if n % A_TURN == 0:
                await asyncio.sleep(0)
            value = found.get(key)
            self._keep(key, value, asked_at, now)
            for future in futures:
                if not future.done():
                    future.set_result(value)

    def _keep(self, key: K, value: V | None, at: float, used_at: float) -> None:
        if (before := self._known.pop(key, None)) is not None:
            self._weight -= before.weight
        if value is None and self._stale_s == inf:
            return  # nothing would ever say that it is there now
        weight = 1 if value is None else self._weigh(value)
        self._known[key] = _Known(value, weight, at, used_at)
        self._weight += weight
        while self._weight > self._most and len(self._known) > 1:
            _key, oldest = self._known.popitem(last=False)
            self._weight -= oldest.weight

    def _old(self, known: _Known[V], now: float) -> bool:
        return now - known.at >= self._stale_s


def _fail(asked: Mapping[K, list[asyncio.Future[V | None]]], error: Exception) -> None:
    for futures in asked.values():
        for future in futures:
            if not future.done():
                future.set_exception(error)
