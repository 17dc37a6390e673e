"""What a running job says of itself can be read while it runs and after, and is bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet, ended, insert, until, until_sql

KINDS = {"DAEMON__HANDLERS": "tests.life.kinds,tests.life.group_kinds"}


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


@pytest.mark.req("JP-05")
async def test_progress_is_read_while_the_job_runs_and_its_last_value_is_kept(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    (slow,) = await insert(pool, "talk", 1, {"steps": 5, "seconds": 60})
    await until_sql(pool, 'select progress = \'{"percent": 4, "of": 5}\' from job_status where id = $1', slow)
    (quick,) = await insert(pool, "talk", 1, {"steps": 5})
    (row,) = await ended(pool, [quick])
    assert json.loads(row["progress"]) == {"percent": 4, "of": 5}


async def test_progress_is_written_at_most_once_a_second(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await pool.execute("create table seen (progress jsonb)")
    await pool.execute(
        """create function see() returns trigger language plpgsql as $$
           begin insert into seen values (new.progress); return new; end $$;
           create trigger see after update of progress on jobs for each row execute function see();"""
    )
    await fleet.start(**KINDS)
    began = monotonic()
    (job_id,) = await insert(pool, "talk", 1, {"steps": 5000})
    await ended(pool, [job_id])
    assert await pool.fetchval("select count(*) from seen where progress is not null") <= 2 + monotonic() - began
    assert await pool.fetchval("select progress ->> 'percent' from job_history") == "4999"


async def test_progress_that_is_too_large_is_the_handlers_mistake(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    (job_id,) = await insert(pool, "boast", max_attempts=1)
    (row,) = await ended(pool, [job_id])
    assert row["reason"] == "progress has 5023 bytes of JSON; 4096 are allowed"


async def test_a_result_that_is_too_large_makes_a_dead_letter_that_says_so(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    (fits,) = await insert(pool, "talk", 1, {"result": 65_534})
    (too_large,) = await insert(pool, "talk", 1, {"result": 65_535})
    first, second = await ended(pool, [fits, too_large])
    assert (first["state"], len(first["result"])) == ("done", 65_536)
    assert (second["state"], second["result"], json.loads(second["last_error"])["code"]) == (
        "dead", None, "result_too_large"
    )  # fmt: skip
    assert second["reason"] == (
        "its result has 65537 bytes of JSON; 65536 are allowed: store it elsewhere and return where"
    )


@pytest.mark.req("JP-06")
async def test_lines_are_kept_with_the_job_in_order(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    (job_id,) = await insert(pool, "talk", 1, {"lines": 3, "fail": 1}, org_id="o")
    await ended(pool, [job_id])
    rows = await pool.fetch("select * from job_logs where job_id = $1 order by fence, n", job_id)
    assert [(row["attempt"], row["n"], row["level"], row["event"], row["org_id"]) for row in rows] == [
        (attempt, n, "warning" if n == 4 else "info", "last words" if n == 4 else "line", "o")
        for attempt in (1, 2)
        for n in (1, 2, 3, 4)
    ]
    assert json.loads(rows[1]["fields"]) == {"number": 1, "password": "***", "text": "x"}
    assert await pool.fetchval("select bool_and(now() - at < interval '1 min') from job_logs")


async def test_lines_of_a_running_job_are_there_within_moments(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(**KINDS)
    (job_id,) = await insert(pool, "talk", 1, {"lines": 3, "seconds": 60})
    await until_sql(pool, "select count(*) = 3 from job_logs where job_id = $1", job_id)
    assert await pool.fetchval("select state from jobs") == "running"


async def test_of_many_lines_the_newest_are_kept_and_the_others_counted(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(LOG__JOB_LINES="10", **KINDS)
    (job_id,) = await insert(pool, "talk", 1, {"lines": 25, "long": 3000, "fail": 2, "seconds": 1.2})
    await ended(pool, [job_id])
    rows = await pool.fetch("select fence, n, event, length(fields::text) as size from job_logs order by fence, n")
    assert [row["n"] for row in rows] == list(range(17, 27)), "of all attempts together, and 16 are missing before them"
    assert len({row["fence"] for row in rows}) == 1
    assert max(row["size"] or 0 for row in rows) < 1300


async def test_the_command_shows_lines_and_follows_them(fleet: Fleet, pool: asyncpg.Pool, terminal: Terminal) -> None:
    await fleet.start(LOG__JOB_LINES="2", **KINDS)
    (job_id,) = await insert(pool, "talk", 1, {"lines": 4, "seconds": 0.2})
    followed = await terminal.ok("jobs", "logs", job_id, "--follow")
    assert "warning  attempt 1  last words\n" in followed.out
    assert await pool.fetchval("select state from job_history") == "done", "it went on until then"
    as_json = await terminal.ok("jobs", "logs", job_id, "--json")
    lines = [json.loads(line) for line in as_json.out.splitlines()]
    assert [(line["n"], line["event"]) for line in lines] == [(4, "line"), (5, "last words")]
    assert "3 older lines of attempt 1 were dropped" in as_json.err
    nobody = await terminal("jobs", "logs", 404)
    assert (nobody.code, nobody.err) == (1, "jobsd: no job 404, neither live nor in the history\n")


async def test_nothing_is_kept_where_nothing_is_wanted(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(LOG__JOB_LINES="0", **KINDS)
    (job_id,) = await insert(pool, "talk", 1, {"lines": 3})
    await ended(pool, [job_id])
    assert await pool.fetchval("select count(*) from job_logs") == 0


async def test_rows_wait_while_postgres_is_asked_to_forget(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """A locked table holds the lines back; the job's end waits with them, and nothing is lost."""
    await fleet.start(**KINDS)
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("lock table job_logs in access exclusive mode")
        (job_id,) = await insert(pool, "talk", 1, {"lines": 3})
        await until(lambda: fleet.notes("said"), lambda: "it has said its lines")
    await ended(pool, [job_id])
    assert await pool.fetchval("select count(*) from job_logs") == 4
