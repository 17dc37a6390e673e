"""Daemons that are killed at any moment: every row ends once, and soon."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from time import time

import asyncpg

from tests.life.fleet import LONG, SLACK, Fleet, Member, each_ended_once, empty, ended, insert, until_sql

LEASE_S = 2.0 if LONG else 5.0
ROWS = 20_000 if LONG else 3_000
PAUSE_S = 3.0 if LONG else 1.0


async def test_two_daemons_of_which_one_is_killed_again_and_again_end_every_row_once(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    env = {"QUEUES__DEFAULT__CONCURRENCY": "50", "DAEMON__CRASH_LIMIT": "100", "DAEMON__LEASE": f"{LEASE_S:g}s"}
    ids = await insert(pool, "note", ROWS, {"seconds": 0.2 if LONG else 0.1})
    pair: list[Member] = [await fleet.start(name, **env) for name in "ab"]
    kills: dict[int, float] = {}  # worker → when
    dice = random.Random(7)
    for number in range(4 if not LONG else 12):
        await asyncio.sleep(PAUSE_S * dice.uniform(0.5, 1.0))
        victim = number % 2
        worker = pair[victim].worker_id
        await pair[victim].kill()
        kills[worker] = time()
        pair[victim] = await fleet.start("ab"[victim], **env)
    await empty(pool, within_s=600)
    await each_ended_once(pool, ids)
    rows = await ended(pool, ids)
    assert {row["state"] for row in rows} == {"done"}

    starts: defaultdict[int, list[int]] = defaultdict(list)
    for note in fleet.notes("start"):
        starts[note.id].append(note.fence)
    late = [row["id"] for row in rows if fence_of(row["result"]) != max(starts[row["id"]])]
    assert not late, "ended by an attempt that was not its newest"

    rescues = await pool.fetch("select worker_id, max(ended_at) as at, count(*) from job_attempts group by worker_id")
    assert sum(row["count"] for row in rescues) > 0
    for row in rescues:
        killed_at = datetime.fromtimestamp(kills[row["worker_id"]], UTC)
        assert row["at"] - killed_at <= timedelta(seconds=LEASE_S + 2.0 * SLACK)
    await until_sql(pool, "select count(*) = 2 from job_workers")  # the dead are forgotten


def fence_of(result: str) -> int:
    """{"fence": 3} as jsonb prints it."""
    return int(result.removesuffix("}").rpartition(":")[2])
