"""The hot path's statements: rows are claimed, looked for, and written back.  One method, one statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import asyncpg

import sql
from daemon import endings
from daemon.low_water import Start
from daemon.settle import Transition
from daemon.statements import Statements
from daemon.texts import json_text, plain
from jobs.model import Job

_QUEUE = sql.load("queue.sql")
_LEDGERS = sql.load("ledgers.sql")
_BATCHES = sql.load("batches.sql")


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
    """How many rows of a (queue, class) went back since their time had come; when the first was due that went to the
    queue, and the first that went to the gate of its retries (seconds since 1970); in how many seconds the next is."""

    queue: str
    priority: int
    rows: int
    run_at: float | None
    retry_at: float | None
    next_s: float | None


class Freed(NamedTuple):
    """A row of this queue and class that may go, since what was before it in its ordering key has ended; when it was
    due, seconds since 1970."""

    queue: str
    priority: int
    run_at: float


class Store(Statements):
    """Raises one of AWAY when Postgres is."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 30.0) -> None:
        super().__init__(pool, timeout_s=timeout_s)
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
        more = [t for t in batch if endings.needs_more(t)]
        if len(parts) == 1 and not more:  # the common case is one statement, and so its own transaction
            return _told(await parts[0][0](conn, parts[0][1], ended_claims, again))
        async with conn.transaction() if alone else nullcontext():
            ours: set[int] = set()
            freed: list[Freed] = []
            children: dict[int, Transition] = {}
            if said := [(t.job, t.progress) for t in more if t.progress is not None]:
                await self._progress(conn, said)
            for n, (write, part) in enumerate(parts):
                written, free = _told(await write(conn, part, ended_claims if n == 0 else (), again))
                ours |= written
                freed += free
                if more and write == self._finish:
                    children |= {t.job.id: t for t in part if t.job.batch_id is not None and t.job.id in written}
            ledgers = endings.ledger_rows([t for t in more if t.job.id in ours] if again else more)
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

    async def _finish(
        self, conn: Any, batch: Sequence[Transition], ended_claims: Sequence[int], again: bool
    ) -> list[asyncpg.Record]:
        done = all(t.state == "done" for t in batch)
        rows: list[asyncpg.Record] = await conn.fetch(
            _QUEUE["finish"],
            [t.job.id for t in batch],
            [t.job.fence for t in batch],
            None if done else [endings.STATES[t.state] for t in batch],
            endings.told([None if t.reason is None else plain(t.reason) for t in batch]),
            None if done else endings.told([endings.error_text(t) for t in batch]),
            endings.told([endings.result(t) for t in batch]),
            endings.told([endings.lane(t.job) for t in batch]),
            None if done else endings.told([endings.code(t) for t in batch]),
            None if all(t.keep for t in batch) else [t.keep for t in batch],
            batch[0].job.worker_id,
            ended_claims,
            endings.deliveries(batch),
            again,
            timeout=self._timeout_s,
        )
        return rows

    async def _put_back(
        self, conn: Any, batch: Sequence[Transition], ended_claims: Sequence[int], _again: bool
    ) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await conn.fetch(
            _QUEUE["put_back"],
            [t.job.id for t in batch],
            [t.job.fence for t in batch],
            [t.delay_s for t in batch],
            [t.charged for t in batch],
            [t.gate for t in batch],
            [endings.error_text(t) for t in batch],
            [endings.lane(t.job) for t in batch],
            [endings.code(t) for t in batch],
            [t.failed for t in batch],
            batch[0].job.worker_id,
            ended_claims,
            [t.order_wait_s for t in batch],
            timeout=self._timeout_s,
        )
        return rows

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

    async def held(self, worker_id: int, known_claims: Sequence[int]) -> tuple[list[Job], bool]:
        """Out of older claims this worker does not know: its running rows, with their name and fence only; and whether
        some of these claims hold none any more."""
        rows = await self._fetch(_QUEUE["held"], worker_id, known_claims)
        held = [row for row in rows if row[0] is not None]
        jobs = [Job(r[0], r[1], r[2], r[3], 2, 0, "{}", 0.0, worker_id=worker_id, claim_id=r[4]) for r in held]
        return jobs, len(held) < len(rows)

    async def drop_claims(self, worker_id: int, known_claims: Sequence[int]) -> int:
        """Forget older claims of this worker that it does not know and that hold nothing any more."""
        return await self._count(_QUEUE["drop_claims"], worker_id, known_claims)


def _claim_order(job: Job) -> tuple[int, float, int]:
    return job.priority, job.run_at, job.id


def _told(written: Sequence[asyncpg.Record]) -> tuple[set[int], list[Freed]]:
    """The ids among what a statement has returned, and what comes after them: which rows may go now."""
    ours = {row[0] for row in written}
    if None not in ours:
        return ours, []
    return ours - {None}, [Freed(*row[1:]) for row in written if row[0] is None]


def _row_order(transition: Transition) -> tuple[int, int]:
    return transition.job.id, transition.job.fence


def _job_order(said: tuple[Job, str]) -> tuple[int, int]:
    return said[0].id, said[0].fence
