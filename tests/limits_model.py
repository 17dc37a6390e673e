"""job_limits_lease and job_limits_return of one bucket with a rate, in Python: what the SQL must agree with, and what
the law of the windows is tried on."""

from __future__ import annotations

from math import ceil, floor

from daemon.limits import Bucket
from daemon.slices import AHEAD_S, Leased, Return

ROOMY_S = 0.05
"""A burst that leaves so much time to be late in is leased ahead; a smaller one in lots, one at a time."""

GRAIN_S = 1e-6
"""Of the database's timestamps."""


class Model:
    """One bucket's row; times in seconds since 1970 by the database's clock."""

    def __init__(self, bucket: Bucket) -> None:
        assert bucket.token_s is not None
        assert bucket.burst is not None
        self.t, self.burst = bucket.token_s, bucket.burst
        self.full_at = 0.0
        self.lot = 0
        self.lot_until: float | None = None
        self.lot_before = 0.0
        self.spare: list[tuple[float, int]] = []

    @property
    def roomy(self) -> bool:
        return (self.burst - 1) * self.t >= ROOMY_S

    def lease(self, at_s: float, wanted: int, ahead_s: float = AHEAD_S) -> Leased:
        return (self._lease_ahead if self.roomy else self._lease_lot)(at_s, wanted, ahead_s)

    def _lease_ahead(self, at_s: float, room: int, ahead_s: float) -> Leased:
        late_s = (self.burst - 1) * self.t
        lent, kept = [], []
        for first, there in self.spare:
            void = min(there, max(ceil((at_s - late_s + min(late_s / 4, 0.05) - first) / self.t), 0))
            first, there = first + void * self.t, there - void
            got = min(there, room, max(floor((at_s + ahead_s + GRAIN_S - first) / self.t) + 1, 0))
            if got:
                lent.append((first, got))
                room -= got
            if there > got:
                kept.append((first + got * self.t, there - got))
        following = max(self.full_at - late_s, at_s - late_s + min(late_s / 2, 2.5 * ahead_s))
        following = min(following, at_s + AHEAD_S + self.t)
        got = min(room, max(floor((at_s + ahead_s + GRAIN_S - following) / self.t) + 1, 0))
        if got:
            lent.append((following, got))
            following, room = following + got * self.t, room - got
        retry_s = max(following - ahead_s - at_s, 0.0) if room else None
        if lent or kept != self.spare:
            self.full_at, self.spare = following + late_s, kept
        froms, counts = tuple(first for first, _ in lent), tuple(count for _, count in lent)
        return Leased(0, 0, at_s, froms, counts, late_s, None, retry_s)

    def _lease_lot(self, at_s: float, wanted: int, ahead_s: float) -> Leased:
        late_s = min(max(self.burst * self.t, 0.1), 1.0)
        if self.lot_until is not None and self.lot_until > at_s:
            return Leased(
                0, 0, at_s, (), (), (self.burst - 1) * self.t, None, max(self.lot_until - late_s - at_s, 0.0) + 0.01
            )
        base = min(self.full_at, at_s + AHEAD_S + late_s + self.burst * self.t)
        start = max(at_s, base + self.t - self.burst * self.t)
        if start > at_s + ahead_s + GRAIN_S:
            return Leased(0, 0, at_s, (), (), late_s, None, start - ahead_s - at_s)
        got = min(wanted, floor(self.burst - max(base - start, 0.0) / self.t + 1e-6))
        self.full_at, self.lot_before = max(base, start + late_s) + got * self.t, base
        self.lot, self.lot_until = self.lot + 1, start + late_s
        later_s = max(start - at_s, 0.0) + 0.01 if wanted > got else None
        return Leased(0, 0, at_s, (start,), (got,), late_s, self.lot, later_s)

    def give_back(self, piece: Return) -> None:
        if piece.lot is not None:
            if piece.lot == self.lot and self.lot_until is not None:
                last = min(piece.last_s, self.lot_until)
                used_up = max(self.lot_before, last) + piece.used * self.t
                self.full_at = used_up if piece.used else self.lot_before
                self.lot_until = None
        elif piece.count and piece.from_s is not None:
            following = self.full_at - (self.burst - 1) * self.t
            if abs(piece.from_s + piece.count * self.t - following) < min(self.t / 100, 0.0001):
                self.full_at -= piece.count * self.t
            elif len(self.spare) < 16:
                self.spare.append((piece.from_s, piece.count))
