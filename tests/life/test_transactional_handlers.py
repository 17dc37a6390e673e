"""A transactional handler's work and its row's end are one commit: both, or neither."""

from __future__ import annotations

import json
import signal

import asyncpg
import pytest

from jobs import Context, job
from tests.life.fleet import LONG, Fleet, each_ended_once, empty, ended, insert, until_sql

KINDS = {"DAEMON__HANDLERS": "tests.life.kinds,tests.life.child_kinds"}


@pytest.fixture
async def ledger(pool: asyncpg.Pool) -> None:
    await pool.execute("create table ledger (job_id bigint, fence int)")
    await pool.execute("create table strict_ledger (n int unique deferrable initially deferred)")
    await pool.execute("insert into strict_ledger values (1)")


async def booked(pool: asyncpg.Pool) -> list[int]:
    return [row[0] for row in await pool.fetch("select job_id from ledger order by job_id")]


async def test_work_and_end_are_committed_together(fleet: Fleet, pool: asyncpg.Pool, ledger: None) -> None:
    """Every line of the ledger was written by the transaction that wrote the row's history."""
    await fleet.start(**KINDS)
    ids = await insert(pool, "book", 30, {"what": "result"})
    rows = await ended(pool, ids)
    assert await booked(pool) == ids
    assert {row["state"] for row in rows} == {"done"}
    assert json.loads(rows[0]["result"]) == {"booked": ids[0]}
    apart = "select count(*) from ledger l join job_history h on h.id = l.job_id where l.xmin <> h.xmin"
    assert await pool.fetchval(apart) == 0
    if LONG:  # at its look for strays, ten seconds later
        await until_sql(pool, "select not exists (select from job_claims)")


@pytest.mark.parametrize(
    ("what", "state", "reason"),
    [
        ("raise", "dead", "no"),
        ("dead", "dead", "never"),
        ("late constraint", "dead", "duplicate key value violates"),
        ("swallow", "dead", "current transaction is aborted"),
    ],
)
async def test_what_does_not_succeed_leaves_nothing_behind(
    fleet: Fleet, pool: asyncpg.Pool, ledger: None, what: str, state: str, reason: str
) -> None:
    await fleet.start(**KINDS)
    ids = await insert(pool, "book", 2, {"what": what})
    rows = await ended(pool, ids)
    assert [row["state"] for row in rows] == [state, state]
    assert rows[0]["reason"].startswith(reason)
    assert await booked(pool) == []
    (other,) = await insert(pool, "book", 1)
    assert [row["state"] for row in await ended(pool, [other])] == ["done"], "its connection is as good as before"


async def test_a_snooze_undoes_the_work_too(fleet: Fleet, pool: asyncpg.Pool, ledger: None) -> None:
    await fleet.start(**KINDS)
    await insert(pool, "book", 1, {"what": "snooze"})
    await until_sql(pool, "select state = 'ready' and fence > 1 and attempt = 0 from jobs")
    assert await booked(pool) == []


async def test_who_ends_his_transaction_himself_is_told(fleet: Fleet, pool: asyncpg.Pool, ledger: None) -> None:
    await fleet.start(**KINDS)
    (job_id,) = await insert(pool, "book", 1, {"what": "commit"}, max_attempts=1)
    (row,) = await ended(pool, [job_id])
    assert row["reason"] == "the handler ended the transaction that it was given"


async def test_one_that_overstays_is_rolled_back_and_charged(fleet: Fleet, pool: asyncpg.Pool, ledger: None) -> None:
    await fleet.start(**KINDS)
    ids = await insert(pool, "book_slow", 3)
    assert {(row["state"], row["reason"], row["attempt"]) for row in await ended(pool, ids)} == {
        ("dead", "no end within 0.3 s", 3)
    }
    assert await booked(pool) == []


async def test_its_transaction_has_a_limit_whatever_its_timeout(fleet: Fleet, pool: asyncpg.Pool, ledger: None) -> None:
    await fleet.start(DATABASE__TRANSACTION_TIMEOUT="300ms", **KINDS)
    (job_id,) = await insert(pool, "book", 1, {"wait": 60}, max_attempts=1)
    (row,) = await ended(pool, [job_id])
    assert row["reason"] == "no end within 0.3 s"


