"""What a real daemon says of its work in numbers, and what it deletes."""

from __future__ import annotations

import asyncpg
import pytest

from tests.life.fleet import Fleet, until_sql

TALLIED = "select coalesce(sum(n), 0) = $1 from job_tallies where queue = 'default' and outcome = 'done'"


@pytest.mark.req("JP-07")
async def test_what_ended_is_counted_to_the_last_row_when_a_daemon_stops(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start("a")
    await pool.execute("insert into jobs (kind) select 'heartbeat' from generate_series(1, 300)")
    await until_sql(pool, "select count(*) = 300 from job_history")
    assert await daemon.stop() == 0
    assert await pool.fetchval(TALLIED, 300)


@pytest.mark.req("JP-07")
async def test_a_kill_loses_at_most_what_was_counted_since_the_last_flush(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start("a")
    await pool.execute("insert into jobs (kind) select 'heartbeat' from generate_series(1, 300)")
    await until_sql(pool, TALLIED, 300)
    await pool.execute("insert into jobs (kind) select 'heartbeat' from generate_series(1, 50)")
    await until_sql(pool, "select count(*) = 350 from job_history")
    await daemon.kill()
    counted = await pool.fetchval("select sum(n) from job_tallies")
    assert 300 <= counted <= 350


@pytest.mark.req("JP-01")
async def test_a_daemon_deletes_what_its_queue_keeps_no_longer(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await pool.execute(
        "do $$ declare day date := (now() at time zone 'UTC')::date - 1; begin "
        "execute format('create table %I partition of job_history for values from (%L) to (%L)', "
        "'job_history_' || to_char(day, 'YYYYMMDD'), day || ' 00:00+00', day + 1 || ' 00:00+00'); end $$"
    )
    await pool.execute(
        "insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes, "
        "finished_at) select n, 'heartbeat', '{}', 'q' || n % 2, 2, now(), now(), 'done', 1, 0, date_trunc('day', "
        "now() at time zone 'UTC') at time zone 'UTC' - interval '1 h' from generate_series(1, 2000) as n"
    )
    daemon = await fleet.start("a", '[queues.q0]\nkeep_done = "1s"\n')
    (line,) = await daemon.said("rows_swept")
    assert line["table"] == "job_history"
    await until_sql(pool, "select count(*) = 1000 and min(queue) = 'q1' and max(queue) = 'q1' from job_history")


async def test_what_runs_is_said_with_the_heartbeat(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start("a", DAEMON__LEASE="5s")
    await pool.execute(
        """insert into jobs (kind, queue, args) select 'note', 'q', '{"seconds": 600}' from generate_series(1, 3)"""
    )
    await until_sql(pool, "select running = '{\"q\": 3}' from job_workers")
