"""The only module that touches the job tables.  One method, one statement."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

import sql
from daemon.limits import Bucket
from daemon.low_water import Start
from daemon.settle import Transition
from daemon.slices import Leased, Return
from daemon.texts import json_text, plain
from daemon.work_settings import ScheduleSettings
from jobs.context import Ledger
from jobs.model import Job

_QUEUE = sql.load("queue.sql")
_IDENTITY = sql.load("identity.sql")
_WORKER = sql.load("worker.sql")
_UPKEEP = sql.load("upkeep.sql")
_CONTROL = sql.load("control.sql")
_HOLDS = sql.load("holds.sql")
_LEDGERS = sql.load("ledgers.sql")
_LIMITS = sql.load("limits.sql")
_SCHEDULES = sql.load("schedules.sql")
_BATCHES = sql.load("batches.sql")

_STATES = {"done": b"d", "dead": b"x", "cancelled": b"c"}
"""As the finishing statement reads them."""

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


LEFT_MAX = 1_000
"""Claims that a worker hands back as it leaves; were there more, the rescue would return them."""


class Ask(NamedTuple):
    """What a claim asks one place for: its rows in order of class and time, class `first` before the others; or those
    of one organisation (`""`: of none) in class `first` alone.  `start`: where in the order of time."""

    queue: str
    gate: str
    slots: int
    first: int = 1
    org_id: str | None = None
    start: Start = Start()


class Head(NamedTuple):
    """The first ready row of a (queue, gate, class): when it is due, and the database's clock, seconds since 1970."""

    queue: str
    gate: str
    priority: int
    run_at: float
    now: float


class Mark(NamedTuple):
    """How old the rows of a (queue, gate, class) may still be, seconds since 1970: what was older has been claimed."""

    queue: str
    gate: str
    priority: int
    run_at: float


class Waiting(NamedTuple):
    """An organisation (`""`: none) that waits at a place in one class."""

    priority: int
    org_id: str
    weight: float


class Ripe(NamedTuple):
    """How many rows of a (queue, class) went back since their time had come, when the first of them was due (seconds
    since 1970), and in how many seconds the next one is."""

    queue: str
    priority: int
    rows: int
    run_at: float | None
    next_s: float | None


class Freed(NamedTuple):
    """A row of this queue and class that may go, since what was before it in its ordering key has ended; when it was
    due, seconds since 1970."""

    queue: str
    priority: int
    run_at: float


class Tick(NamedTuple):
    """Whether we were the one to insert it, its id unless an earlier one is unfinished, and what was before."""

    won: bool
    job_id: int | None
    last: datetime
    paused: bool


class Wish(NamedTuple):
    """A row that runs here and that somebody wants stopped."""

    id: int
    fence: int
    actor: str | None
    reason: str | None


def search_path(schema: str) -> str:
    """The search_path under which every statement runs; pg_temp last, so that no temporary table can stand in."""
    return '"' + schema.replace('"', '""') + '", pg_temp'


