"""What a daemon has in hand of a bucket: slices of tokens, each with its time, and places.  Pure.

Tokens used in their time keep the limit in every window, whoever uses them (the proof stands in migration 0010).  So
nothing here may lengthen a token's time: of what the network took, the shorter side counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from daemon.limits import Bucket

AHEAD_S = 0.1
"""Tokens are leased so long before they may be used: a slice is what a daemon uses in this time, at least one.
(The function job_limits_lease knows it as ahead_max_s.)"""

ASK_EVERY_S = 0.04
"""The shortest time between two questions about one bucket."""

MANY = 1_000_000
"""More than anything asks for: what no token and no place limits."""

PAUSE_MAX_S = 0.1
"""The longest time between two questions about places while rows wait for some."""

MOMENT_S = 0.01
"""Nobody asks twice within this."""

GRAIN_S = 1e-6
"""Timestamps are no finer.  A trip takes longer than two of it, and by a trip's length a token's time is shortened."""

IDLE_S = 0.1
"""What could have been used for so long, and was not, goes back."""


@dataclass(frozen=True, slots=True)
class Leased:
    """The answer about one bucket; times are seconds since 1970 by the database's clock, `at_s` is when.

    `froms` and `counts`: tokens, as the time of the first and how many from there on; each may be used for `late_s`
    from its time on.  `lot`: what they are settled by, if they are; of a day, where they are counted.  `rivals`: other
    workers that want places.  `step_s`: how far tokens are apart, None: as the bucket says.  `share`: the part of its
    rate that it lends.  `used`: of a day, how many by now.
    """

    places: int
    rivals: int
    at_s: float
    froms: tuple[float, ...]
    counts: tuple[int, ...]
    late_s: float
    lot: int | None
    retry_s: float | None
    step_s: float | None = None
    share: float = 1.0
    used: int | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """What goes back of one bucket: places, `count` tokens from `from_s` on (of a day: of slot `lot`), or the account
    of a lot.  `step_s`: how far apart they are, None: as the bucket says."""

    bucket: Bucket
    places: int = 0
    from_s: float | None = None
    count: int = 0
    lot: int | None = None
    used: int = 0
    last_s: float = 0.0
    step_s: float | None = None


@dataclass(slots=True)
class _Slice:
    """`count` tokens, `step_s` apart.  `from_s` of the first is by the database's clock, the others are by ours."""

    from_s: float
    count: int
    step_s: float
    start_at: float
    void_at: float
    clock_s: float  # our clock + this is the database's, or a little more
    lot: int | None
    used: int = 0
    last_at: float = 0.0

    def ripe(self, now: float) -> int:
        """How many may be used now; those whose time has passed are void."""
        if self.step_s == 0.0:
            if now > self.void_at:
                self.count = 0
            return self.count if now >= self.start_at else 0
        if now > self.void_at:
            self._advance(min(self.count, ceil((now - self.void_at) / self.step_s)))
        if now < self.start_at or now > self.void_at:
            return 0
        return min(self.count, int((now - self.start_at) / self.step_s) + 1)

    def spend(self, count: int, now: float) -> None:
        self.used, self.last_at = self.used + count, now
        self._advance(count)

    def at(self, number: int) -> float:
        """When so many may be used."""
        return self.start_at + (number - 1) * self.step_s

    def _advance(self, count: int) -> None:
        self.count -= count
        self.from_s += count * self.step_s
        self.start_at += count * self.step_s
        self.void_at += count * self.step_s


