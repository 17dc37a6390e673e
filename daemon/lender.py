"""Leases slices of buckets from Postgres and gives back what is not used: one trip at a time, for many buckets each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from time import monotonic

from daemon.limit_store import LimitStore
from daemon.limits import Bucket
from daemon.slices import AHEAD_S, Hand, Leased, Return

TRIP_MAX = 100
"""Buckets of one trip; a bucket is locked from its turn to the end of the statement."""


class Lender:
    """Hands by bucket.  `held` says which places running attempts hold; `ahead_s`: so long before their time tokens are
    leased; `clock`: a monotonic one."""

    def __init__(
        self,
        store: LimitStore,
        held: Callable[[], Mapping[Bucket, int]],
        *,
        ahead_s: float = AHEAD_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._held = held
        self._ahead_s = ahead_s
        self._clock = clock
        self._hands: dict[Bucket, Hand] = {}
        self._worker_id: int | None = None
        self._in_doubt = False  # an answer was lost: which places we hold is to be said anew
        self._trip = asyncio.Lock()
        self.on_leased: Callable[[Bucket, Leased], None] = lambda bucket, leased: None
        """Hears of each answer."""

    def usable(self, bucket: Bucket) -> int:
        """How many attempts may start now under this bucket."""
        hand = self._hands.get(bucket)
        return hand.usable(self._clock()) if hand else 0

    def spend(self, taken: Mapping[Bucket, int]) -> None:
        """So many attempts start, all of them now."""
        now = self._clock()
        for bucket, count in taken.items():
            self._hands[bucket].spend(count, now)

    def freed(self, bucket: Bucket) -> None:
        """An attempt has ended whose place this worker holds."""
        if bucket.places is not None:
            self._hand(bucket).freed(self._clock())

    def doubt(self) -> None:
        """What this worker holds is to be said anew."""
        self._in_doubt = True

    def serve(self, worker_id: int) -> None:
        """Places belong to a worker and are gone with it; and how old tokens are after such a silence, nobody knows."""
        if worker_id != self._worker_id:
            self._hands.clear()
            self._worker_id = worker_id

    async def lease(self, worker_id: int, wanted: Mapping[Bucket, int]) -> None:
        """Have so many of each, or ahead of need (0), as far as they are to be had and it is time to ask."""
        async with self._trip:
            self.serve(worker_id)
            now = self._clock()
            wishes = [(bucket, self._hand(bucket).wish(now, count)) for bucket, count in wanted.items()]
            asks = [(bucket, wish) for bucket, wish in wishes if any(wish)]
            for n in range(0, len(asks), TRIP_MAX):
                await self._ask(worker_id, asks[n : n + TRIP_MAX])

    async def _ask(self, worker_id: int, asks: Sequence[tuple[Bucket, tuple[int, int]]]) -> None:
        sent = self._clock()
        try:
            answers = await self._store.lease(worker_id, asks, self._ahead_s)
        except BaseException:
            self._in_doubt = self._in_doubt or any(places for _bucket, (_tokens, places) in asks)
            raise
        received = self._clock()
        if worker_id == self._worker_id:  # else they went with that worker
            for (bucket, wish), leased in zip(asks, answers, strict=True):
                self._hand(bucket).take_in(wish, leased, sent, received)
                self.on_leased(bucket, leased)

    async def slow(self, bucket: Bucket, age_s: float) -> float | None:
        """What was sent `age_s` ago under this bucket was too much for the other side: all daemons have half as many
        from now on.  The part of its rate that is left, or None when somebody has said so since."""
        async with self._trip:
            share = await self._store.slow(bucket, age_s)
            if share is not None and (hand := self._hands.get(bucket)) is not None:
                hand.drop()
            return share

    async def tidy(self, worker_id: int, waited_for: Collection[Bucket], *, all_of_it: bool = False) -> None:
        """Give back what is not used, tell when lots were, and say which places we hold if that is in doubt."""
        async with self._trip:
            self.serve(worker_id)
            now = self._clock()
            back: list[Return] = []
            for bucket, hand in list(self._hands.items()):
                back += hand.going_back(now, waited_for=bucket in waited_for, all_of_it=all_of_it)
                if not hand and bucket not in waited_for and now >= hand.ask_at:
                    del self._hands[bucket]
            try:
                for n in range(0, len(back), TRIP_MAX):
                    await self._store.give_back(worker_id, back[n : n + TRIP_MAX])
            except BaseException:
                self._in_doubt = self._in_doubt or any(piece.places for piece in back)
                raise
            if self._in_doubt:
                await self._true_up(worker_id)

    def next_at(self, waited_for: Collection[Bucket]) -> float:
        """When there is something to do, on the monotonic clock."""
        now = self._clock()
        return min((hand.next_at(now, waited_for=b in waited_for) for b, hand in self._hands.items()), default=inf)

    def in_hand(self, buckets: Iterable[Bucket]) -> dict[Bucket, int]:
        """What may be used now of each."""
        return {bucket: self.usable(bucket) for bucket in buckets}

    def pause_s(self, bucket: Bucket) -> float:
        """In how many seconds it is worth asking again."""
        hand = self._hands.get(bucket)
        return 0.0 if hand is None else max(0.0, hand.ask_at - self._clock())  # an empty hand is false

    def waits_s(self) -> float | None:
        """In how many seconds the next of those buckets is to be asked again that had less than was asked for."""
        now = self._clock()
        return min((hand.ask_at - now for hand in self._hands.values() if hand.ask_at > now), default=None)

    async def _true_up(self, worker_id: int) -> None:
        for hand in self._hands.values():
            hand.idle = 0
        self._in_doubt = False
        try:
            await self._store.true_up(worker_id, Counter(self._held()))
        except BaseException:
            self._in_doubt = True
            raise

    def _hand(self, bucket: Bucket) -> Hand:
        return self._hands.setdefault(bucket, Hand(bucket))
