"""Rows that nobody can run are refused or buried one by one; their neighbours run."""

from __future__ import annotations

import asyncpg
import pytest

from tests.life.fleet import Fleet, each_ended_once, ended, insert, until

REFUSED = (
    ("args", "'[1]'"),
    ("args", "'null'"),
    ("args", "'{'"),
    ("args", r"""'{"a": "\u0000"}'"""),
    ("args", r"""'{"a": "\ud800"}'"""),
    ("args", "json_build_object('a', repeat('x', 300000))::jsonb"),
    ("kind", "'no kind'"),
    ("queue", "'bad queue'"),
    ("priority", "0"),
    ("priority", "5"),
    ("run_at", "'infinity'"),
    ("run_at", "'-infinity'"),
    ("run_at", "'4713-01-01 BC'"),
    ("run_at", "'10000-01-01'"),
    ("expires_at", "'infinity'"),
    ("max_attempts", "0"),
    ("unique_key", r"E'a\x01'"),
    ("state", "'running'"),
    ("attempt", "32767"),
    ("traceparent", "'00-x'"),
)
"""Column and SQL expression of rows that the table does not take."""

BURIED = {
    "1e400": """{"n": 1e400}""",
    "400 digits": f"""{{"n": {"9" * 400}}}""",
    "out of range": f"""{{"n": {2**70}}}""",
    "an exponent that prints to 131,000 digits": """{"n": 1e131000}""",
    "depth 5,000": f"""{{"n": {"[" * 5000}{"]" * 5000}}}""",
    "depth 1,100": f"""{{"n": {"[" * 1100}{"]" * 1100}}}""",
    "no n": "{}",
    "text for a number": """{"n": "1"}""",
    "null for a number": """{"n": null}""",
    "a fraction": """{"n": 1.5}""",
    "an unknown key": """{"n": 1, "m": 1}""",
    "a list for a text": """{"n": 1, "name": []}""",
    "a number for a text": """{"n": 1, "name": 7}""",
    "an object for a number": """{"n": {}}""",
    "an empty name of a key": """{"n": 1, "": 1}""",
}
"""Args that jsonb takes and the kind, or every parser here, does not."""

SAID = ("dead", "dead nul")
RETRIED = ("boom", "unprintable", "boom nul", "exit", "huge", "outcome")
"""What a handler may raise that costs it an attempt: charged, and written down whatever it holds."""
DONE = ("nul", "surrogate", "nan", "int", "object", "deep", "bytes")
"""What a handler may return that is no JSON: it worked all the same."""


