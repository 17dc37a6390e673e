"""Nobody waits behind somebody else's backlog: organisations, classes, queues and ordering keys, with a real daemon."""

from __future__ import annotations

from collections import Counter

import asyncpg
import pytest

from tests.life.fleet import LONG, Fleet, Note, ended, insert, until_sql

BACKLOG = 20_000 if LONG else 4_000
MOMENT = {} if LONG else {"seconds": 0.02}
"""What one row of it takes: a short backlog lasts as long as a long one."""

ENOUGH = 1_000
"""So many rows of the others wait still when somebody's single row is done: nobody has waited for them all."""


async def starts_by_org(fleet: Fleet, pool: asyncpg.Pool, notes: list[Note]) -> list[str]:
    """Whose the started rows were, in their order."""
    orgs = {row[0]: row[1] for row in await pool.fetch("select id, org_id from job_status")}
    return [str(orgs[note.id]) for note in notes]


async def left(pool: asyncpg.Pool, org: str) -> int:
    """How many rows of it wait."""
    count: int = await pool.fetchval("select count(*) from jobs where org_id = $1 and state = 'ready'", org)
    return count


async def test_single_rows_of_others_start_while_one_has_thousands_waiting(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await insert(
        pool, "note", BACKLOG, MOMENT, org_id="big", run_at=await pool.fetchval("select now() - interval '1 hour'")
    )
    await fleet.start(QUEUES__DEFAULT__CONCURRENCY="10")
    await fleet.noted("start", 100)
    for n in range(8):
        await ended(pool, await insert(pool, "note", org_id=f"small {n % 3}"))
    await ended(pool, await insert(pool, "note"))  # one that belongs to nobody
    assert await left(pool, "big") > ENOUGH


async def test_a_row_in_the_lowest_class_is_done_while_better_ones_of_others_wait(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    await insert(pool, "note", BACKLOG, MOMENT, org_id="big", priority=1)
    await fleet.start(QUEUES__DEFAULT__CONCURRENCY="10")
    await fleet.noted("start", 100)
    for org in ("big", "small"):
        await ended(pool, await insert(pool, "note", org_id=org, priority=4))
    assert await left(pool, "big") > ENOUGH


async def test_of_two_backlogs_the_one_of_weight_three_is_given_three_rows_for_one(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    await pool.execute("insert into job_orgs (org_id, weight) values ('three', 3)")
    first, last = (2_000, 8_000) if LONG else (800, 2_000)  # once it is known who waits, and while both do
    for org in ("one", "three"):
        await insert(pool, "note", 10_000 if LONG else 2_500, MOMENT, org_id=org)
    await fleet.start(QUEUES__DEFAULT__CONCURRENCY="20")
    notes = await fleet.noted("start", last)
    whose = await starts_by_org(fleet, pool, notes)
    later = Counter(whose[first:last])
    assert later["three"] == pytest.approx(3 * later["one"], rel=0.15)


async def test_a_backlog_in_one_queue_keeps_no_other_queue_waiting(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Also where there are more queues than one claim has room for."""
    await insert(pool, "note", BACKLOG, MOMENT, queue="q00", org_id="big")
    queues = [f"q{n:02}" for n in range(40)]
    patterns = ",".join(queues)
    await fleet.start(DAEMON__QUEUES=patterns, DAEMON__POLL_INTERVAL="60s")
    await fleet.noted("start", 100)
    for queue in queues[::-5]:
        await ended(pool, await insert(pool, "note", queue=queue))
    assert await left(pool, "big") > ENOUGH


async def test_a_long_ordering_key_keeps_no_other_key_waiting(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Its rows wait for the one that runs, and stand before the others."""
    await insert(pool, "note", args={"seconds": 600}, ordering_key="long")
    await insert(pool, "note", 2_000, ordering_key="long")
    await fleet.start(QUEUES__DEFAULT__CONCURRENCY="10")
    await fleet.noted("start")
    others = [*await insert(pool, "note", 5, ordering_key="a"), *await insert(pool, "note", 5, ordering_key="b")]
    await ended(pool, others)
    assert len(fleet.notes("start")) == 1 + len(others)


async def test_the_next_of_a_key_goes_on_when_the_one_before_it_is_deleted(fleet: Fleet, pool: asyncpg.Pool) -> None:
    first = await insert(pool, "note", ordering_key="k", run_at=await pool.fetchval("select now() + interval '1 hour'"))
    ids = await insert(pool, "note", 3, ordering_key="k")
    await fleet.start(DAEMON__POLL_INTERVAL="0.2s")
    await until_sql(pool, "select count(*) = 3 from jobs where gate = 'order'")
    await pool.execute("delete from jobs where id = any ($1::bigint[])", first)
    await ended(pool, ids)
