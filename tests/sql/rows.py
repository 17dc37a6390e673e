"""What the tests of the SQL do with rows: claim them, and end them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from math import inf
from typing import Any

import asyncpg

from daemon.settle import Transition, settle
from daemon.store import Ask, Store
from daemon.upkeep_store import UpkeepStore
from jobs.model import Fixed, Job, Outcome

Pool = asyncpg.Pool
Worker = Callable[..., Awaitable[int]]
Insert = Callable[..., Awaitable[list[int]]]

KINDS = ("noop",)
FROM_THE_FIRST = ("", "", 0)
"""Where a look begins."""


async def claim(
    store: Store,
    worker_id: int,
    most: int = 1000,
    *,
    queue: str = "default",
    gate: str = "",
    kinds: Sequence[str] = KINDS,
) -> list[Job]:
    """Claim from one place, whoever the rows belong to; those that were moved to a gate are left out."""
    return [job for job in await store.claim([Ask(queue, gate, most)], worker_id, kinds) if job.worker_id is not None]


async def moved(
    store: Store, worker_id: int, most: int = 1000, *, queue: str = "default", gate: str = ""
) -> dict[str, list[int]]:
    """What a claim moves to a gate instead of giving it: the ids, by gate, in order."""
    found: dict[str, list[int]] = {}
    for job in await store.claim([Ask(queue, gate, most)], worker_id, KINDS):
        if job.worker_id is None:
            found.setdefault(job.gate, []).append(job.id)
    return found


def claim_args(
    worker_id: int, most: int = 1000, *, queue: str = "default", gate: str = "", now: datetime | None = None
) -> tuple[Any, ...]:
    """The arguments of the bare statement, for what the store does not do."""
    anything = [-inf]
    start = [anything] * 4
    return ([queue], [gate], [None], [1], [most], *start, worker_id, KINDS, [], now, [0], [0])


async def rescued(keeping: UpkeepStore, worker_id: int, claims: int = 1000, *, crash_limit: int = 3) -> tuple[int, int]:
    """All rows of a lost worker, as the keeper has it: (returned, buried), and its claims are gone."""
    back = dead = 0
    while True:
        some = await keeping.rescue(worker_id, crash_limit, claims)
        back, dead = back + some[0], dead + len(some[1])
        if some[2] == 0 or await keeping.drop_lost_claims(worker_id, claims) + some[0] + len(some[1]) == 0:
            return back, dead


def claims_of(jobs: Iterable[Job]) -> list[int]:
    """The claims that end with the results of `jobs`, if these are all of their rows."""
    return sorted({job.claim_id for job in jobs if job.claim_id is not None})


def ended(job: Job, outcome: Outcome, *, max_attempts: int = 3) -> Transition:
    """What is written for `outcome`; a retry is due at once."""
    return settle(job, outcome, Fixed(0.0, jitter=0.0), max_attempts, 0.5)


async def die(pool: Pool, worker_id: int) -> None:
    """Let the worker's lease run out."""
    await pool.execute("update job_workers set lease_until = now() - interval '1 second' where id = $1", worker_id)


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """What `condition` gives once it is true; where Postgres sends no signal, ask again."""
    for _ in range(20_000):
        if found := await condition():
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(f"never: {what}")


async def waits_for_lock(pool: Pool, statement_part: str) -> None:
    """Until a session stands in a queue for a lock with such a statement."""
    query = "select true from pg_stat_activity where wait_event_type = 'Lock' and query like $1"
    await until(lambda: pool.fetchval(query, f"%{statement_part}%"), f"{statement_part} waits")