class Store:
    """Statements on a pool whose connections see the schema.  Raises one of AWAY when Postgres is."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 30.0) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self.on_freed: Callable[[Sequence[Freed]], None] = lambda rows: None

    async def claim(
        self, asks: Sequence[Ask], worker_id: int, kinds: Sequence[str], full: Sequence[str] = ()
    ) -> list[Job]:
        """Take due rows as asked; a row that must not run comes back without a worker, at the gate it was moved to.

        `full`: gates of lanes of which this daemon may start nothing more."""
        queues, gates, slots, first, orgs, starts = zip(*asks, strict=True)
        after, after_in, after_id = zip(*starts, strict=True)
        rows = await self._fetch(
            _QUEUE["claim"],
            queues,
            gates,
            orgs,
            first,
            slots,
            *zip(*after, strict=True),
            worker_id,
            kinds,
            full,
            None,
            after_in,
            after_id,
        )
        claimed = [Job(*row) for row in rows]
        claimed.sort(key=_claim_order)
        return claimed

    async def ripen(self, places: Sequence[tuple[str, int]], most: int) -> list[Ripe]:
        """Bring due rows of these (queue, class) back from the gate `later`, at most `most` of each."""
        queues, priorities = zip(*places, strict=True)
        return [Ripe(*row) for row in await self._fetch(_QUEUE["ripen"], queues, priorities, most)]

    async def look(self, after: tuple[str, str, int], most: int, known: Sequence[Mark] = ()) -> list[Head]:
        """The heads of the (queue, gate, class) that have ready rows, in order, beginning after `after`.  Of those that
        are `known` only rows no older than their mark."""
        queues, gates, classes, marks = zip(*known, strict=True) if known else ((), (), (), ())
        found = await self._fetch(_QUEUE["look"], *after, most, queues, gates, classes, marks)
        return [Head(*row) for row in found]

    async def waiting(self, queue: str, gate: str, after: tuple[int, str], most: int) -> list[Waiting]:
        """The organisations that wait at a place, in order of class and name, beginning after `after`."""
        return [Waiting(*row) for row in await self._fetch(_QUEUE["waiting"], queue, gate, *after, most)]

    async def write(
        self, batch: Sequence[Transition], ended_claims: Sequence[int] = (), *, again: bool = False
    ) -> set[int]:
        """Record how attempts ended, in one commit; return the ids that were still ours.  `on_freed` hears of the rows
        that may go now.

        `ended_claims`: those whose last rows these are.  `again`: an earlier call may have been committed though its
        answer was lost.  Then an attempt that is no longer ours brings no ledger rows: most likely it has brought them.
        """
        async with self._connection() as conn:
            ours, freed = await self._write(conn, batch, ended_claims, again=again, alone=True)
        if freed:
            self.on_freed(freed)
        return ours

    async def write_in(self, conn: Any, t: Transition, ended_claims: Sequence[int]) -> tuple[bool, list[Freed]]:
        """Record how an attempt ended in the transaction that is open on `conn`; whether the row was still ours, and
        what `on_freed` is to hear after the commit."""
        ours, freed = await self._write(conn, [t], ended_claims, again=False, alone=False)
        return bool(ours), freed

    async def _write(
        self, conn: Any, batch: Sequence[Transition], ended_claims: Sequence[int], *, again: bool, alone: bool
    ) -> tuple[set[int], list[Freed]]:
        """`alone`: in a transaction of its own."""
        # Of two attempts of one row in a batch the newer comes last, and counts: the older one's fence has moved on.
        batch = sorted(batch, key=_row_order)
        parts = [
            (write, [t for t in batch if (t.state == "ready") is ready and t.job.worker_id == worker_id])
            for worker_id in {t.job.worker_id for t in batch}
            for ready, write in ((False, self._finish), (True, self._put_back))
        ]
        parts = [(write, part) for write, part in parts if part]
        more = [t for t in batch if t.records or t.progress is not None or t.job.batch_id is not None]
        if len(parts) == 1 and not more:  # the common case is one statement, and so its own transaction
            return _told(await parts[0][0](conn, parts[0][1], ended_claims))
        async with conn.transaction() if alone else nullcontext():
            ours: set[int] = set()
            freed: list[Freed] = []
            children: dict[int, Transition] = {}
            if said := [(t.job, t.progress) for t in more if t.progress is not None]:
                await self._progress(conn, said)
            for n, (write, part) in enumerate(parts):
                written, free = _told(await write(conn, part, ended_claims if n == 0 else ()))
                ours |= written
                freed += free
                if more and write == self._finish:
                    children |= {t.job.id: t for t in part if t.job.batch_id is not None and t.job.id in written}
            ledgers = _ledger_rows([t for t in more if t.job.id in ours] if again else more)
            for ledger, rows in ledgers.items():
                await conn.execute(_LEDGERS[ledger], json_text(rows), timeout=self._timeout_s)
            if children:  # last, since it locks batches
                await self._end_children(conn, list(children.values()))
        return ours, freed

    async def _end_children(self, conn: Any, children: Sequence[Transition]) -> None:
        await conn.execute(
            _BATCHES["ended"],
            [t.job.batch_id for t in children],
            [t.job.id for t in children],
            [t.state for t in children],
            timeout=self._timeout_s,
        )

    async def settle_batches(self, after: int, most: int) -> tuple[int | None, int]:
        """End batches that nobody ended, of the `most` open ones after this one; (the last of them, None when there are
        no more, and how many were over)."""
        (row,) = await self._fetch(_BATCHES["settle"], after, most)
        return (row["last"] if row["looked"] == most else None), row["over"] or 0

    async def forget_batches(self, keep_s: float, most: int) -> int:
        return _rows(await self._execute(_BATCHES["forget"], keep_s, most))

    async def say(self, progress: Sequence[tuple[Job, str]], lines: Sequence[Mapping[str, Any]]) -> None:
        """Store how far running jobs are (JSON; of an attempt that is over nothing is written), and lines of theirs."""
        async with self._connection() as conn:
            if progress:
                await self._progress(conn, progress)
            if lines:
                await conn.execute(_LEDGERS["job_logs"], json_text(lines), timeout=self._timeout_s)

    async def _progress(self, conn: Any, progress: Sequence[tuple[Job, str]]) -> None:
        said = sorted(progress, key=_job_order)
        await conn.execute(
            _QUEUE["progress"],
            [job.id for job, _value in said],
            [job.fence for job, _value in said],
            [value for _job, value in said],
            timeout=self._timeout_s,
        )

    async def _finish(
        self, conn: Any, batch: Sequence[Transition], ended_claims: Sequence[int]
    ) -> list[asyncpg.Record]:
        plainly_done = all(_plainly_done(t) for t in batch)
        rows: list[asyncpg.Record] = await conn.fetch(
            _QUEUE["finish"],
            [t.job.id for t in batch],
            [t.job.fence for t in batch],
            None if plainly_done else [_STATES[t.state] for t in batch],
            None if plainly_done else [None if t.reason is None else plain(t.reason) for t in batch],
            None if plainly_done else [error_text(t) for t in batch],
            None if plainly_done else [_result(t) for t in batch],
            None if plainly_done else [_lane(t.job) for t in batch],
            None if plainly_done else [_code(t) for t in batch],
            None if plainly_done else [t.keep for t in batch],
            batch[0].job.worker_id,
            ended_claims,
            timeout=self._timeout_s,
        )
        return rows

    async def _put_back(
        self, conn: Any, batch: Sequence[Transition], ended_claims: Sequence[int]
    ) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await conn.fetch(
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
            batch[0].job.worker_id,
            ended_claims,
            [t.order_wait_s for t in batch],
            timeout=self._timeout_s,
        )
        return rows

    async def held(self, worker_id: int, known_claims: Sequence[int]) -> list[Job]:
        """Running rows of this worker, with their name and fence only, out of older claims it does not know."""
        rows = await self._fetch(_QUEUE["held"], worker_id, known_claims)
        return [Job(r[0], r[1], r[2], r[3], 2, 0, "{}", 0.0, worker_id=worker_id, claim_id=r[4]) for r in rows]

    async def drop_claims(self, worker_id: int, known_claims: Sequence[int]) -> int:
        """Forget older claims of this worker that it does not know and that hold nothing any more."""
        return _rows(await self._execute(_QUEUE["drop_claims"], worker_id, known_claims))

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
            ahead_s,
        )
        answers = sorted(rows, key=_number)  # they come in the order in which buckets are locked
        return [Leased(r[1], r[2], r[3], tuple(r[4]), tuple(r[5]), r[6], r[7], r[8]) for r in answers]

    async def true_up(self, worker_id: int, held: Mapping[Bucket, int]) -> None:
        """Say which places this worker holds, after an answer was lost."""
        await self._execute(
            _LIMITS["true_up"], worker_id, [b.name for b in held], [b.key for b in held], list(held.values())
        )

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
            [p.from_s for p in pieces],
            [p.count for p in pieces],
            [p.lot for p in pieces],
            [p.used for p in pieces],
            [p.last_s for p in pieces],
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

    async def rescue(self, worker_id: int, crash_limit: int, claims: int) -> tuple[int, list[str], int]:
        """Return rows of some claims of a lost worker to their queues; (how many, the queue of each that was buried,
        claims that were there)."""
        (row,) = await self._fetch(_WORKER["rescue"], worker_id, crash_limit, claims)
        return row["back"], row["dead"], row["claims"]

    async def drop_lost_claims(self, worker_id: int, most: int) -> int:
        """Forget the claims of a lost worker that hold nothing any more."""
        return _rows(await self._execute(_WORKER["drop_lost_claims"], worker_id, most))

    async def forget(self, worker_id: int) -> None:
        await self._execute(_WORKER["forget"], worker_id)

    async def hint(self) -> None:
        await self._execute(_WORKER["hint"])

    async def expire(self, most: int) -> list[str]:
        """Bury rows that are too late; the queue of each."""
        return [row[0] for row in await self._fetch(_UPKEEP["expire"], most)]

    async def make_partitions(self, parent: str, ahead_days: int) -> list[str]:
        return [row[0] for row in await self._fetch(_UPKEEP["partitions_make"], parent, ahead_days)]

    async def drop_partitions(self, parent: str, keep_s: float, most: int) -> list[str]:
        return [row[0] for row in await self._fetch(_UPKEEP["partitions_drop"], parent, keep_s, most)]

    async def forget_keys(self, keep_s: float, most: int) -> int:
        return _rows(await self._execute(_UPKEEP["forget_keys"], keep_s, most))

    async def asked(self, worker_id: int, most: int) -> list[Wish]:
        """Rows of this worker that somebody wants stopped."""
        return [Wish(*row) for row in await self._fetch(_CONTROL["asked"], worker_id, most)]

    async def end_asked(self, most: int) -> list[str]:
        """End rows that came back although somebody wants them stopped; the queue of each."""
        return [row[0] for row in await self._fetch(_CONTROL["end_asked"], most)]

    async def end_pauses(self, most: int) -> list[str]:
        """End the pauses whose time is over; their gates."""
        return [row[0] for row in await self._fetch(_CONTROL["end_pauses"], most)]

    async def pauses(self, most: int) -> dict[str, tuple[str | None, str | None]]:
        """Who paused each gate, and why."""
        return {row[0]: (row[1], row[2]) for row in await self._fetch(_CONTROL["pauses"], most)}

    async def call(self) -> None:
        """Tell the daemons that an operator wants something."""
        await self._execute(_HOLDS["call"])

    async def forget_undo(self, keep_s: float, most: int) -> int:
        return _rows(await self._execute(_CONTROL["forget_undo"], keep_s, most))

    async def forget_audit(self, keep_s: float, most: int) -> int:
        return _rows(await self._execute(_UPKEEP["forget_audit"], keep_s, most))

    async def step_aside(self, most: int) -> int:
        """Let pass those behind a failed row whose time to block is over; how many such rows stepped aside."""
        return len(await self._fetch(_IDENTITY["step_aside"], most))

    async def open_heads(self, after: tuple[str, str], most: int) -> tuple[tuple[str, str] | None, int]:
        """Open what an end left shut, in `most` ordering keys after this one; (the last key seen, rows that may go)."""
        rows = await self._fetch(_IDENTITY["open_heads"], *after, most)
        last = (rows[-1]["kind"], rows[-1]["ordering_key"]) if len(rows) == most else None
        return last, sum(row["opened"] for row in rows)

    async def forget_debounces(self, keep_s: float, most: int) -> int:
        return _rows(await self._execute(_IDENTITY["forget_debounces"], keep_s, most))

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


def _claim_order(job: Job) -> tuple[int, float, int]:
    return job.priority, job.run_at, job.id


def _told(written: Sequence[asyncpg.Record]) -> tuple[set[int], list[Freed]]:
    """The ids among what a statement has returned, and what comes after them: which rows may go now."""
    ours = {row[0] for row in written}
    if None not in ours:
        return ours, []
    return ours - {None}, [Freed(*row[1:]) for row in written if row[0] is None]


def _plainly_done(t: Transition) -> bool:
    """Nothing is to be said of it but that it is done."""
    return t.state == "done" and t.result is None and t.keep and t.reason is None and t.job.lane is None


def _row_order(transition: Transition) -> tuple[int, int]:
    return transition.job.id, transition.job.fence


def _job_order(said: tuple[Job, str]) -> tuple[int, int]:
    return said[0].id, said[0].fence


def _result(t: Transition) -> str | None:
    return t.result_json if t.result_json is not None or t.result is None else json_text(t.result)


def _number(row: asyncpg.Record) -> int:
    return row[0]  # type: ignore[no-any-return]  # a function's first column


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


def whose(job: Job) -> dict[str, Any]:
    """What all rows about a job have in common."""
    return {"job_id": job.id, "attempt": job.attempt, "org_id": job.org_id, "correlation_id": job.correlation_id}


def _ledger_rows(batch: Sequence[Transition]) -> dict[Ledger, list[dict[str, Any]]]:
    """What the attempts recorded, with what every channel's log has in common."""
    found: defaultdict[Ledger, list[dict[str, Any]]] = defaultdict(list)
    for t in batch:
        for ledger, row in t.records or ():
            found[ledger].append({**row, **whose(t.job), "retry_in_s": t.delay_s if t.state == "ready" else None})
    return found


def _rows(tag: str) -> int:
    """asyncpg's command tag, "DELETE 12" → 12."""
    return int(tag.rpartition(" ")[2])
