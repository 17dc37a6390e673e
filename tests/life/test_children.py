"""Children in real daemons: one callback for each batch, whoever dies meanwhile."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from tests.life.fleet import LONG, Fleet, empty, ended, insert, until_sql

KINDS = {"DAEMON__HANDLERS": "tests.life.kinds,tests.life.child_kinds"}


async def results(pool: asyncpg.Pool) -> list[dict[str, Any]]:
    """What the callbacks were told."""
    rows = await pool.fetch("select result from job_history where kind = 'after' and state = 'done' order by id")
    return [json.loads(row[0]) for row in rows]


async def test_a_handler_begins_a_batch_and_hears_of_its_end(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    await insert(pool, "parent", 1, {"count": 25})
    await fleet.noted("after")
    await empty(pool)
    (told,) = await results(pool)
    assert (told["total"], told["done"]) == (25, 25)


async def test_a_handler_that_runs_again_begins_nothing_again(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    await insert(pool, "parent", 1, {"count": 4, "fail": 2})
    await fleet.noted("begun", 3)
    await empty(pool)
    assert [told["total"] for told in await results(pool)] == [4]


async def test_children_add_children_and_die(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    await insert(pool, "parent", 1, {"count": 5, "child": {"more": 3, "dead": True}})
    await fleet.noted("after")
    await empty(pool)
    (told,) = await results(pool)
    assert (told["total"], told["done"], told["failed"], len(told["failed_ids"])) == (20, 15, 5, 5)


@pytest.mark.req("BJ-27")
async def test_each_batch_has_one_callback_over_kills(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Two daemons work at the same batches; one is killed again and again."""
    batches, each = (20, 500) if LONG else (6, 60)
    await insert(pool, "parent", batches, {"count": each, "child": {"seconds": 0.01}})
    await fleet.start("steady", DAEMON__CRASH_LIMIT="100", **KINDS)
    kills = 10 if LONG else 3
    for n in range(kills):
        daemon = await fleet.start(f"short{n}", DAEMON__CRASH_LIMIT="100", **KINDS)
        await fleet.noted("child", (n + 1) * batches * each // (2 * kills))
        await daemon.perish(pool)
    await empty(pool)
    told = await results(pool)
    assert sorted({batch["id"] for batch in told}) == sorted(batch["id"] for batch in told), "one each"
    assert [(batch["total"], batch["done"]) for batch in told] == [(each, each)] * batches
    assert await pool.fetchval("select count(*) from job_batches where ended_at is null") == 0


async def test_thousands_of_children_end_in_two_daemons_without_waiting_for_each_other_for_long(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """The batch's row is written once for all that a commit ends of it."""
    count = 10_000 if LONG else 3_000
    await fleet.start("one", **KINDS)
    await fleet.start("two", **KINDS)
    await pool.execute(
        """with batch as (insert into job_batches (callback_kind) values ('after') returning id)
           insert into jobs (kind, batch_id, queue) select 'child', id, 'wide' from batch, generate_series(1, $1)""",
        count,
    )
    await empty(pool)
    assert [told["done"] for told in await results(pool)] == [count]
    writes = await pool.fetchval("select n_tup_upd from pg_stat_user_tables where relname = 'job_batches'")
    assert writes < count / 10


async def test_children_deleted_by_hand_leave_no_batch_open(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await pool.execute(
        """with batch as (insert into job_batches (callback_kind) values ('after') returning id)
           insert into jobs (kind, batch_id, run_at) select 'child', id, now() + interval '1 h' from batch"""
    )
    await pool.execute("delete from jobs")
    await fleet.start(**KINDS)
    await fleet.noted("after")
    await until_sql(pool, "select ended_at is not null from job_batches")


async def test_a_plain_insert_with_no_children_is_answered_at_once(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    await pool.execute("insert into job_batches (callback_kind) values ('after')")
    await fleet.noted("after")
    row = await pool.fetchrow("select callback_id from job_batches")
    assert row is not None
    await ended(pool, [row[0]])