async def test_rows_that_wait_for_a_connection_are_not_out_of_time(
    fleet: Fleet, pool: asyncpg.Pool, ledger: None
) -> None:
    """Ten rows through one connection, each with a limit that is shorter than all ten take."""
    await fleet.start(DATABASE__TRANSACTION_POOL_SIZE="1", DATABASE__TRANSACTION_TIMEOUT="2s", **KINDS)
    ids = await insert(pool, "book", 10, {"wait": 0.3})
    assert {(row["state"], row["attempt"]) for row in await ended(pool, ids)} == {("done", 1)}


async def test_a_stop_undoes_what_is_not_done_and_charges_nothing(
    fleet: Fleet, pool: asyncpg.Pool, ledger: None
) -> None:
    daemon = await fleet.start(DAEMON__DRAIN_TIMEOUT="0", **KINDS)
    await insert(pool, "book", 8, {"wait": 60})
    await fleet.noted("booked", 5)
    assert await daemon.stop() == 0
    assert await booked(pool) == []
    assert {tuple(row) for row in await pool.fetch("select state, attempt from jobs")} == {("ready", 0)}


@pytest.mark.req("BJ-27")
async def test_nothing_is_done_twice_over_kills(fleet: Fleet, pool: asyncpg.Pool, ledger: None) -> None:
    """Daemons are killed again and again while rows are booked; each row has one line in the end."""
    ids = await insert(pool, "book", 1000 if LONG else 150, {"wait": 0.01}, max_attempts=100)
    await fleet.start("steady", DAEMON__CRASH_LIMIT="100", **KINDS)
    kills = 10 if LONG else 3
    for n in range(kills):
        daemon = await fleet.start(f"short{n}", DAEMON__CRASH_LIMIT="100", **KINDS)
        await fleet.noted("booked", (n + 1) * len(ids) // (2 * kills))
        await daemon.perish(pool)
    await empty(pool)
    assert {row["state"] for row in await ended(pool, ids)} == {"done"}
    assert await booked(pool) == ids
    await each_ended_once(pool, ids)


async def test_who_stood_still_and_lost_his_row_commits_nothing(fleet: Fleet, pool: asyncpg.Pool, ledger: None) -> None:
    """A daemon is stopped in the middle of a transaction; another does the row; the first wakes up and is refused."""
    (job_id,) = await insert(pool, "book", 1, {"wait": 4.0, "first": 1})
    frozen = await fleet.start("frozen", DAEMON__LEASE="5s", **KINDS)
    await fleet.noted("booked", 1)
    frozen.signal(signal.SIGSTOP)
    await fleet.start("other", **KINDS)
    (row,) = await ended(pool, [job_id])
    frozen.signal(signal.SIGCONT)
    await frozen.said("worker_lost")
    await until_sql(pool, "select count(*) = 0 from pg_stat_activity where state like 'idle in transaction%'")
    lines = await pool.fetch("select job_id, fence from ledger")
    assert [tuple(line) for line in lines] == [(job_id, row["attempt"] + 1)], "the line of the later fence"


async def test_children_that_a_transaction_begins_come_with_its_end(
    fleet: Fleet, pool: asyncpg.Pool, ledger: None
) -> None:
    await fleet.start(**KINDS)
    ids = await insert(pool, "book", 1, {"what": "children"})
    await ended(pool, ids)
    (note,) = await fleet.noted("after")
    assert (note.extra["total"], note.extra["done"]) == (3, 3)


def test_a_handler_of_many_rows_is_not_transactional() -> None:
    with pytest.raises(ValueError, match="batch and transactional do not go together"):
        job("never", batch=2, transactional=True)


def test_other_handlers_have_no_transaction() -> None:
    from typing import Any, cast

    context = Context(cast(Any, None), cast(Any, None), cast(Any, None), cast(Any, None))
    with pytest.raises(RuntimeError, match="transactional=True"):
        _ = context.conn
