"""What the tests of the SQL do with rows: claim them, and end them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from daemon.settle import Transition, settle
from daemon.store import Store
from jobs.model import Fixed, Job, Outcome

Pool = asyncpg.Pool
Worker = Callable[..., Awaitable[int]]
Insert = Callable[..., Awaitable[list[int]]]

KINDS = ("noop",)


async def claim(
    store: Store,
    worker_id: int,
    most: int = 1000,
    *,
    queue: str = "default",
    gate: str = "",
    kinds: Sequence[str] = KINDS,
) -> list[Job]:
    """Claim from one place."""
    return await store.claim({(queue, gate): most}, worker_id, kinds)


def ended(job: Job, outcome: Outcome, *, max_attempts: int = 3) -> Transition:
    """What is written for `outcome`; a retry is due at once."""
    return settle(job, outcome, Fixed(0.0, jitter=0.0), max_attempts, 0.5)


async def die(pool: Pool, worker_id: int) -> None:
    """Let the worker's lease run out."""
    await pool.execute("update job_workers set lease_until = now() - interval '1 second' where id = $1", worker_id)


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """What `condition` gives once it is true; where Postgres sends no signal, ask again."""
    for _ in range(2000):
        if found := await condition():
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(f"never: {what}")


async def waits_for_lock(pool: Pool, statement_part: str) -> None:
    """Until a session stands in a queue for a lock with such a statement."""
    query = "select true from pg_stat_activity where wait_event_type = 'Lock' and query like $1"
    await until(lambda: pool.fetchval(query, f"%{statement_part}%"), f"{statement_part} waits")
