"""`jobsd lanes`, and what `jobsd jobs explain` says of a row whose destination is closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet, empty, insert, until_sql

HOLD = """insert into job_holds (gate, cause, since, until, actor, reason, detail)
select 'lane:' || $1, $2, now() - interval '1 min', now() + $3 * interval '1 s', $4, $5, $6::text::jsonb"""


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def hold(pool: asyncpg.Pool, lane: str, cause: str, seconds: float | None, **more: object) -> None:
    await pool.execute(HOLD, lane, cause, seconds, more.get("actor"), more.get("reason"), more.get("detail", "{}"))


async def a_daemon(pool: asyncpg.Pool) -> int:
    worker_id: int = await pool.fetchval(
        """insert into job_workers (name, version, kinds, queues, lease_until)
           values ('d1', '0', '{webhook,noop}', '{*}', now() + interval '1 min') returning id"""
    )
    return worker_id


async def test_lanes_that_are_closed_or_paused_are_listed_with_the_rows_that_wait(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    worker_id = await a_daemon(pool)
    await hold(pool, "a.example", "breaker", 30, reason="timeout", detail=f'{{"rung": 2, "probe": {worker_id}}}')
    await hold(pool, "b.example", "pause", None, actor="me", reason="moving")
    await insert(pool, "noop", 3)
    await pool.execute("update jobs set gate = case id % 3 when 0 then 'lane:c.example' else 'lane:a.example' end")
    found = (await terminal.ok("lanes", "list", "--json")).json
    told = [(row["name"], row["cause"], row["waiting"], row["by"], row["probe"], row["rung"]) for row in found]
    assert told == [
        ("a.example", "breaker", 2, None, "d1", 2),
        ("b.example", "pause", 0, "me", None, 0),
        ("c.example", "busy", 1, None, None, 0),
    ]
    assert "b.example" in (await terminal.ok("lanes", "list")).out


@pytest.mark.req("JP-04")
async def test_orders_are_written_down_with_who_and_why(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await terminal.ok("lanes", "pause", "a.example", "--reason", "moving", "--actor", "me")
    await hold(pool, "a.example", "breaker", 30)
    assert await pool.fetchval("select count(*) from job_holds") == 2
    assert "is open" in (await terminal.ok("lanes", "reset", "a.example", "--actor", "me")).err
    assert await pool.fetchval("select array_agg(cause) from job_holds") == ["pause"]
    assert "goes on" in (await terminal.ok("lanes", "resume", "a.example", "--actor", "me")).err
    assert "was not paused" in (await terminal.ok("lanes", "resume", "a.example")).err
    assert "was not closed" in (await terminal.ok("lanes", "reset", "a.example")).err
    rows = await pool.fetch("select actor, action, subject, reason from job_audit order by id")
    assert [tuple(row) for row in rows] == [
        ("me", "lanes.pause", "lane a.example", "moving"),
        ("me", "lanes.reset", "lane a.example", None),
        ("me", "lanes.resume", "lane a.example", None),
    ]


async def test_a_name_that_no_lane_has_is_refused(terminal: Terminal) -> None:
    assert (await terminal("lanes", "pause", "a\nb")).code == 2


async def test_a_row_of_a_closed_lane_says_so_wherever_it_stands(terminal: Terminal, pool: asyncpg.Pool) -> None:
    worker_id = await a_daemon(pool)
    (job_id,) = await insert(pool, "webhook", 1, {"url": "https://a.example/x", "payload": 1})
    await hold(pool, "a.example", "breaker", 30, reason="timeout: no answer", detail='{"rung": 1}')
    for gate in ("", "lane:a.example"):
        await pool.execute("update jobs set gate = $1", gate)
        said = (await terminal.ok("jobs", "explain", str(job_id), "--json")).json
        assert said["name"] == "lane_breaker"
        assert "for the 2nd time in a row: timeout: no answer" in said["says"]
        assert said["opens_at"]
    await pool.execute("""update job_holds set detail = detail || jsonb_build_object('probe', $1::bigint)""", worker_id)
    assert "d1 tries one row now" in (await terminal.ok("jobs", "explain", str(job_id))).out
    await hold(pool, "a.example", "pause", None, actor="me", reason="moving")
    said = (await terminal.ok("jobs", "explain", str(job_id), "--json")).json
    assert (said["name"], said["opens"]) == ("paused", "jobsd lanes resume a.example")
    assert [gate["name"] for gate in said["then"]] == ["lane_breaker"]
    await pool.execute("delete from job_holds")
    assert (await terminal.ok("jobs", "explain", str(job_id), "--json")).json["name"] == "lane_busy"


async def test_a_paused_lane_stands_still_and_goes_on(terminal: Terminal, pool: asyncpg.Pool, fleet: Fleet) -> None:
    await fleet.start()
    await terminal.ok("lanes", "pause", "a.example")
    await insert(pool, "note", 30, lane="a.example")
    others = await insert(pool, "note", 30, lane="b.example")
    await until_sql(pool, "select count(*) = 30 from jobs where gate = 'lane:a.example'")
    await until_sql(pool, "select count(*) = 30 from job_history where id = any ($1::bigint[])", others)
    assert {note.id for note in fleet.notes("start")} == set(others)
    await terminal.ok("lanes", "resume", "a.example")
    await empty(pool)
    assert await pool.fetchval("select max(attempt) from job_history") == 1
