"""What operators order while real daemons run: attempts stop, pauses hold, and nothing that is unwanted runs again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

import sql
from daemon.holds import FOREVER, Holds
from daemon.operation import Operation
from daemon.operator_store import Moment, Order
from daemon.undo import Undo, pages
from tests.life.fleet import Fleet, empty, ended, insert, until_sql

CANCEL = Order("ann", "jobs.cancel", "jobs", "no need")
SLOW = {"seconds": 600}


@pytest.fixture
async def conn(database: str) -> AsyncIterator[asyncpg.Connection]:
    """An operator's."""
    conn = await asyncpg.connect(database)
    yield conn
    await conn.close()


async def cancel(conn: asyncpg.Connection, *ids: int) -> None:
    await Operation(conn, CANCEL).cancel(ids)


@pytest.mark.req("JP-04")
async def test_a_running_job_is_stopped_at_once_and_its_neighbours_go_on(
    fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    member = await fleet.start()
    first, second, third = await insert(pool, "note", 3, SLOW)
    await fleet.noted("start", 3)
    await cancel(conn, second)
    (row,) = await ended(pool, [second])
    assert (row["state"], row["reason"], row["attempt"]) == ("cancelled", "no need", 1)
    assert [note.id for note in await fleet.noted("cancelled")] == [second]
    assert await pool.fetchval("select count(*) from jobs where state = 'running'") == 2
    assert [row["job_id"] for row in await member.said("job_cancelled")] == [second]
    await cancel(conn, first, third)
    await empty(pool)


async def test_a_lost_call_costs_no_more_than_the_next_question(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start()
    (job_id,) = await insert(pool, "note", 1, SLOW)
    await fleet.noted("start")
    await pool.execute("""update jobs set cancel_asked = '{"actor": "ann", "reason": "by hand"}'""")  # nobody is called
    (row,) = await ended(pool, [job_id])
    assert (row["state"], row["reason"]) == ("cancelled", "by hand")


async def test_a_job_that_ends_by_itself_ends_as_it_ends_and_a_retry_is_none(
    fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    """The one goes on until it is done, the other would be tried again."""
    await fleet.start()
    (done,) = await insert(pool, "stubborn", 1, {"seconds": 1})
    (slow,) = await insert(pool, "note", 1, {"seconds": 600}, max_attempts=9)
    await fleet.noted("start", 2)
    await cancel(conn, done, slow)
    rows = await ended(pool, [done, slow])
    assert [row["state"] for row in rows] == ["done", "cancelled"]
    assert await pool.fetchval("select count(*) from job_attempts") == 0


async def test_a_job_whose_daemon_is_killed_meanwhile_is_cancelled_and_not_run_again(
    fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    first = await fleet.start("a")
    (job_id,) = await insert(pool, "stubborn", 1, {"seconds": 600})
    await fleet.noted("start")
    await cancel(conn, job_id)
    await fleet.noted("swallowed")  # it has heard, and goes on
    await first.perish(pool)
    await fleet.start("b")
    (row,) = await ended(pool, [job_id])
    assert (row["state"], row["reason"], row["crashes"]) == ("cancelled", "no need", 1)
    assert len(fleet.notes("start")) == 1
    await ended(pool, await insert(pool, "note"))


async def test_a_stubborn_job_keeps_its_slot_but_its_row_is_cancelled(
    fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    member = await fleet.start()
    (job_id,) = await insert(pool, "stubborn", 1, {"seconds": 600})
    await fleet.noted("start")
    await cancel(conn, job_id)
    (row,) = await ended(pool, [job_id])
    assert row["state"] == "cancelled"
    assert len(await member.said("slot_leaked")) == 1


@pytest.mark.req("JP-04")
@pytest.mark.req("JP-06")
@pytest.mark.parametrize("gate", ["queue:held", "kind:note_other", "org:7", "lane:l"])
async def test_what_is_paused_stands_still_until_its_pause_is_over(
    gate: str, fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    """Nobody resumes it: its time ends."""
    await Holds(conn).pause(gate, FOREVER, Order("ann", "pause", gate))
    held = await insert(pool, "note_other", 5, queue="held", org_id="7", lane="l")
    member = await fleet.start()
    await ended(pool, await insert(pool, "note", 20))
    await ended(pool, await insert(pool, "note", 20))
    assert await pool.fetchval("select bool_and(state = 'ready' and attempt = 0) from jobs")
    assert [note for note in fleet.notes("start") if note.id in held] == []
    await member.said("queue_paused" if gate.startswith("queue") else "paused")
    await Holds(conn).pause(gate, Moment(None, 0.0), Order("ann", "pause", gate))
    await ended(pool, held)
    await member.said("queue_resumed" if gate.startswith("queue") else "resumed")


@pytest.mark.req("JP-04")
@pytest.mark.parametrize("gate", ["queue:held", "kind:note_other", "org:7", "lane:l"])
async def test_what_is_resumed_goes_on_at_once(
    gate: str, fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    """And not at the next poll, which here is a minute away."""
    order = Order("ann", "pause", gate)
    await Holds(conn).pause(gate, FOREVER, order)
    held = await insert(pool, "note_other", 5, queue="held", org_id="7", lane="l")
    await fleet.start(DAEMON__POLL_INTERVAL="60s")
    await ended(pool, await insert(pool, "note", 5))
    if not gate.startswith("queue:"):
        await until_sql(pool, "select bool_and(gate = $1) from jobs", gate)
    assert await Holds(conn).resume(gate, order)
    await ended(pool, held, within_s=50)


@pytest.mark.req("JP-09")
async def test_what_is_taken_back_goes_on_at_once_however_old_it_is(
    fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    """Younger rows have run since, and the next poll is a minute away."""
    order = Order("ann", "pause", "kind note_other")
    await Holds(conn).pause("kind:note_other", FOREVER, order)
    await fleet.start(DAEMON__POLL_INTERVAL="60s")
    old = await pool.fetchval("select now() - interval '1 hour'")
    ids = await insert(pool, "note_other", 3, run_at=old)
    await until_sql(pool, "select bool_and(gate = 'kind:note_other') from jobs")
    operation = Operation(conn, CANCEL)
    assert (await operation.cancel(ids)).changed == ids
    await Holds(conn).resume("kind:note_other", order)
    await ended(pool, await insert(pool, "note", 20))
    assert operation.id is not None
    undo = Undo(conn, operation.id, Order("ann", "undo", "operation"))
    async for rows in pages(conn, operation.id):
        await undo.page(rows)
    assert [row["state"] for row in await ended(pool, ids, within_s=50)] == ["done"] * 3


@pytest.mark.req("JP-09")
async def test_dead_letters_come_back_no_faster_than_the_rate(
    fleet: Fleet, pool: asyncpg.Pool, conn: asyncpg.Connection
) -> None:
    ids = await insert(pool, "say", 20, {"what": "dead"})
    await fleet.start()
    await ended(pool, ids)
    began = await pool.fetchval("select clock_timestamp()")
    retry = Operation(conn, Order("ann", "dead.retry", "dead letters"))
    assert (await retry.retry(ids, every_s=0.1)).changed == ids
    await until_sql(pool, "select count(*) = 20 from job_history where finished_at > $1", began)
    after_s = await pool.fetch(
        "select extract(epoch from started_at - $1)::float8 from job_history where finished_at > $1 order by id", began
    )
    early = [(n, row[0]) for n, row in enumerate(after_s) if row[0] < n * 0.1]
    assert early == []


async def test_a_call_makes_daemons_read_their_schedules_again(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """At once, and not only after the half minute in which they do so anyway."""
    await fleet.start("a", '[schedules.yearly]\nkind = "note"\ncron = "0 0 1 1 *"\nmissed = "one"\n')
    await until_sql(pool, "select count(*) = 1 from job_schedules")
    await pool.execute("update job_schedules set last_tick_at = now() - interval '2 years'")
    await pool.execute(sql.load("holds.sql")["call"])
    await until_sql(pool, "select count(*) > 0 from job_history", within_s=50)
