"""A loop of the daemon that ends takes the daemon down in good order: alive but idle is the worst of states."""

from __future__ import annotations

import signal

import asyncpg
import pytest

from tests.life.fleet import Fleet, each_ended_once, empty, insert

LOOPS = {
    "claimer": "daemon.claimer:Claimer:step",
    "finisher": "daemon.finisher:Finisher:_write",
    "keeper": "daemon.keeper:Keeper:_attempt",
    "scheduler": "daemon.scheduler:Scheduler:_step",
    "listener": "daemon.listener:Listener:_beat",
}


@pytest.mark.parametrize("loop", LOOPS)
async def test_when_a_loop_dies_the_daemon_drains_and_says_so(fleet: Fleet, pool: asyncpg.Pool, loop: str) -> None:
    fleet.faults_expected = True
    daemon = await fleet.start(
        config='[schedules.tidy]\nkind = "note"\ncron = "0 0 1 1 *"\n',
        DAEMON__HANDLERS="tests.life.kinds,tests.life.saboteur",
        TEST_SABOTAGE=LOOPS[loop],
        DAEMON__DRAIN_TIMEOUT="5s",
    )
    ids = await insert(pool, "note", 20, {"seconds": 0.5})
    await fleet.noted("start", 20)
    fleet.sabotage(True)
    if loop == "scheduler":
        daemon.signal(signal.SIGHUP)  # a reload wakes it
    if loop == "listener":
        await pool.execute("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'")
    assert await daemon.ended() == 70
    (died,) = daemon.events("task_died")
    assert died["task"] == loop
    assert "sabotaged" in died["error"]["message"]
    assert daemon.events("daemon_stopped")
    assert len(fleet.notes("end")) == 20, "running jobs may end"
    fleet.sabotage(False)
    if loop != "finisher":
        assert await pool.fetchval("select count(*) from job_history where state = 'done'") == 20
        assert await pool.fetchval("select count(*) from job_workers") == 0
    await fleet.start("b")
    await empty(pool)
    await each_ended_once(pool, ids)
