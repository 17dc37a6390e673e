"""What operators ask of the job tables, and single rows they insert: one method, one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

import sql
from daemon import counts
from daemon.counts import Survey
from daemon.explain_lanes import LaneHold
from daemon.picking import EVER, Which
from jobs.webhook.endpoints import is_event

_SQL = sql.load("operator.sql")
_LANES = sql.load("lanes.sql")

WINDOW = 10_000
"""Rows one listing statement looks at."""

WINDOWS = 10
"""Windows one listing looks at before it says where it stopped."""

TRIES = 10

TOP_ID = 2**63 - 1

Row = dict[str, Any]
"""A row by column, times as aware datetimes."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, or so many seconds from now by the database's clock."""

    at: datetime | None
    in_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRow:
    """A row to insert; None leaves the column's default."""

    kind: str
    args_json: str = "{}"
    queue: str | None = None
    org_id: str | None = None
    priority: int | None = None
    run_at: Moment | None = None
    expires_at: Moment | None = None
    max_attempts: int | None = None
    unique_key: str | None = None
    on_duplicate: str | None = None
    idempotency_key: str | None = None
    ordering_key: str | None = None
    lane: str | None = None
    correlation_id: str | None = None

    @property
    def is_event(self) -> bool:
        """It goes into webhook_events, and what comes of it into jobs."""
        try:
            args = orjson.loads(self.args_json)
        except ValueError:  # JSON that only Postgres reads: whatever it is, it is a row
            return False
        return is_event(self.kind, args)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows; None is any."""

    kind: str | None = None
    queue: str | None = None
    org_id: str | None = None
    batch_id: int | None = None
    """Of its children those that have not ended: what has ended does not say whose child it was."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants something done, and why; `action` and `subject` as job_audit has them."""

    actor: str
    action: str
    subject: str
    reason: str | None = None


