"""What leaderless upkeep does to the tables: rescue, order, expiry, retention.  One method, one statement."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import asyncpg

import sql
from daemon.statements import Statements

_IDENTITY = sql.load("identity.sql")
_WORKER = sql.load("worker.sql")
_UPKEEP = sql.load("upkeep.sql")
_CONTROL = sql.load("control.sql")
_HOLDS = sql.load("holds.sql")
_BATCHES = sql.load("batches.sql")
_EMAIL = sql.load("email.sql")
_DOMAINS = sql.load("domains.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one question has found to do."""

    lost: list[int]  # workers that hold rows, or a lease, but no longer live
    over: bool  # the time of a pause
    paused: dict[str, tuple[str | None, str | None]]  # by gate, who paused it, and why
    unwanted: bool  # rows that came back although somebody wants them stopped
    late: bool  # rows past expires_at
    ordered: bool  # rows in an order that may have to be opened, or let by
    children: bool  # batches that are open
    domains: bool  # some are to be checked
    alive: int  # workers
    soon_s: float | None  # until a lease or a pause ends, unless somebody prolongs it


class UpkeepStore(Statements):
    """Raises one of AWAY when Postgres is.  Every statement may run beside itself on another daemon."""

    async def found(self, workers: int, pauses: int) -> Found:
        """What there is to do: `workers` lost ones at most; of the pauses so many."""
        (row,) = await self._fetch(_UPKEEP["found"], workers, pauses)
        paused = {gate: (actor, reason) for gate, actor, reason in row["paused"]}
        return Found(**{**row, "paused": paused})

    async def rescue(self, worker_id: int, crash_limit: int, claims: int) -> tuple[int, list[str], int]:
        """Return rows of some claims of a lost worker to their queues; (how many, the queue of each that was buried,
        claims that were there)."""
        (row,) = await self._fetch(_WORKER["rescue"], worker_id, crash_limit, claims)
        return row["back"], row["dead"], row["claims"]

    async def drop_lost_claims(self, worker_id: int, most: int) -> int:
        """Forget the claims of a lost worker that hold nothing any more."""
        return await self._count(_WORKER["drop_lost_claims"], worker_id, most)

    async def forget(self, worker_id: int) -> None:
        await self._execute(_WORKER["forget"], worker_id)

    async def hint(self) -> None:
        await self._execute(_WORKER["hint"])

    async def end_pauses(self, most: int) -> list[str]:
        """End the pauses whose time is over; their gates."""
        return [row[0] for row in await self._fetch(_CONTROL["end_pauses"], most)]

    async def call(self) -> None:
        """Tell the daemons that an operator wants something."""
        await self._execute(_HOLDS["call"])

    async def end_asked(self, most: int) -> list[str]:
        """End rows that came back although somebody wants them stopped; the queue of each."""
        return [row[0] for row in await self._fetch(_CONTROL["end_asked"], most)]

    async def expire(self, most: int) -> list[str]:
        """Bury rows that are too late; the queue of each."""
        return [row[0] for row in await self._fetch(_UPKEEP["expire"], most)]

    async def step_aside(self, most: int) -> int:
        """Let pass those behind a failed row whose time to block is over; how many such rows stepped aside."""
        return len(await self._fetch(_IDENTITY["step_aside"], most))

    async def open_heads(self, after: tuple[str, str], most: int) -> tuple[tuple[str, str] | None, int]:
        """Open what an end left shut, in `most` ordering keys after this one; (the last key seen, rows that may go)."""
        rows = await self._fetch(_IDENTITY["open_heads"], *after, most)
        last = (rows[-1]["kind"], rows[-1]["ordering_key"]) if len(rows) == most else None
        return last, sum(row["opened"] for row in rows)

    async def settle_batches(self, after: int, most: int) -> tuple[int | None, int]:
        """End batches that nobody ended, of the `most` open ones after this one; (the last of them, None when there are
        no more, and how many were over)."""
        (row,) = await self._fetch(_BATCHES["settle"], after, most)
        return (row["last"] if row["looked"] == most else None), row["over"] or 0

    async def plan_domains(self, per_minute: int) -> tuple[int, float]:
        """Insert the checks of domains that are due; (how many, for how many seconds the oldest was due)."""
        (row,) = await self._fetch(_DOMAINS["plan"], per_minute)
        return row["planned"], row["late_s"] or 0.0

    async def domain_states(self, exact: int) -> dict[str, int]:
        """How many domains are in each state, counted up to `exact`."""
        return {row["state"]: row["n"] for row in await self._fetch(_DOMAINS["states"], exact)}

    async def make_partitions(self, parent: str, ahead_days: int) -> list[str]:
        return [row[0] for row in await self._fetch(_UPKEEP["partitions_make"], parent, ahead_days)]

    async def drop_partitions(self, parent: str, keep_s: float, most: int) -> list[str]:
        return [row[0] for row in await self._fetch(_UPKEEP["partitions_drop"], parent, keep_s, most)]

    async def forget_keys(self, keep_s: float, most: int) -> int:
        return await self._count(_UPKEEP["forget_keys"], keep_s, most)

    async def forget_debounces(self, keep_s: float, most: int) -> int:
        return await self._count(_IDENTITY["forget_debounces"], keep_s, most)

    async def forget_audit(self, keep_s: float, most: int) -> int:
        return await self._count(_UPKEEP["forget_audit"], keep_s, most)

    async def forget_undo(self, keep_s: float, most: int) -> int:
        return await self._count(_CONTROL["forget_undo"], keep_s, most)

    async def forget_digest_items(self, older_s: float, most: int) -> int:
        return await self._count(_EMAIL["forget_digest_items"], older_s, most)

    async def forget_suppressions(self, ended_s: float, most: int) -> int:
        return await self._count(_EMAIL["forget_suppressions"], ended_s, most)

    async def forget_batches(self, keep_s: float, most: int) -> int:
        return await self._count(_BATCHES["forget"], keep_s, most)

    async def forget_buckets(self, unused_s: float, after: tuple[str, str], most: int) -> tuple[str, str] | None:
        """Forget unused ones of the `most` buckets of limits after this one; the last of them, None at the end."""
        rows = await self._fetch(_UPKEEP["forget_buckets"], unused_s, *after, most)
        return (rows[0][0], rows[0][1]) if rows and rows[0][2] == most else None

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """What a statement of upkeep returns."""
        return await self._fetch(statement, *args)

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """A connection, for upkeep that takes several statements in one transaction."""
        return self._connection()
