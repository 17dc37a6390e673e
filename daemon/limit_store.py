"""The buckets of limits, as daemons lease and return slices of them.  One method, one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

import sql
from daemon.limits import Bucket
from daemon.slices import Leased, Return
from daemon.statements import Statements

_LIMITS = sql.load("limits.sql")


class LimitStore(Statements):
    """Raises one of AWAY when Postgres is."""

    async def lease(
        self, worker_id: int, asks: Sequence[tuple[Bucket, tuple[int, int]]], ahead_s: float
    ) -> list[Leased]:
        """So many (tokens, places) of each bucket as are to be had, exact over all daemons."""
        buckets = [bucket for bucket, _wish in asks]
        rows = await self._fetch(
            _LIMITS["lease"],
            worker_id,
            [b.name for b in buckets],
            [b.key for b in buckets],
            [wish[0] for _bucket, wish in asks],
            [wish[1] for _bucket, wish in asks],
            [b.token_s for b in buckets],
            [b.burst for b in buckets],
            [b.places for b in buckets],
            [b.day for b in buckets],
            ahead_s,
        )
        answers = sorted(rows, key=_number)  # they come in the order in which buckets are locked
        return [
            Leased(r[1], r[2], r[3], tuple(r[4]), tuple(r[5]), r[6], r[7], r[8], r[9], r[10], r[11]) for r in answers
        ]

    async def true_up(self, worker_id: int, held: Mapping[Bucket, int]) -> None:
        """Say which places this worker holds, after an answer was lost."""
        await self._execute(
            _LIMITS["true_up"], worker_id, [b.name for b in held], [b.key for b in held], list(held.values())
        )

    async def slow(self, bucket: Bucket, age_s: float) -> float | None:
        """The other side took something sent `age_s` ago for too much: the part of its rate that the bucket lends from
        now on, or None if it was slowed since."""
        share: float | None = await self._value(
            _LIMITS["slow"], bucket.name, bucket.key, bucket.token_s, bucket.burst, age_s
        )
        return share

    async def give_back(self, worker_id: int, pieces: Sequence[Return]) -> None:
        """Places and tokens that nobody uses, and the accounts of lots."""
        await self._execute(
            _LIMITS["give_back"],
            worker_id,
            [p.bucket.name for p in pieces],
            [p.bucket.key for p in pieces],
            [p.places for p in pieces],
            [p.bucket.token_s for p in pieces],
            [p.bucket.burst for p in pieces],
            [p.bucket.day for p in pieces],
            [p.bucket.token_s if p.step_s is None else p.step_s for p in pieces],
            [p.from_s for p in pieces],
            [p.count for p in pieces],
            [p.lot for p in pieces],
            [p.used for p in pieces],
            [p.last_s for p in pieces],
        )


def _number(row: asyncpg.Record) -> int:
    return row[0]  # type: ignore[no-any-return]  # a function's first column