class OperatorStore:
    """Statements on one connection that sees the schema: rows in, and everything that is read."""

    def __init__(self, conn: asyncpg.Connection) -> None:
        self._conn = conn

    # --- one row ----------------------------------------------------------------------------------------------------

    async def enqueue(self, row: NewRow) -> tuple[int, bool]:
        """(id, True) of the new row, or (id, False) of the one that has its key; of an event its own id."""
        run_at, expires_at = row.run_at or Moment(None, None), row.expires_at or Moment(None, None)
        for _ in range(TRIES):
            added = await self._conn.fetchval(
                _SQL["enqueue"],
                row.kind,
                row.args_json,
                row.queue,
                row.org_id,
                row.priority,
                run_at.at,
                run_at.in_s,
                expires_at.at,
                expires_at.in_s,
                row.max_attempts,
                row.unique_key,
                row.idempotency_key,
                row.ordering_key,
                row.lane,
                row.correlation_id,
                row.on_duplicate,
            )
            if added is not None:
                return added, True
            if row.is_event:
                (event,) = await self._rows(_SQL["emitted"], row.org_id, row.idempotency_key)
                return event["keyed"] or event["id"], event["keyed"] in (None, event["id"])
            held = await self._conn.fetchrow(_SQL["holder"], row.kind, row.idempotency_key, row.unique_key)
            if held is not None and (known := held["idempotent"] or held["unfinished"]) is not None:
                return known, False
            # the other job ended between the two statements: the key is free
        raise asyncpg.SerializationError(f"the keys of this row were taken and freed {TRIES} times; try again")

    async def find(self, job_id: int) -> Row | None:
        """Every column of a job, live or finished; of its args the text where no parser reads them."""
        row = await self._conn.fetchrow(_SQL["find"], job_id)
        if row is None:
            return None
        try:
            args = orjson.loads(row["args"])
        except ValueError:
            args = row["args"]
        return {**orjson.loads(row["job"]), "args": args}

    async def attempts(self, job_id: int) -> list[Row]:
        return await self._rows(_SQL["attempts"], job_id)

    async def deliveries(self, job_id: int) -> list[Row]:
        """What the channels wrote down, each row with its `channel`."""
        rows = await self._rows(_SQL["deliveries"], job_id)
        return [{"channel": row["channel"], **orjson.loads(row["row"])} for row in rows]

    async def logs(self, job_id: int, after: tuple[int, int], most: int) -> list[Row]:
        """Lines that a job logged after this (fence, number), oldest first."""
        rows = await self._rows(_SQL["logs"], job_id, *after, most)
        return [{**row, "fields": None if row["fields"] is None else orjson.loads(row["fields"])} for row in rows]

    async def batch(self, batch_id: int | None, child_id: int | None = None) -> Row | None:
        """A batch, by its id or that of a live child, with its `open` children counted and the `first_open` named."""
        found = next(iter(await self._rows(_SQL["batch"], batch_id, child_id)), None)
        return found and {**found, "callback_args": orjson.loads(found["callback_args"])}

    async def standing(self, job_id: int) -> Row | None:
        """What decides when a live row runs; None when it is not live."""
        return next(iter(await self._rows(_SQL["standing"], job_id)), None)

    async def ending(self, job_id: int) -> Row | None:
        return next(iter(await self._rows(_SQL["ending"], job_id)), None)

    async def bucket(self, names: Sequence[str], keys: Sequence[str]) -> Row | None:
        return next(iter(await self._rows(_SQL["bucket"], names, keys)), None)

    # --- many rows --------------------------------------------------------------------------------------------------

    async def jobs(
        self, state: str | None, wanted: Filter, *, below: int | None, most: int
    ) -> tuple[list[Row], int | None]:
        """Up to `most` rows of both places, highest id first; and the id down to which they are complete, when rows
        below it were left out of sight."""
        before = TOP_ID if below is None else below
        if wanted.batch_id is not None:
            return await self._walk("batch", before, state, wanted, most)
        if state == "running":
            where = (wanted.kind, wanted.queue, wanted.org_id)
            return await self._rows(_SQL["list_running"], before, WINDOW, *where, most), None
        found: list[Row] = []
        floors: list[int] = []
        for place, states in (("live", ("ready", "scheduled")), ("finished", ("done", "dead", "cancelled"))):
            if state is None or state in states:
                rows, floor = await self._walk(place, before, state, wanted, most)
                found += rows
                floors += [] if floor is None else [floor]
        floor = max(floors, default=None)
        rows = sorted(found, key=lambda row: row["id"], reverse=True)
        rows = [row for row in rows if floor is None or row["id"] >= floor]
        return rows[:most], floor if len(rows) < most else None

    async def _walk(
        self, place: str, before: int, state: str | None, wanted: Filter, most: int
    ) -> tuple[list[Row], int | None]:
        rows: list[Row] = []
        where = (state, wanted.kind, wanted.queue, wanted.org_id)
        of = () if wanted.batch_id is None else (wanted.batch_id,)
        for _ in range(WINDOWS):
            rows += await self._rows(_SQL[f"list_{place}"], before, WINDOW, *where, most - len(rows), *of)
            if len(rows) >= most:
                return rows, None
            floor = await self._conn.fetchval(_SQL[f"floor_{place}"], before, WINDOW, *of)
            if floor is None:
                return rows, None
            before = floor
        return rows, before

    async def dead(self, which: Which, most: int) -> list[Row]:
        """Up to `most` dead letters, newest first, of the newest WINDOW × WINDOWS."""
        w = which
        where = (w.kind, w.queue, w.org_id, w.code, w.lane, w.priority, w.created_from, w.created_before)
        return await self._rows(
            _SQL["dead"], EVER, TOP_ID, w.ended_before or EVER, *where[:4], WINDOW * WINDOWS, most, *where[4:]
        )

    async def states(self, ids: Sequence[int]) -> dict[int, str]:
        """What each id is now; a live row hides a finished one."""
        rows = await self._conn.fetch(_SQL["states"], ids)
        return {row["id"]: row["state"] for row in reversed(rows)}

    async def _rows(self, statement: str, *parameters: Any) -> list[Row]:
        return [dict(row) for row in await self._conn.fetch(statement, *parameters)]

    # --- lanes ------------------------------------------------------------------------------------------------------

    async def lanes(self, most: int) -> list[Row]:
        """Holds of lanes: gate, cause, since, until, actor, reason, rung, and the daemon that probes."""
        return await self._rows(_LANES["list"], most)

    async def lane_holds(self, job_id: int) -> list[LaneHold]:
        """What holds the lane of a live row."""
        return [LaneHold(**row) for row in await self._rows(_LANES["of_job"], job_id)]

    # --- numbers ----------------------------------------------------------------------------------------------------

    async def workers(self) -> list[Row]:
        return await self._rows(_SQL["workers"])

    async def busy(self, queue: str) -> int:
        """Running rows of a queue, counted up to 10,000."""
        count: int = await self._conn.fetchval(_SQL["busy"], queue)
        return count

    async def survey(self) -> Survey:
        """Every queue in numbers."""
        return await counts.take(self._conn)
