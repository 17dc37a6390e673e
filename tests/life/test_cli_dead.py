"""`jobsd dead`, `jobsd queues`, `jobsd stats`: many rows at once, and what an operator did is on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened, until


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def bury(pool: asyncpg.Pool, count: int, kind: str, code: str, days_ago: int = 0) -> None:
    await pool.execute(
        "insert into job_history (id, kind, args, queue, org_id, priority, run_at, created_at, state, attempt, "
        "crashes, finished_at, last_error, reason) "
        "select nextval(pg_get_serial_sequence('jobs', 'id')), $2, '{}', 'default', '7', 2, now(), now(), 'dead', 4, "
        "0, now() - $4::int * interval '1 day', jsonb_build_object('code', $3::text), $3 "
        "from generate_series(1, $1::int)",
        count,
        kind,
        code,
        days_ago,
    )


@pytest.mark.req("OR-06")
async def test_dead_letters_are_listed_by_filter_newest_first(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await bury(pool, 2, "old", "timeout", days_ago=40)
    await bury(pool, 1, "new", "http_410")

    async def kinds(*words: str) -> list[str]:
        return [row["kind"] for row in (await terminal.ok("dead", "list", "--json", *words)).json]

    assert await kinds() == ["new", "old", "old"]
    assert await kinds("--older-than", "30d") == ["old", "old"]
    assert await kinds("--code", "http_410") == ["new"]
    assert await kinds("--kind", "old", "--limit", "1") == ["old"]
    assert await kinds("--queue", "other") == await kinds("--org", "8") == []


@pytest.mark.req("OR-06")
async def test_a_filtered_retry_goes_in_batches_and_at_a_rate(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await bury(pool, 2300, "a", "timeout")
    await bury(pool, 5, "b", "timeout", days_ago=3)
    dry = (await terminal.ok("dead", "retry", "--kind", "a", "--dry-run")).out.splitlines()
    assert dry[0] == "would be retried: 2300"
    assert len(dry) == 1 + 1 + 10  # a head line and a sample
    assert await pool.fetchval("select count(*) from jobs") == 0
    said = (await terminal.ok("dead", "retry", "--kind", "a", "--rate", "10/s", "--yes", "--json")).json
    assert (said["retried"], said["left"], said["dry_run"]) == (2300, 0, False)
    row = await pool.fetchrow(
        "select count(*), count(distinct id), date_part('epoch', max(run_at) - min(run_at)) as over_s, "
        "(select count(*) from job_history) from jobs where kind = 'a'"
    )
    assert row is not None
    assert (row[0], row[1], row[3]) == (2300, 2300, 5)
    assert 229 < row["over_s"] < 235
    audit = await pool.fetch("select id, subject, detail from job_audit")
    assert [(row["id"], row["subject"]) for row in audit] == [(said["operation"], "dead letters of kind a")]
    detail = json.loads(audit[0]["detail"])
    assert (detail["rows"], len(detail["ids"]), detail["filter"]) == (2300, 100, {"kind": "a"})
    assert (await terminal.ok("undo", said["operation"])).out == "undone: 2300\n"
    assert await pool.fetchval("select count(*) from job_history") == 2305


async def test_only_dead_letters_are_retried_by_id(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await bury(pool, 1, "a", "timeout")
    dead = await pool.fetchval("select id from job_history")
    said = await terminal("dead", "retry", dead, 999)
    assert (said.code, said.out) == (1, "retried: 1\n")
    assert await pool.fetchval("select id from jobs") == dead


@pytest.mark.req("OR-06")
async def test_a_purge_takes_what_is_old_enough_and_nothing_else(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await bury(pool, 1200, "old", "timeout", days_ago=40)
    await bury(pool, 3, "new", "timeout")
    await pool.execute("update job_history set state = 'done' where id = (select min(id) from job_history)")
    dry = await terminal.ok("dead", "purge", "--older-than", "30d", "--dry-run", "--json")
    assert (dry.json["purged"], dry.json["exact"], len(dry.json["sample"])) == (1199, True, 10)
    assert await pool.fetchval("select count(*) from job_history") == 1203
    assert (await terminal.ok("dead", "purge", "--older-than", "30d", "--yes")).out == "purged: 1199\n"
    left = await pool.fetch("select kind, state, count(*) from job_history group by 1, 2 order by 1")
    assert [tuple(row) for row in left] == [("new", "dead", 3), ("old", "done", 1)]


# --- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("JP-04")
async def test_a_paused_queue_says_who_and_why_and_all_of_it_is_audited(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await terminal.ok("queues", "pause", "mail", "--reason", "relay moves", "--actor", "ann")
    listed = (await terminal.ok("queues", "list", "--json")).json
    mail = next(row for row in listed if row["queue"] == "mail")
    assert (mail["by"], mail["reason"], mail["paused"] is None) == ("ann", "relay moves", False)
    assert "mail is not paused" not in (await terminal.ok("queues", "resume", "mail")).err
    assert "mail was not paused" in (await terminal.ok("queues", "resume", "mail")).err
    audit = await pool.fetch("select actor, action, subject, reason from job_audit order by id")
    assert [tuple(row) for row in audit] == [
        ("ann", "queues.pause", "queue mail", "relay moves"),
        ("tester", "queues.resume", "queue mail", None),
    ]


async def test_the_operator_behind_sudo_is_on_record(
    terminal: Terminal, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "bob")
    await terminal.ok("queues", "pause", "mail")
    assert await pool.fetchval("select actor from job_audit") == "bob"


async def test_a_drain_returns_when_nothing_runs_any_more(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await pool.execute(
        "insert into jobs (kind, queue) values ('a', 'q'); update jobs set state = 'running', worker_id = 1; "
        "insert into job_claims (worker_id, ids) select 1, array_agg(id) from jobs"
    )
    late = await terminal("queues", "drain", "q", "--timeout", "100ms")
    assert late.code == 1
    assert "1 of its jobs still run" in late.err
    await terminal.ok("queues", "resume", "q")
    command = terminal.start("queues", "drain", "q")
    paused = "select count(*) = 2 from job_audit where action = 'queues.drain'"
    await until(lambda: pool.fetchval(paused))
    await pool.execute("delete from jobs")
    said = await command.ended()
    assert said.code == 0, said
    assert await pool.fetchval("select paused_at is not null from job_queues where name = 'q'")


# --- stats ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("JP-04")
async def test_stats_count_each_queue(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await bury(pool, 2, "a", "timeout")
    await pool.execute(
        "insert into jobs (kind, queue, run_at) values ('a', 'q', now() - interval '1 h'), "
        "('a', 'q', now() + interval '1 h'), ('b', 'q', now()), ('c', 'q', now()); "
        "update jobs set gate = 'kind:b' where kind = 'b'; "
        "update jobs set state = 'running', worker_id = 1 where kind = 'c'; "
        "insert into job_workers (name, version, kinds, queues, lease_until, running) "
        "values ('d', '0', '{}', '{}', now() + interval '1 h', '{\"q\": 1}'); "
        "insert into job_tallies values (date_trunc('hour', now()), 'q', 'done', 1, 41), "
        "(date_trunc('hour', now()), 'q', 'done', 2, 1), (now() - interval '25 h', 'q', 'done', 2, 1)"
    )
    await terminal.ok("queues", "pause", "q")
    rows = {row["queue"]: row for row in (await terminal.ok("stats", "--json")).json}
    oldest_s = rows["q"].pop("oldest_s")
    assert rows["q"] == {
        "queue": "q", "ready": 1, "scheduled": 1, "parked": 1, "running": 1, "dead": 0, "about": [], "done_24h": 42,
        "dead_24h": 0, "paused": True,
    }  # fmt: skip
    assert 3600 <= oldest_s < 3700
    assert rows["default"]["dead"] == 2


async def test_large_numbers_are_estimates_and_say_so(terminal: Terminal, pool: asyncpg.Pool) -> None:
    """All pages are in the sample here, so the estimate is right."""
    await pool.execute("insert into jobs (kind) select 'a' from generate_series(1, 10500)")
    shown = (await terminal.ok("stats")).out.splitlines()
    assert shown[1].split()[:4] == ["default", "about", "10.5", "k"]
    (row,) = json.loads((await terminal.ok("stats", "--json")).out)
    assert (row["ready"], row["about"]) == (10500, ["ready"])
