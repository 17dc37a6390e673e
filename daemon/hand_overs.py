"""Tokens that handlers take when they need them: kept for a moment when a row is claimed, taken at each hand-over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic

from daemon.lender import Lender
from daemon.limits import Bucket, Limits
from daemon.observe import Observer
from daemon.relay_limits import RATE, names_of
from daemon.slices import Leased
from daemon.statements import AWAY
from jobs.email.turns import Asker

KEPT_S = 0.25
"""A row that was claimed for a token has it for so long; then others may have it, and the row waits for another."""

LOOK_S = 0.05
TURN_S = 0.005
"""Where nobody else leases: how often to see who waits, and the shortest time between two turns."""

Key = tuple[int, int]
"""The (id, fence) of an attempt."""


@dataclass(slots=True, eq=False)
class _Waiting:
    buckets: Sequence[Bucket]
    until: float
    done: asyncio.Future[float]


class HandOvers:
    """`limits`: those that count now.  `wake`: somebody waits for tokens, and `buckets` says of which."""

    def __init__(
        self,
        lender: Lender,
        limits: Callable[[], Limits],
        wake: Callable[[], None],
        observer: Observer,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._lender = lender
        self._limits = limits
        self._wake = wake
        self._observer = observer
        self._clock = clock
        self._kept: dict[Key, tuple[float, Sequence[Bucket]]] = {}  # until when, the oldest first
        self._claims: Counter[Bucket] = Counter()  # how many tokens are kept of each, or waited for
        self._waiting: list[_Waiting] = []
        self._slow: dict[Bucket, tuple[float, str]] = {}  # when what was too much was sent, and what was said

    # --- the claimer's side -------------------------------------------------------------------------------------------

    def keep(self, key: Key, buckets: Sequence[Bucket]) -> None:
        """An attempt starts that will take one of each: for a moment nobody else is to start for them."""
        if buckets and key not in self._kept:
            self._kept[key] = self._clock() + KEPT_S, buckets
            self._claims.update(buckets)

    def drop(self, key: Key) -> None:
        """It has taken them, or ended."""
        if kept := self._kept.pop(key, None):
            self._claims.subtract(kept[1])

    def claims(self, bucket: Bucket) -> int:
        """How many of its tokens are spoken for."""
        self._let_go()
        return self._claims[bucket]

    def _let_go(self) -> None:
        now = self._clock()
        while self._kept and (oldest := next(iter(self._kept.items())))[1][0] <= now:
            self.drop(oldest[0])

    # --- the handlers' side -------------------------------------------------------------------------------------------

    async def take(self, relay: str, asker: Asker, wait_s: float) -> float:
        """As `jobs.email.turns.Turns` has it.  First come, first served."""
        if asker.job is not None:
            self.drop(asker.job)
        buckets = self._limits().named(names_of(relay, security=asker.security))
        if not buckets or (not self._others_wait(buckets) and self._spend(buckets)):
            return 0.0
        again_s = self._again_s(buckets)
        if again_s > wait_s:
            return again_s
        return await self._wait(buckets, wait_s)

    async def _wait(self, buckets: Sequence[Bucket], wait_s: float) -> float:
        until = self._clock() + wait_s
        waiting = _Waiting(buckets, until, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._claims.update(buckets)
        self._wake()
        try:
            async with asyncio.timeout(wait_s):
                return await waiting.done
        except TimeoutError:
            return max(self._again_s(buckets), 1.0)
        finally:
            if waiting in self._waiting:
                self._end(waiting)

    def throttled(self, relay: str, age_s: float, said: str) -> bool:
        """As `jobs.email.turns.Turns` has it."""
        buckets = self._limits().named([RATE + relay])
        for bucket in buckets:
            self._slow[bucket] = self._clock() - age_s, said
        self._wake()
        return bool(buckets)

    # --- the loop's side ----------------------------------------------------------------------------------------------

    def buckets(self) -> Counter[Bucket]:
        """How many wait for each."""
        return Counter(bucket for waiting in self._waiting for bucket in waiting.buckets)

    def give(self) -> None:
        """What is in hand, to those that wait, in their order; who waits for an empty bucket lets others pass, and
        who would wait in vain is told."""
        for waiting in list(self._waiting):
            if waiting.done.done():
                self._end(waiting)
            elif self._spend(waiting.buckets):
                waiting.done.set_result(0.0)
                self._end(waiting)
            elif (again_s := self._again_s(waiting.buckets)) > waiting.until - self._clock():
                waiting.done.set_result(max(again_s, 1.0))
                self._end(waiting)

    def reload(self) -> None:
        """The limits are others: who waits asks anew."""
        for waiting in self._waiting:
            waiting.buckets = self._limits().named(bucket.name for bucket in waiting.buckets)
        self._claims = Counter(b for _until, buckets in self._kept.values() for b in buckets)
        self._claims.update(self.buckets())

    async def slow_down(self) -> None:
        """Tell all daemons of the relays that found it too much.  One of AWAY: it is told at the next try."""
        for bucket, (sent_at, said) in list(self._slow.items()):
            share = await self._lender.slow(bucket, self._clock() - sent_at)
            if self._slow.get(bucket) == (sent_at, said):
                del self._slow[bucket]
            if share is not None:
                self._observer.relay_throttled(bucket.name, bucket.name.removeprefix(RATE), share, said)

    def leased(self, bucket: Bucket, leased: Leased) -> None:
        """What the database has lent, and said of the rest."""
        if not bucket.at_call:
            return
        if leased.used is not None and bucket.burst is not None:
            self._observer.limit_day(bucket.name, leased.used, max(0, bucket.burst - leased.used))
        elif bucket.day is None:
            self._observer.limit_share(bucket.name, leased.share)

    async def alone(self, worker_id: int) -> None:
        """Until cancelled: lease what is waited for, for a process that claims nothing."""
        while True:
            calls = self.buckets()
            pause_s = LOOK_S
            try:
                await self.slow_down()
                await self._lender.tidy(worker_id, calls, all_of_it=not calls)
                await self._lender.lease(worker_id, calls)
            except AWAY as error:
                self._observer.claim_failed(error)
            else:
                self.give()
                pause_s = min(max(self._lender.next_at(calls) - self._clock(), TURN_S), LOOK_S)
            await asyncio.sleep(pause_s)

    def _end(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        self._claims.subtract(waiting.buckets)

    def _others_wait(self, buckets: Iterable[Bucket]) -> bool:
        return any(not set(waiting.buckets).isdisjoint(buckets) for waiting in self._waiting)

    def _spend(self, buckets: Sequence[Bucket]) -> bool:
        if any(self._lender.usable(bucket) <= 0 for bucket in buckets):
            return False
        self._lender.spend(dict.fromkeys(buckets, 1))
        self._wake()
        return True

    def _again_s(self, buckets: Sequence[Bucket]) -> float:
        return max(self._lender.pause_s(bucket) for bucket in buckets)
