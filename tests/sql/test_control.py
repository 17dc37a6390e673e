"""Rows that somebody wants stopped, and pauses with an end: what the daemons do about them in the tables."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from daemon.holds import FOREVER, Holds
from daemon.operation import Operation
from daemon.operator_store import Moment, Order
from daemon.schedule_store import ScheduleStore
from daemon.settle import hand_back
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore
from jobs.model import Done, Retry
from tests.sql.rows import FROM_THE_FIRST, Insert, Pool, Worker, claim, die, ended, rescued

ORDER = Order("ann", "jobs.cancel", "jobs", "no need")


@pytest.fixture
async def desk(database: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(database)
    yield conn
    await conn.close()


async def asked_row(store: Store, worker: Worker, insert: Insert, desk: asyncpg.Connection) -> tuple[int, int]:
    """A running row that is asked to stop, and its worker."""
    (job_id,) = await insert()
    worker_id = await worker()
    await claim(store, worker_id)
    assert (await Operation(desk, ORDER).cancel([job_id])).asked == [job_id]
    return job_id, worker_id


async def test_a_daemon_learns_which_of_its_rows_are_to_stop(
    store: Store, workers: WorkerStore, worker: Worker, insert: Insert, desk: asyncpg.Connection
) -> None:
    job_id, worker_id = await asked_row(store, worker, insert, desk)
    (wish,) = await workers.asked(worker_id, 10)
    assert wish == (job_id, 1, "ann", "no need")
    assert await workers.asked(await worker(), 10) == []
    assert (await Operation(desk, ORDER).cancel([job_id])).asked == []  # the second time is as good as none


async def test_a_row_that_comes_back_is_claimed_by_nobody_and_ends_as_cancelled(
    store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert, desk: asyncpg.Connection, pool: Pool
) -> None:
    """The attempt failed at the very moment of the order, and its daemon has heard of nothing."""
    (job_id,) = await insert()
    worker_id = await worker()
    (job,) = await claim(store, worker_id)
    await Operation(desk, ORDER).cancel([job_id])
    assert await store.write([ended(job, Retry("no"), max_attempts=9)]) == {job_id}
    assert await pool.fetchval("select gate from jobs") == "cancel"
    assert await claim(store, worker_id) == []
    assert await keeping.end_asked(10) == ["default"]
    row = await pool.fetchrow("select state, reason, attempt, last_error from job_history")
    assert row is not None
    assert tuple(row)[:3] == ("cancelled", "no need", 1)
    assert json.loads(row["last_error"])["detail"]["actor"] == "ann"


async def test_a_rescued_row_is_cancelled_and_does_not_run_again(
    store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert, desk: asyncpg.Connection, pool: Pool
) -> None:
    job_id, lost = await asked_row(store, worker, insert, desk)
    await die(pool, lost)
    assert await rescued(keeping, lost) == (1, 0)
    assert await claim(store, await worker()) == []
    assert await keeping.end_asked(10) == ["default"]
    assert await keeping.end_asked(10) == []
    assert tuple(await pool.fetchrow("select id, state from job_history") or ()) == (job_id, "cancelled")


async def test_rows_that_a_leaving_daemon_gives_back_are_cancelled_too(
    store: Store,
    keeping: UpkeepStore,
    workers: WorkerStore,
    worker: Worker,
    insert: Insert,
    desk: asyncpg.Connection,
    pool: Pool,
) -> None:
    (first, second) = await insert(2)
    worker_id = await worker()
    jobs = await claim(store, worker_id)
    await Operation(desk, ORDER).cancel([first, second])
    await store.write([hand_back(job) for job in jobs if job.id == first])
    await workers.leave(worker_id)
    assert await pool.fetch("select from jobs where gate <> 'cancel'") == []
    assert await keeping.end_asked(10) == ["default"] * 2


async def test_an_attempt_that_ends_by_itself_first_ends_as_it_ends(
    store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert, desk: asyncpg.Connection, pool: Pool
) -> None:
    (job_id,) = await insert()
    (job,) = await claim(store, await worker())
    await Operation(desk, ORDER).cancel([job_id])
    await store.write([ended(job, Done("ok"))])
    assert await pool.fetchval("select state from job_history") == "done"
    assert await keeping.end_asked(10) == []


async def test_no_insert_can_ask_for_a_cancelling(pool: Pool) -> None:
    for columns in ("cancel_asked", "gate, cancel_asked", "state, cancel_asked"):
        values = {"gate": "'cancel'", "state": "'running'", "cancel_asked": "'{}'"}
        given = ", ".join(values[column] for column in columns.split(", "))
        with pytest.raises(asyncpg.CheckViolationError):
            await pool.execute(f"insert into jobs (kind, {columns}) values ('noop', {given})")


# --- pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("JP-04")
@pytest.mark.parametrize("gate", ["queue:default", "kind:noop", "org:7", "lane:l"])
async def test_what_is_paused_is_not_claimed(
    gate: str, store: Store, worker: Worker, insert: Insert, desk: asyncpg.Connection
) -> None:
    (job_id,) = await insert(org_id="7", lane="l")
    worker_id = await worker()
    assert await Holds(desk).pause(gate, FOREVER, ORDER)
    assert await claim(store, worker_id) == []
    assert await Holds(desk).resume(gate, ORDER)
    places = {(place.queue, place.gate) for place in await store.look(FROM_THE_FIRST, 10)}
    found = [await claim(store, worker_id, queue=queue, gate=at) for queue, at in places]
    assert [job.id for jobs in found for job in jobs] == [job_id]


async def test_a_pause_ends_by_itself_and_one_without_an_end_does_not(
    keeping: UpkeepStore, desk: asyncpg.Connection, pool: Pool
) -> None:
    await Holds(desk).pause("queue:a", Moment(None, 3600.0), ORDER)
    await Holds(desk).pause("queue:b", FOREVER, ORDER)
    assert await keeping.end_pauses(10) == []
    await pool.execute("update job_holds set until = now() where until is not null")
    assert await keeping.end_pauses(10) == ["queue:a"]
    assert (await keeping.found(10, 10)).paused == {"queue:b": ("ann", "no need")}


async def test_a_breakers_hold_is_no_pause(keeping: UpkeepStore, desk: asyncpg.Connection, pool: Pool) -> None:
    await pool.execute("insert into job_holds (gate, cause, until) values ('lane:l', 'breaker', now())")
    assert await keeping.end_pauses(10) == []
    assert (await keeping.found(10, 10)).paused == {}
    assert not await Holds(desk).resume("lane:l", ORDER)
    assert await pool.fetchval("select count(*) from job_holds") == 1


async def test_a_pause_that_says_nothing_new_leaves_no_trace(desk: asyncpg.Connection, pool: Pool) -> None:
    assert await Holds(desk).pause("queue:a", FOREVER, ORDER)
    since = await pool.fetchval("select since from job_holds")
    assert not await Holds(desk).pause("queue:a", FOREVER, ORDER)
    assert await Holds(desk).pause("queue:a", FOREVER, Order("bob", "queues.pause", "queue a"))
    assert await pool.fetchval("select since from job_holds") == since
    assert await pool.fetchval("select count(*) from job_audit") == 2


async def test_a_schedules_pause_ends_by_itself_and_its_ticks_are_not_caught_up(
    keeping: UpkeepStore, schedules: ScheduleStore, desk: asyncpg.Connection, pool: Pool
) -> None:
    await schedules.adopt("s", "noop", "0 * * * *", "UTC")
    await pool.execute("update job_schedules set last_tick_at = now() - interval '1 day'")
    assert await Holds(desk).pause_schedule("s", Moment(None, 3600.0), ORDER)
    assert not await Holds(desk).pause_schedule("other", FOREVER, ORDER)
    await pool.execute("update job_schedules set paused_until = now() - interval '1 min'")
    assert await keeping.end_pauses(10) == ["schedule:s"]
    assert await pool.fetchval("select paused_at is null from job_schedules")
    assert await pool.fetchval("select now() - last_tick_at between '1 min' and '2 min' from job_schedules")


async def test_the_old_name_shows_paused_queues(desk: asyncpg.Connection, pool: Pool) -> None:
    await Holds(desk).pause("queue:mail", FOREVER, ORDER)
    await Holds(desk).pause("kind:mail", FOREVER, ORDER)
    assert [tuple(row) for row in await pool.fetch("select name, paused_by, pause_reason from job_queues")] == [
        ("mail", "ann", "no need")
    ]
