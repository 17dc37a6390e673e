"""What the config names is looked for in the database: whatever is not as it should be, in words, under its key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from daemon.config import parse
from jobs.catalogue.kinds import look
from jobs.testing import Queue
from tests.jobs.catalogue.house import zoo


@pytest.fixture(scope="module")
async def queue() -> AsyncIterator[Queue]:
    async with zoo() as made:
        yield made


async def said(queue: Queue, **keys: str) -> str | None:
    """Why a purge with these keys in place of good ones is parked."""
    given = {"verb": '"purge"', "table": '"zoo.visits"', "age_column": '"came_at"', "retention": '"1d"', **keys}
    settings = parse("[jobs.x]\n" + "\n".join(f"{key} = {value}" for key, value in given.items())).jobs["x"]
    async with queue.pool.acquire() as conn:
        return (await look(conn, settings)).reason


async def test_what_is_there_is_found(queue: Queue) -> None:
    assert await said(queue) is None
    assert await said(queue, table='"ZOO.Visits"') is None, "folded, as Postgres does"
    assert await said(queue, table="'zoo.\"Odd names\"'", age_column='"When"') is None
    assert await said(queue, table='"zoo.days"', age_column='"day"') is None


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"table": '"zoo.visit"'}, "table: there is no table zoo.visit; did you mean zoo.visits?"),
        ({"table": '"visits"'}, "table: there is no table visits; did you mean zoo.visits?"),
        ({"table": "'zoo.\"Visits\"'"}, "table: there is no table zoo.\"Visits\"; did you mean zoo.visits?"),
        ({"table": '"zoo.seen"'}, "table: zoo.seen is a view, not a table"),
        (
            {"table": '"zoo.heap"', "age_column": '"at"'},
            "table: zoo.heap has no primary key, by which its rows could be told apart",
        ),
        ({"age_column": '"came"'}, "age_column: zoo.visits has no column 'came'; did you mean 'came_at'?"),
        ({"age_column": '"kept"'}, "age_column: zoo.visits.kept is boolean, not a timestamp or a date"),
        ({"where": "{ moood = 'calm' }"}, "where.moood: zoo.visits has no column 'moood'; did you mean 'mood'?"),
        (
            {"where": "{ mood = ['calm', 'angry'] }"},
            "where.mood: is no value of zoo.visits.mood, which is zoo.mood: invalid input value for enum zoo.mood: "
            '"angry"',
        ),
        (
            {"where": "{ id = 'seven' }"},
            "where.id: is no value of zoo.visits.id, which is bigint: invalid input syntax for type bigint: \"seven\"",
        ),
        (
            {"where": "{ kept = { older_than = '1d' } }"},
            "where.kept: zoo.visits.kept is boolean, not a timestamp or a date",
        ),
    ],
)  # fmt: skip
async def test_what_is_not_is_said(queue: Queue, keys: dict[str, str], reason: str) -> None:
    assert await said(queue, **keys) == reason


async def test_all_that_is_wrong_is_said_at_once(queue: Queue) -> None:
    reason = await said(queue, age_column='"kept"', where="{ nope = 1, id = 'x' }") or ""
    assert [part.partition(":")[0] for part in reason.split("; ") if ":" in part] == [
        "age_column",
        "where.nope",
        "where.id",
    ]


async def test_rights_that_lack_are_named_with_the_grant(queue: Queue) -> None:
    await queue.pool.execute("create role keeper_of_nothing; grant usage on schema zoo to keeper_of_nothing")
    try:
        conn = await asyncpg.connect(queue.dsn)
        await conn.execute("set role keeper_of_nothing")
        settings = parse(
            '[jobs.x]\nverb = "purge"\ntable = "zoo.visits"\nage_column = "came_at"\nretention = "1d"\n'
        ).jobs["x"]
        reason = (await look(conn, settings)).reason
        await conn.close()
    finally:
        await queue.pool.execute("drop owned by keeper_of_nothing; drop role keeper_of_nothing")
    assert reason == (
        "table: role keeper_of_nothing may not select, delete, update: "
        "grant select, delete, update on zoo.visits to keeper_of_nothing"
    )


@pytest.mark.req("BJ-29")
async def test_an_index_that_is_missing_is_advised(queue: Queue) -> None:
    text = '[jobs.x]\nverb = "purge"\ntable = "zoo.visits"\nage_column = "seen_at"\nretention = "1d"\n'
    async with queue.pool.acquire() as conn:
        found = await look(conn, parse(text).jobs["x"])
    assert found.reason is None
    assert found.advice == (
        "no index of zoo.visits begins with seen_at: each run reads the whole table; "
        "create index concurrently on zoo.visits (seen_at)",
    )


@pytest.mark.req("BJ-29")
@pytest.mark.parametrize(
    ("where", "index", "serves"),
    [
        ("{ kept = true }", "kept", True),
        ("{ kept = true }", "kept = true", True),
        ("{ kept = false }", "not kept", True),
        ("{ kept = false }", "kept = false", True),
        ("{ seen_at = { null = true } }", "seen_at is null", True),
        ("{ seen_at = { null = false } }", "seen_at is not null", True),
        ("{ mood = 'calm' }", "mood = 'calm'", True),
        ("{ note = 'a b' }", "note = 'a b'", True),
        ("{ kept = false, seen_at = { null = true }, note = 'x' }", "not kept and seen_at is null", True),
        ("{ kept = true }", "not kept", False),
        ("{}", "kept", False),
        ("{ mood = ['calm', 'cross'] }", "mood = 'calm'", False),
        ("{ mood = { not = 'calm' } }", "mood = 'calm'", False),
        ("{ kept = false }", "not kept and seen_at is null", False),
        ("{ note = 'a' }", "note = 'b'", False),
    ],
)
async def test_an_index_of_just_the_rows_it_is_about_will_do(
    queue: Queue, where: str, index: str, serves: bool
) -> None:
    text = f'[jobs.x]\nverb = "purge"\ntable = "zoo.notes"\nage_column = "at"\nretention = "1d"\nwhere = {where}\n'
    async with queue.pool.acquire() as conn, conn.transaction():
        await conn.execute(
            "create table zoo.notes (id int primary key, at timestamptz, kept boolean, seen_at timestamptz, "
            f"mood zoo.mood, note text); create index on zoo.notes (at) where {index}"
        )
        advice = (await look(conn, parse(text).jobs["x"])).advice
        await conn.execute("drop table zoo.notes")
    assert (advice == ()) is serves


async def test_rows_that_row_security_hides_are_advised_about() -> None:
    async with zoo() as queue:
        await queue.pool.execute(
            "alter table zoo.visits enable row level security; create role keeper_of_some; "
            "grant usage on schema zoo to keeper_of_some; grant select, update, delete on zoo.visits to keeper_of_some"
        )
        conn = await asyncpg.connect(queue.dsn)
        try:
            await conn.execute("set role keeper_of_some")
            text = '[jobs.x]\nverb = "purge"\ntable = "zoo.visits"\nage_column = "came_at"\nretention = "1d"\n'
            found = await look(conn, parse(text).jobs["x"])
            assert found.reason is None
            (advice,) = found.advice
            assert advice.startswith("row security of zoo.visits hides what no policy shows to role keeper_of_some")
        finally:
            await conn.close()
            await queue.pool.execute("drop owned by keeper_of_some; drop role keeper_of_some")