class Hand:
    """Tokens and places of one bucket; `now` is always a monotonic clock's."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.idle = 0  # places in hand that no attempt holds
        self.asked_at = -inf
        self.ask_at = -inf  # not before: the last question was answered with less than was asked for
        self._slices: list[_Slice] = []
        self._size = 1
        self._pause_s = ASK_EVERY_S
        self._rivals = 0
        self._used_at = -inf
        self._freed_at = -inf
        self._spent_all = False

    def __bool__(self) -> bool:
        return self.idle > 0 or bool(self._slices)

    def tokens(self) -> int:
        """In hand, whether they may be used yet or not."""
        return sum(piece.count for piece in self._slices)

    def usable(self, now: float) -> int:
        """How many attempts may start now."""
        most = self.idle if self.bucket.places is not None else MANY
        if self.bucket.has_tokens:
            most = min(most, sum(piece.ripe(now) for piece in self._slices))
        return most

    # --- what comes -------------------------------------------------------------------------------------------------

    def wish(self, now: float, short: int = 0) -> tuple[int, int]:
        """Tokens and places to ask for: `short` rows want to start now; 0: an unknown number waits at the gate."""
        if now < self.ask_at or (not short and now < self.asked_at + ASK_EVERY_S):
            return 0, 0
        if self._spent_all:
            self._size, self._spent_all = min(self._size * 2, self._largest()), False
        # of a day only what is used in a moment, however many want some: what a killed daemon had is gone for the day
        size = max(self._size, short if self.bucket.day is None else 1)
        tokens = size - self.tokens() if self.bucket.has_tokens else 0
        places = size - self.idle if self.bucket.places is not None else 0
        enough = not short and max(tokens, places) * 2 < size
        return (0, 0) if enough else (max(tokens, 0), max(places, 0))

    def take_in(self, wished: tuple[int, int], leased: Leased, sent: float, received: float) -> None:
        """What was asked for at `sent` and answered at `received`: the database's moment lies somewhere between."""
        self.asked_at, self._used_at = sent, received
        self.idle += leased.places
        self._rivals = leased.rivals
        self._wait_after(leased, leased.places < wished[1], received)
        step_s = 0.0 if leased.lot is not None else (leased.step_s or self.bucket.token_s or 0.0)
        for from_s, count in zip(leased.froms, leased.counts, strict=True):
            start_at = received - GRAIN_S + (from_s - leased.at_s)
            void_at = sent + GRAIN_S + (from_s - leased.at_s) + leased.late_s
            clock_s = leased.at_s - sent
            self._slices.append(_Slice(from_s, count, step_s, start_at, void_at, clock_s, leased.lot))
        self._slices.sort(key=_by_start)

    def _wait_after(self, leased: Leased, places_refused: bool, received: float) -> None:
        """Tokens come by the clock.  Nobody knows when a place comes free: each refusal makes the pause longer."""
        pause_s = 0.0
        if places_refused:
            self._pause_s = ASK_EVERY_S if leased.places else min(self._pause_s * 2, PAUSE_MAX_S)
            pause_s = self._pause_s
        if leased.retry_s is not None:
            pause_s = max(pause_s, leased.retry_s, MOMENT_S)
        self.ask_at = received + pause_s

    def _largest(self) -> int:
        if self.bucket.day is not None:
            return self.bucket.burst or 1
        if self.bucket.token_s is None:
            return self.bucket.places or 1
        return max(ceil(AHEAD_S / self.bucket.token_s) + 1, self.bucket.burst or 1)

    # --- what goes --------------------------------------------------------------------------------------------------

    def spend(self, count: int, now: float) -> None:
        """So many attempts start; no more than `usable` said."""
        self._used_at = now
        if self.bucket.places is not None:
            self.idle -= count
        for piece in self._slices:
            used = min(count, piece.ripe(now))
            piece.spend(used, now)
            count -= used
        self._slices = [piece for piece in self._slices if piece.count or self._settles(piece)]
        self._spent_all = self._spent_all or not self.usable(now)

    def freed(self, now: float) -> None:
        """An attempt has ended: its place is in hand."""
        self.idle += 1
        self._freed_at = now

    def going_back(self, now: float, *, waited_for: bool, all_of_it: bool = False) -> list[Return]:
        """What is not to be kept.  Out of hand after this, and to be sent."""
        back: list[Return] = []
        if self.idle and (all_of_it or self._places_go(now)):
            back.append(Return(self.bucket, places=self.idle))
            self.idle = 0
        kept = []
        for piece in self._slices:
            piece.ripe(now)  # without what is void by now
            goes = all_of_it or now >= self._stale_at(piece, waited_for=waited_for)
            if self._settles(piece) and (goes or piece.used or not piece.count):
                last_s = piece.clock_s + piece.last_at
                back.append(Return(self.bucket, lot=piece.lot, used=piece.used, last_s=last_s))
            elif piece.count and goes:
                step_s = None if piece.lot is not None else piece.step_s
                back.append(Return(self.bucket, from_s=piece.from_s, count=piece.count, lot=piece.lot, step_s=step_s))
                self._size = max(1, self._size // 2)
            elif piece.count:
                kept.append(piece)
        self._slices = kept
        return back

    def drop(self) -> None:
        """What is in hand must not be used: it was lent at a rate that the other side does not bear."""
        self._slices = [piece for piece in self._slices if self._settles(piece)]
        for piece in self._slices:
            piece.count = 0

    def _settles(self, piece: _Slice) -> bool:
        """It is of a lot, which ends when its holder says how many of it were used."""
        return piece.lot is not None and self.bucket.day is None

    def _places_go(self, now: float) -> bool:
        """Used again at once they need no trip; but now and then the database is asked whether somebody else waits."""
        idle_for_s = now - max(self._used_at, self._freed_at)
        return bool(self._rivals) or idle_for_s >= IDLE_S or now - self.asked_at >= IDLE_S

    def _stale_at(self, piece: _Slice, *, waited_for: bool) -> float:
        """While rows wait, tokens have their time to be used; when none do, others may want those still to come."""
        return IDLE_S + (max(self._used_at, piece.start_at) if waited_for else self._used_at)

    def next_at(self, now: float, *, waited_for: bool) -> float:
        """When there is something to do: a token to use, a question to ask, something to give back."""
        times = [self._stale_at(piece, waited_for=waited_for) for piece in self._slices]
        if self.idle:
            times.append(IDLE_S + max(self._used_at, self._freed_at))
        if waited_for:
            times.append(max(self.ask_at, self.asked_at + ASK_EVERY_S))
            times += [at for piece in self._slices if (at := piece.at(self._batch(piece))) > now]
        return min(times, default=inf)

    def _batch(self, piece: _Slice) -> int:
        """Claims of one row cost as much as claims of many: wait until a fifth of a slice is ripe."""
        return max(1, min(piece.count, self._size // 5))


def _by_start(piece: _Slice) -> float:
    return piece.start_at