@pytest.mark.req("OR-09")
async def test_of_a_thousand_rows_with_forty_poisonous_ones_the_others_are_done(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    refused = 0
    for column, value in REFUSED:
        columns = {"kind": "'note'", column: value}
        statement = f"insert into jobs ({', '.join(columns)}) values ({', '.join(columns.values())})"
        with pytest.raises(asyncpg.PostgresError):
            await pool.execute(statement)
        refused += 1
    good = await insert(pool, "note", 480)
    bad = [await pool.fetchval(TYPED, args) for args in BURIED.values()]
    bad += [(await insert(pool, "say", 1, {"what": what}))[0] for what in SAID]
    tried = [(await insert(pool, "say", 1, {"what": what}, max_attempts=1))[0] for what in RETRIED[:3]]
    good += await insert(pool, "note", 480)
    assert refused + len(bad) + len(tried) == 40

    daemon = await fleet.start(QUEUES__DEFAULT__CONCURRENCY="200")
    rows = await ended(pool, [*good, *bad, *tried])
    states = {row["id"]: row["state"] for row in rows}
    assert [states[job_id] for job_id in good] == ["done"] * 960
    assert {states[job_id] for job_id in [*bad, *tried]} == {"dead"}
    assert all(row["reason"] for row in rows if row["state"] == "dead")
    assert {row["attempt"] for row in rows} == {1}
    await each_ended_once(pool, [*good, *bad, *tried])
    codes = await pool.fetch("select last_error->>'code' from job_history where id = any ($1::bigint[])", bad)
    assert [row[0] for row in codes].count("invalid_args") == len(BURIED)
    assert not daemon.events("claim_failed")
    assert not daemon.events("result_unwritable")


TYPED = "insert into jobs (kind, args) values ('typed', $1::text::jsonb) returning id"


async def test_whatever_a_handler_says_is_written_down(fleet: Fleet, pool: asyncpg.Pool) -> None:
    done = {what: (await insert(pool, "say", 1, {"what": what}))[0] for what in DONE}
    tried = {what: (await insert(pool, "say", 1, {"what": what}))[0] for what in RETRIED}
    daemon = await fleet.start()
    rows = await ended(pool, list(done.values()))
    assert {row["state"] for row in rows} == {"done"}

    async def returned() -> bool:
        left = await pool.fetch("select attempt, state, last_error->>'code' as code from jobs")
        return {tuple(row) for row in left} <= {(1, "ready", "exception"), (1, "ready", "no_outcome")}

    await until(returned, lambda: f"{len(tried)} rows wait for their second attempt; {daemon.tail()}")
    assert await pool.fetchval("select count(*) from jobs") == len(tried)
    assert await pool.fetchval("select count(*) from job_attempts where error is not null") == len(tried)
    assert await pool.fetchval("select max(pg_column_size(error)) from job_attempts") < 65_536
    assert not daemon.events("result_unwritable")


async def test_times_that_came_past_the_checks_strand_no_claim(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """A superuser may drop the checks and load what he likes: what no Python datetime holds is run, or waits."""
    times = ("-infinity", "4713-01-01 BC", "0001-01-01", "1969-12-31")
    for column in ("run_at", "expires_at", "created_at"):
        await pool.execute(f"alter table jobs drop constraint jobs_{column}_in_1970_to_9999")
    odd = [
        await pool.fetchval(
            f"insert into jobs (kind, {column}) values ('note', $1::text::timestamptz) returning id", at
        )
        for column in ("run_at", "expires_at", "created_at")
        for at in (*times, "infinity", "290000-01-01")
        if (column, at[:1]) not in (("run_at", "i"), ("run_at", "2"))
    ]
    never = [
        await pool.fetchval("insert into jobs (kind, run_at) values ('note', $1::text::timestamptz) returning id", at)
        for at in ("infinity", "290000-01-01")
    ]
    good = await insert(pool, "note", 50)
    daemon = await fleet.start()

    async def states() -> dict[int, str] | None:
        found = {row[0]: row[1] for row in await pool.fetch("select id, state from job_history")}
        return found if len(found) >= len(odd) + len(good) else None

    ends = await until(states, lambda: f"all end; {daemon.tail()}")
    assert [ends[job_id] for job_id in good] == ["done"] * 50
    assert {ends[job_id] for job_id in odd} <= {"done", "dead"}
    assert [row["id"] for row in await pool.fetch("select id from jobs order by id")] == never
    assert not daemon.events("claim_failed")


@pytest.mark.parametrize("column", ["attempt", "fence", "org_id"])
async def test_a_row_that_cannot_be_claimed_holds_up_only_its_queue(
    fleet: Fleet, pool: asyncpg.Pool, column: str
) -> None:
    """Loaded past the triggers, or by a restore into a table whose checks are stricter."""
    async with pool.acquire() as conn:
        await conn.execute("set session_replication_role = replica")
        value = {"attempt": 32767, "fence": 2147483647, "org_id": "'a'"}[column]
        await conn.execute(f"insert into jobs (kind, queue, {column}) values ('note', 'bad', {value})")
        await conn.execute("alter table jobs add constraint nobody check (org_id <> 'a') not valid")
        await conn.execute("reset session_replication_role")
    good = [*await insert(pool, "note", 25), *await insert(pool, "note", 25, queue="other")]
    daemon = await fleet.start()
    assert {row["state"] for row in await ended(pool, good)} == {"done"}
    await ended(pool, await insert(pool, "note", 25))
    (said,) = (await daemon.said("claim_failed"))[:1]
    assert said["error"]["message"]
    assert await daemon.stop() == 0


@pytest.mark.req("OR-09")
async def test_rows_of_a_kind_nobody_serves_wait_and_run_once_somebody_does(fleet: Fleet, pool: asyncpg.Pool) -> None:
    unserved = await insert(pool, "note_other", 100)
    served = await insert(pool, "note", 100)
    first = await fleet.start("a", DAEMON__KINDS="note")
    await ended(pool, served)
    await first.said("rows_parked")
    rows = await pool.fetch("select state, attempt, gate from jobs")
    assert {tuple(row) for row in rows} == {("ready", 0, "kind:note_other")}
    assert await pool.fetchval("select count(*) from job_status where reason = 'kind:note_other'") == 100
    fences = await pool.fetch("select id, fence from jobs order by id")
    await ended(pool, await insert(pool, "note", 100))
    assert await pool.fetch("select id, fence from jobs order by id") == fences, "no claim touches them again"
    await fleet.start("b")
    rows = await ended(pool, unserved)
    assert {(row["state"], row["attempt"]) for row in rows} == {("done", 1)}
    await each_ended_once(pool, [*served, *unserved])
    assert {note.by for note in fleet.notes("start") if note.id in set(unserved)} == {"b"}
