"""The orders of docs/control.md as people type them, while real daemons run the rows they are about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet, each_ended_once, empty, ended, insert, until_sql

SLOW = {"seconds": 600}
WHO = ("--actor", "ann", "--reason", "wrong import")


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


@pytest.mark.req("JP-04", "JP-09")
async def test_what_runs_is_counted_stopped_by_filter_and_on_record(
    terminal: Terminal, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """On two daemons at once; the rows beside them go on."""
    await fleet.start("a")
    await fleet.start("b")
    wrong = await insert(pool, "note", 30, SLOW, org_id="7")
    right = await insert(pool, "note", 5, SLOW, org_id="8")
    await fleet.noted("start", 35)
    which = ("jobs", "cancel", "--state", "running", "--org", "7")
    dry = (await terminal.ok(*which, "--dry-run", "--json")).json
    assert (dry["cancelled"], dry["exact"], len(dry["sample"])) == (30, True, 10)
    assert len(fleet.notes("cancelled")) == 0
    said = (await terminal.ok(*which, *WHO, "--yes", "--json")).json
    assert (said["cancelled"], said["asked"], said["left"]) == (0, 30, 0)
    rows = await ended(pool, wrong)
    assert {(row["state"], row["reason"]) for row in rows} == {("cancelled", "wrong import")}
    assert {note.id for note in fleet.notes("cancelled")} == set(wrong)
    assert await pool.fetchval("select count(*) from jobs where state = 'running'") == len(right)
    audit = await pool.fetchrow("select actor, action, subject, reason, detail ->> 'asked' from job_audit")
    assert tuple(audit or ()) == ("ann", "jobs.cancel", "jobs of states running, org_id 7", "wrong import", "30")
    undone = await terminal("undo", said["operation"], "--json")
    assert undone.json["undone"] == 0  # they have run
    await terminal.ok("jobs", "cancel", *right, "--yes")
    await empty(pool)


@pytest.mark.req("JP-04", "JP-09")
async def test_a_backlog_is_cancelled_in_batches_beside_its_daemon_and_taken_back(
    terminal: Terminal, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """Whatever the daemon claims first is left to it: each row ends once, and none is lost."""
    await terminal.ok("queues", "pause", "bulk")
    ids = await insert(pool, "note", 3000, queue="bulk")
    await fleet.start()
    first = (await terminal.ok("jobs", "cancel", "--queue", "bulk", "--max", "1500", *WHO, "--yes", "--json")).json
    assert first["cancelled"] == 1500
    await terminal.ok("queues", "resume", "bulk")
    second = (await terminal.ok("jobs", "cancel", "--queue", "bulk", *WHO, "--yes", "--json")).json
    await empty(pool)
    await each_ended_once(pool, ids)
    ran = await pool.fetchval("select count(*) from job_history where state = 'done'")
    assert ran + second["cancelled"] == 1500
    assert (await terminal.ok("undo", first["operation"], "--json")).json["undone"] == 1500
    await until_sql(pool, "select count(*) = 1500 + $1 from job_history where state = 'done'", ran)
    await each_ended_once(pool, ids)


@pytest.mark.req("JP-04", "JP-09")
async def test_dead_letters_are_sent_again_at_a_rate_by_command(
    terminal: Terminal, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    ids = await insert(pool, "say", 20, {"what": "dead"})
    await fleet.start()
    await ended(pool, ids)
    said = (await terminal.ok("dead", "retry", "--kind", "say", "--rate", "10/s", *WHO, "--yes", "--json")).json
    assert said["retried"] == 20
    began = await pool.fetchval("select at from job_audit")
    await until_sql(pool, "select count(*) = 20 from job_history where started_at > $1", began)
    starts = await pool.fetch(
        "select extract(epoch from started_at - $1)::float8 from job_history where started_at > $1 order by 1", began
    )
    assert [(n, row[0]) for n, row in enumerate(starts) if row[0] < n * 0.1] == []
