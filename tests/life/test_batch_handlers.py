"""Handlers of many rows: one call, and still each row has its own end."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.life.fleet import Fleet, each_ended_once, empty, ended, insert, until_sql

KINDS = {"DAEMON__HANDLERS": "tests.life.kinds,tests.life.group_kinds"}


async def mixed(pool: asyncpg.Pool, *whats: str) -> dict[str, int]:
    """One row each, inserted at once; {what: id}."""
    rows = await pool.fetch(
        """insert into jobs (kind, args) select 'group', jsonb_build_object('what', what)
           from unnest($1::text[]) as what returning id, args ->> 'what' as what""",
        list(whats),
    )
    return {row["what"]: row["id"] for row in rows}


def calls(fleet: Fleet) -> list[list[int]]:
    """Who was called together, a list each call."""
    return [list(ids) for ids in {tuple(note.extra["with"]) for note in fleet.notes("call")}]


async def test_rows_are_called_together_and_each_ends_as_the_handler_says_of_it(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    ids = await mixed(pool, "done", "result", "dead", "snooze")
    await fleet.start(**KINDS)
    rows = {row["id"]: row for row in await ended(pool, [ids["done"], ids["result"], ids["dead"]])}
    assert (rows[ids["done"]]["state"], rows[ids["done"]]["result"]) == ("done", None)
    assert rows[ids["result"]]["result"] == str(ids["result"])
    assert (rows[ids["dead"]]["state"], rows[ids["dead"]]["reason"]) == ("dead", "never")
    snoozed = await pool.fetchrow("select state, attempt, run_at > now() as later from jobs")
    assert snoozed is not None
    assert tuple(snoozed) == ("ready", 0, True)
    assert calls(fleet) == [sorted(ids.values())]


async def test_a_call_takes_no_more_rows_than_its_handler_wants(fleet: Fleet, pool: asyncpg.Pool) -> None:
    ids = await insert(pool, "group", 90)
    await fleet.start(**KINDS)
    await empty(pool)
    sizes = sorted(len(call) for call in calls(fleet))
    assert sum(sizes) == 90
    assert sizes[-1] == 20
    await each_ended_once(pool, ids)


async def test_no_more_rows_run_than_the_queue_has_slots(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await insert(pool, "group_long", 30, {"seconds": 0.5}, queue="narrow")
    await fleet.start(config="[queues.narrow]\nconcurrency = 8\n", **KINDS)
    await empty(pool)
    assert max(len(call) for call in calls(fleet)) == 8


async def test_a_row_of_which_nothing_is_said_fails_with_an_error_that_names_it(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    ids = await mixed(pool, "done", "forget")
    await fleet.start(**KINDS)
    done, forgotten = await ended(pool, sorted(ids.values()))
    assert done["state"] == "done"
    assert (forgotten["state"], forgotten["attempt"]) == ("dead", 3)
    assert forgotten["reason"] == f"the handler said nothing of job {ids['forget']}"


async def test_a_handler_that_says_nothing_at_all_fails_all_its_rows(fleet: Fleet, pool: asyncpg.Pool) -> None:
    ids = await insert(pool, "group_no_dict", 3, max_attempts=1)
    await fleet.start(**KINDS)
    assert {row["reason"] for row in await ended(pool, ids)} == {
        "a batch handler returns {id: outcome}, this one nothing"
    }


@pytest.mark.req("OR-09")
async def test_an_exception_fails_the_call_once_and_then_only_the_row_that_raises_it(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    ids = await mixed(pool, "done", "result", "raise")
    await fleet.start(**KINDS)
    rows = {row["id"]: row for row in await ended(pool, sorted(ids.values()))}
    poison = rows.pop(ids["raise"])
    assert (poison["state"], poison["attempt"], poison["reason"]) == ("dead", 3, "one of them is poison")
    assert {(row["state"], row["attempt"]) for row in rows.values()} == {("done", 2)}
    assert {len(note.extra["with"]) for note in fleet.notes("call") if note.extra["attempt"] > 1} == {1}
    assert await pool.fetchval("select count(*) from job_attempts where error ->> 'trace' like '%group_kinds%'") == 5


async def test_a_call_that_overstays_is_cancelled_and_all_its_rows_are_charged(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    ids = await insert(pool, "group_slow", 5, max_attempts=1)
    daemon = await fleet.start(**KINDS)
    assert {(row["state"], row["reason"]) for row in await ended(pool, ids)} == {("dead", "no end within 1 s")}
    assert len(await fleet.noted("call cancelled")) == 1
    assert daemon.events("slot_leaked") == []


async def test_a_stop_hands_back_every_row_of_a_call_uncharged(fleet: Fleet, pool: asyncpg.Pool) -> None:
    ids = await insert(pool, "group_long", 5)
    daemon = await fleet.start(DAEMON__DRAIN_TIMEOUT="0", **KINDS)
    await fleet.noted("call", 5)
    assert await daemon.stop() == 0
    rows = await pool.fetch("select id, state, attempt, crashes from jobs order by id")
    assert [tuple(row) for row in rows] == [(job_id, "ready", 0, 0) for job_id in ids]


async def test_a_limit_counts_the_rows_of_a_call_and_not_the_call(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await insert(pool, "group_long", 12, {"seconds": 0.3})
    await fleet.start(config='[limits.few]\nkind = "group_long"\nconcurrency = 4\n', **KINDS)
    await empty(pool)
    assert max(len(call) for call in calls(fleet)) <= 4


async def test_rows_of_a_killed_call_run_again(fleet: Fleet, pool: asyncpg.Pool) -> None:
    ids = await insert(pool, "group_long", 5)
    first = await fleet.start("first", **KINDS)
    await fleet.noted("call", 5)
    await first.perish(pool)
    await fleet.start("second", **KINDS)
    await until_sql(pool, "select count(*) = 5 from jobs where state = 'running' and crashes = 1")
    assert await pool.fetchval("select count(*) from jobs where id = any ($1::bigint[])", ids) == 5


def test_sizes_and_lingers_that_make_no_sense_are_refused() -> None:
    from jobs import job

    async def handler(rows: Any) -> None: ...

    with pytest.raises(ValueError, match="batch: 0 is not between 1 and 10000"):
        job("never", batch=0)(handler)
    with pytest.raises(ValueError, match="linger: 2 s is not between 0 and 1 s"):
        job("never", batch=2, linger="2s")(handler)
