"""The only module that touches the job tables.  One method, one statement."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

import sql
from daemon.limits import Bucket, Grant
from daemon.settle import Transition
from daemon.texts import json_text, plain
from daemon.work_settings import ScheduleSettings
from jobs.context import Ledger
from jobs.model import Job

_QUEUE = sql.load("queue.sql")
_WORKER = sql.load("worker.sql")
_UPKEEP = sql.load("upkeep.sql")
_LEDGERS = sql.load("ledgers.sql")
_LIMITS = sql.load("limits.sql")
_SCHEDULES = sql.load("schedules.sql")

_LANE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")
"""What table jobs takes for a lane."""

AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke under a statement
    asyncpg.OperatorInterventionError,  # 57P01 shutdown, 57P03 starting up, 57014 cancelled
    asyncpg.InsufficientResourcesError,  # 53xxx: too many connections, disk full
    asyncpg.TransactionRollbackError,  # 40001, 40P01: run it again
    asyncpg.ReadOnlySQLTransactionError,  # 25006: a failover is going on
    asyncpg.LockNotAvailableError,
)
"""What means "not now": the statement may be sent again, after a pause and on another connection."""


LEFT_MAX = 10_000
"""Rows that a worker hands back as it leaves; were there more, the rescue would return them."""


@dataclass(frozen=True, slots=True)
class Source:
    """A (queue, gate) that has ready rows; `next_s` is when its first is due, negative when it is due already."""

    queue: str
    gate: str
    next_s: float


@dataclass(frozen=True, slots=True)
class Count:
    """What waits in one (queue, gate), counted up to a bound."""

    queue: str
    gate: str
    ready: int
    scheduled: int
    oldest_s: float


class Tick(NamedTuple):
    """Whether we were the one to insert it, its id unless an earlier one is unfinished, and what was before."""

    won: bool
    job_id: int | None
    last: datetime
    paused: bool


def search_path(schema: str) -> str:
    """The search_path under which every statement runs; pg_temp last, so that no temporary table can stand in."""
    return '"' + schema.replace('"', '""') + '", pg_temp'


class Store:
    """Statements on a pool whose connections see the schema.  Raises one of AWAY when Postgres is."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 30.0) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def claim(
        self, slots: Mapping[tuple[str, str], int], worker_id: int, kinds: Sequence[str], full: Sequence[str] = ()
    ) -> list[Job]:
        """Take up to slots[queue, gate] due rows of each; rows of kinds not served, and of lanes held or
        `full`, come back with their gate set and no worker."""
        queues, gates = zip(*slots, strict=True)
        rows = await self._fetch(_QUEUE["claim"], queues, gates, list(slots.values()), worker_id, kinds, None, full)
        claimed = [Job(*row) for row in rows]
        claimed.sort(key=lambda job: (job.priority, job.run_at, job.id))
        return claimed

    async def look(self, most: int) -> list[Source]:
        """The (queue, gate) pairs with ready rows."""
        return [Source(*row) for row in await self._fetch(_QUEUE["look"], most)]

    async def count(self, up_to: int, most: int) -> list[Count]:
        return [Count(*row) for row in await self._fetch(_UPKEEP["count"], up_to, most)]

    async def count_running(self, up_to: int) -> dict[str, int]:
        rows = await self._fetch(_UPKEEP["count_running"], up_to)
        return {row[0]: row[1] for row in rows}

    async def count_dead(self, up_to: int) -> dict[str, int]:
        rows = await self._fetch(_UPKEEP["count_dead"], up_to)
        return {row[0]: row[1] for row in rows}

    async def write(self, batch: Sequence[Transition], *, again: bool = False) -> set[int]:
        """Record how attempts ended, in one commit; return the ids that were still ours.

        `again`: an earlier call may have been committed though its answer was lost.  Then an attempt that is no longer
        ours brings no ledger rows: most likely it has brought them.
        """
        # Of two attempts of one row in a batch the newer comes last, and counts: the older one's fence has moved on.
        ended = sorted((t for t in batch if t.state != "ready"), key=_row_order)
        back = sorted((t for t in batch if t.state == "ready"), key=_row_order)
        ledgers = _ledger_rows(batch)
        async with self._connection() as conn:
            if ended and not back and not ledgers:  # the common case is one statement, and so its own transaction
                return await self._finish(conn, ended)
            async with conn.transaction():
                ours = await self._finish(conn, ended) | await self._put_back(conn, back)
                if again:
                    ledgers = _ledger_rows([t for t in batch if t.job.id in ours])
                for ledger, rows in ledgers.items():
                    await conn.execute(_LEDGERS[ledger], json_text(rows), timeout=self._timeout_s)
            return ours

    async def _finish(self, conn: Any, batch: Sequence[Transition]) -> set[int]:
        if not batch:
            return set()
        rows = await conn.fetch(
            _QUEUE["finish"],
            [t.job.id for t in batch],
            [t.job.fence for t in batch],
            [t.state for t in batch],
            [None if t.reason is None else plain(t.reason) for t in batch],
            [error_text(t) for t in batch],
            [None if t.result is None else json_text(t.result) for t in batch],
            [_lane(t.job) for t in batch],
            [_code(t) for t in batch],
            [t.keep for t in batch],
            [t.job.worker_id for t in batch],
            timeout=self._timeout_s,
        )
        return {row[0] for row in rows}

    async def _put_back(self, conn: Any, batch: Sequence[Transition]) -> set[int]:
        if not batch:
            return set()
        rows = await conn.fetch(
            _QUEUE["put_back"],
            [t.job.id for t in batch],
            [t.job.fence for t in batch],
            [t.delay_s for t in batch],
            [t.charged for t in batch],
            [t.gate for t in batch],
            [error_text(t) for t in batch],
            [_lane(t.job) for t in batch],
            [_code(t) for t in batch],
            [t.failed for t in batch],
            [t.job.worker_id for t in batch],
            timeout=self._timeout_s,
        )
        return {row[0] for row in rows}

    async def held(self, worker_id: int) -> list[Job]:
        """Running rows of this worker, with no more than their name and fence, that it claimed a while ago."""
        rows = await self._fetch(_QUEUE["held"], worker_id)
        return [Job(r[0], r[1], r[2], r[3], 2, 0, "{}", 0.0, worker_id=worker_id) for r in rows]

    async def progress(self, job: Job, value: Mapping[str, Any]) -> bool:
        """Store how far a running job is; false when the row is no longer this attempt's."""
        row = await self._value(_QUEUE["progress"], job.id, job.fence, json_text(value))
        return row is not None

    async def take(self, worker_id: int, wanted: Mapping[Bucket, int]) -> dict[Bucket, Grant]:
        """Tokens and places of each bucket, exact over all daemons."""
        buckets = list(wanted)
        rows = await self._fetch(
            _LIMITS["take"],
            worker_id,
            [b.name for b in buckets],
            [b.key for b in buckets],
            list(wanted.values()),
            [b.token_s for b in buckets],
            [b.burst for b in buckets],
            [b.places for b in buckets],
        )
        return {bucket: Grant(*row) for bucket, row in zip(buckets, rows, strict=True)}

    async def true_up(self, worker_id: int, held: Mapping[Bucket, int]) -> None:
        """Say which places this worker holds, after an answer was lost."""
        await self._execute(
            _LIMITS["true_up"], worker_id, [b.name for b in held], [b.key for b in held], list(held.values())
        )

    async def give(self, worker_id: int, places: Mapping[Bucket, int], tokens: Mapping[Bucket, int]) -> None:
        """Give back places that came free, and tokens that were taken but not used."""
        buckets = list({**places, **tokens})
        await self._execute(
            _LIMITS["give"],
            worker_id,
            [b.name for b in buckets],
            [b.key for b in buckets],
            [places.get(b, 0) for b in buckets],
            [tokens.get(b, 0) * (b.token_s or 0.0) for b in buckets],
        )

    async def adopt(self, name: str, kind: str, cron: str, timezone: str) -> tuple[datetime, bool]:
        """Make a schedule of the config known; (its last tick, whether it is paused)."""
        (row,) = await self._fetch(_SCHEDULES["adopt"], name, kind, cron, timezone)
        return row[0], row[1]

    async def tick(self, name: str, tick: datetime, row: ScheduleSettings) -> Tick:
        """Insert the row of a tick, once over all daemons."""
        unique_key = f"schedule:{name}" if row.overlap == "skip" else None
        (found,) = await self._fetch(
            _SCHEDULES["tick"],
            name,
            tick,
            row.kind,
            json_text(row.args),
            row.queue,
            row.org_id,
            row.priority,
            unique_key,
        )
        return Tick(*found)

    async def pass_over(self, name: str, tick: datetime) -> bool:
        """Count ticks up to this one as over without a row; whether we were the one."""
        return await self._value(_SCHEDULES["pass_over"], name, tick) is not None

    async def register(
        self, name: str, version: str, kinds: Sequence[str], queues: Sequence[str], lease_s: float
    ) -> int:
        worker_id: int = await self._value(_WORKER["register"], name, version, kinds, queues, lease_s)
        return worker_id

    async def leave(self, worker_id: int) -> None:
        await self._execute(_WORKER["leave"], worker_id, LEFT_MAX)

    async def lost(self, most: int) -> list[int]:
        """Workers that hold rows, or a lease, but no longer live."""
        return [row[0] for row in await self._fetch(_WORKER["lost"], most)]

    async def rescue(self, worker_id: int, crash_limit: int, most: int) -> tuple[int, int]:
        """Return up to `most` rows of a lost worker to their queues; (returned, buried)."""
        (row,) = await self._fetch(_WORKER["rescue"], worker_id, crash_limit, most)
        return row["back"], row["dead"]

    async def forget(self, worker_id: int) -> None:
        await self._execute(_WORKER["forget"], worker_id)

    async def hint(self) -> None:
        await self._execute(_WORKER["hint"])

    async def expire(self, most: int) -> int:
        return len(await self._fetch(_UPKEEP["expire"], most))

    async def make_partitions(self, parent: str, ahead_days: int) -> list[str]:
        return [row[0] for row in await self._fetch(_UPKEEP["partitions_make"], parent, ahead_days)]

    async def drop_partitions(self, parent: str, keep_s: float, most: int) -> list[str]:
        return [row[0] for row in await self._fetch(_UPKEEP["partitions_drop"], parent, keep_s, most)]

    async def forget_keys(self, keep_s: float, most: int) -> int:
        return _rows(await self._execute(_UPKEEP["forget_keys"], keep_s, most))

    async def forget_audit(self, keep_s: float, most: int) -> int:
        return _rows(await self._execute(_UPKEEP["forget_audit"], keep_s, most))

    async def _fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        async with self._connection() as conn:
            rows: list[asyncpg.Record] = await conn.fetch(statement, *args, timeout=self._timeout_s)
            return rows

    async def _value(self, statement: str, *args: Any) -> Any:
        async with self._connection() as conn:
            return await conn.fetchval(statement, *args, timeout=self._timeout_s)

    async def _execute(self, statement: str, *args: Any) -> str:
        async with self._connection() as conn:
            tag: str = await conn.execute(statement, *args, timeout=self._timeout_s)
            return tag

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """One of the pool's.  A statement that got no answer in time leaves a connection that may never answer again,
        and asyncpg would wait without end for its word that the statement is cancelled: end it."""
        conn = await self._pool.acquire(timeout=self._timeout_s)
        try:
            yield conn
        except (TimeoutError, asyncio.CancelledError):
            conn.terminate()
            raise
        finally:
            await self._pool.release(conn, timeout=self._timeout_s)


