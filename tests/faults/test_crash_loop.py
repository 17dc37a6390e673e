"""A row that kills its daemon each time it runs is buried; its neighbours are not buried with it."""

from __future__ import annotations

import asyncpg
import pytest

from tests.life.fleet import Fleet, each_ended_once, ended, insert, until


@pytest.mark.req("OR-09")
async def test_rows_that_kill_their_daemon_are_buried_alone(fleet: Fleet, pool: asyncpg.Pool) -> None:
    good = await insert(pool, "note", 100)
    bad = [*await insert(pool, "exit"), *await insert(pool, "shoot")]
    good += await insert(pool, "note", 100)
    fleet.faults_expected = True  # they are killed
    daemon = fleet.spawn("a")

    async def all_ended() -> bool:
        nonlocal daemon
        if daemon.process.exitcode is not None:  # what systemd does
            await daemon.perish(pool)
            daemon = fleet.spawn("a")
        return not await pool.fetchval("select exists (select from jobs)")

    await until(all_ended, lambda: f"all rows end; {daemon.tail()}")
    await each_ended_once(pool, [*good, *bad])
    buried = await ended(pool, bad)
    assert {(row["state"], row["reason"], row["crashes"]) for row in buried} == {("dead", "crashed", 3)}
    starts = [note.id for note in fleet.notes("start")]
    assert all(1 <= starts.count(job_id) <= 3 for job_id in bad)
    assert [row["id"] for row in await ended(pool, good) if row["state"] != "done"] == []
