"""Replays taken step by step, as a daemon takes them, and deliveries that came to what a test wants."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import jobs.webhook.replay
from jobs.context import Context, Tools
from jobs.model import Done, Job, Outcome
from jobs.registry import KINDS
from tests.sql.rows import Pool

KIND = KINDS["webhook_replay"]
handler = jobs.webhook.replay.webhook_replay
LONG_AGO = "2001-01-01T00:00:00Z"
STEPS_MAX = 100


class _Quiet:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_fields: None


async def _no_progress(percent: float, **fields: Any) -> None:
    raise AssertionError("a replay writes its progress itself")


@dataclass
class Replay:
    """A row of kind webhook_replay that a worker has."""

    pool: Pool
    id: int
    fence: int
    worker_id: int
    org_id: str | None
    args_json: str

    async def step(self, *, dry_run: bool = False) -> Outcome:
        """One attempt."""
        row: dict[str, Any] = {"queue": "default", "priority": 2, "attempt": 1, "run_at": 0.0}
        job = Job(
            id=self.id,
            fence=self.fence,
            kind="webhook_replay",
            worker_id=self.worker_id,
            org_id=self.org_id,
            args_json=self.args_json,
            **row,
        )
        tools = cast(Tools, SimpleNamespace(db=self.pool))
        ctx = Context(job, tools, cast(Any, _Quiet()), _no_progress, dry_run=dry_run)
        return await handler(KIND.decode(self.args_json), ctx)

    async def finish(self) -> Any:
        """Step by step to its end; what it said."""
        for _ in range(STEPS_MAX):
            outcome = await self.step()
            if isinstance(outcome, Done):
                return outcome.result
        raise AssertionError(f"no end in {STEPS_MAX} steps: {outcome!r}")

    async def rescued(self) -> Replay:
        """As another worker gets it after the first one was killed."""
        fence = await self.pool.fetchval("update jobs set fence = fence + 1, worker_id = worker_id + 1 where id = $1 "
                                         "returning fence", self.id)  # fmt: skip
        return Replay(self.pool, self.id, fence, self.worker_id + 1, self.org_id, self.args_json)

    async def progress(self) -> Any:
        text = await self.pool.fetchval("select progress::text from jobs where id = $1", self.id)
        return None if text is None else json.loads(text)

    async def sent(self) -> list[int]:
        """The events of its deliveries, in the order in which they are due."""
        rows = await self.pool.fetch(
            "select (args ->> 'event_id')::bigint from jobs where args ->> 'replay' = $1 order by run_at, id",
            str(self.id),
        )
        return [row[0] for row in rows]

    async def due(self) -> list[datetime]:
        rows = await self.pool.fetch("select run_at from jobs where args ->> 'replay' = $1 order by 1", str(self.id))
        return [row[0] for row in rows]


async def begin(pool: Pool, endpoint: int | str, *, org_id: str | None = None, **args: Any) -> Replay:
    given = {"endpoint": endpoint, **({"since": LONG_AGO} if args["what"] != "events" else {}), **args}
    row = await pool.fetchrow(
        "insert into jobs (kind, args, org_id) values ('webhook_replay', $1, $2) returning id, args::text as args",
        json.dumps(given),
        org_id,
    )
    assert row is not None
    fence = await pool.fetchval(
        "update jobs set state = 'running', worker_id = 7, fence = fence + 1 where id = $1 returning fence", row["id"]
    )
    return Replay(pool, row["id"], fence, 7, org_id, row["args"])


async def delivered(pool: Pool, endpoint: int, event: int, *outcomes: str, ended: bool = True) -> None:
    """These attempts were made, the last one just now; if it has `ended`, its job is no longer live."""
    job_id = await pool.fetchval(
        "select id from jobs where kind = 'webhook' and args @> jsonb_build_object('endpoint', $1::bigint, 'event_id', "
        "$2::bigint)",
        endpoint,
        event,
    )
    for n, outcome in enumerate(outcomes, 1):
        await pool.execute(
            "insert into webhook_deliveries (job_id, attempt, org_id, endpoint_id, event_id, event, url, outcome, "
            "code, ended_at) "
            "select $1, $2, org_id, $3, $4, event, '', $5, 'x', clock_timestamp() from webhook_events where id = $4",
            job_id or 1_000_000 + event,
            n,
            endpoint,
            event,
            outcome,
        )
    if ended:
        await pool.execute("delete from jobs where id = $1", job_id)