def _row_order(transition: Transition) -> tuple[int, int]:
    return transition.job.id, transition.job.fence


def _lane(job: Job) -> str | None:
    """The lane a handler derived, unless the table would refuse it, and with it the whole batch."""
    return job.lane if isinstance(job.lane, str) and _LANE.fullmatch(job.lane) else None


def _code(transition: Transition) -> str | None:
    return None if transition.code is None else plain(transition.code, 100)


def error_text(transition: Transition) -> str | None:
    """jobs.last_error: {"code", "message", "detail"?, "trace"?} of a failed or put-off attempt."""
    if transition.reason is None and transition.code is None:
        return None
    error: dict[str, Any] = {"code": _code(transition), "message": plain(transition.reason or "")}
    if transition.detail is not None:
        error["detail"] = transition.detail
    if transition.trace is not None:
        error["trace"] = plain(transition.trace, 16_000)
    return json_text(error)


def _ledger_rows(batch: Sequence[Transition]) -> dict[Ledger, list[dict[str, Any]]]:
    """What the attempts recorded, with what every channel's log has in common."""
    found: defaultdict[Ledger, list[dict[str, Any]]] = defaultdict(list)
    for t in batch:
        for ledger, row in t.records or ():
            found[ledger].append(
                {
                    **row,
                    "job_id": t.job.id,
                    "attempt": t.job.attempt,
                    "org_id": t.job.org_id,
                    "correlation_id": t.job.correlation_id,
                    "retry_in_s": t.delay_s if t.state == "ready" else None,
                }
            )
    return found


def _rows(tag: str) -> int:
    """asyncpg's command tag, "DELETE 12" → 12."""
    return int(tag.rpartition(" ")[2])
