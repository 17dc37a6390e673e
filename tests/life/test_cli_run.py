"""`jobsd run`: one job now lives the life of any row, alone among runs of its kind."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.life.cli_terminal import Command, Terminal, opened, python, until


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def contents(pool: asyncpg.Pool) -> dict[str, Any]:
    """Every row of every table, to compare."""
    tables = await pool.fetch(
        "select oid::regclass::text as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    rows = {}
    for table in tables:
        found = await pool.fetch(f"select to_jsonb(t)::text as row from {table['name']} t")
        rows[table["name"]] = sorted(row["row"] for row in found)
    return rows


async def test_a_run_ends_in_the_history_like_any_row(terminal: Terminal, pool: asyncpg.Pool) -> None:
    said = await terminal.ok("run", "cli.done", "--args", '{"say": "it"}', "--org", "7", "--queue", "report", "--json")
    row = await pool.fetchrow("select * from job_history")
    assert row is not None
    assert (row["id"], row["state"], row["attempt"]) == (said.json["id"], "done", 1)
    assert (row["org_id"], row["queue"], json.loads(row["result"])) == ("7", "report", {"said": "it"})
    assert row["worker_id"] is not None
    assert await pool.fetchval("select count(*) from job_workers") == 0


@pytest.mark.req("JD-09")
async def test_a_failed_run_is_a_dead_letter(terminal: Terminal, pool: asyncpg.Pool) -> None:
    said = await terminal("run", "cli.fails", "--json")
    assert (said.code, said.json["outcome"], said.json["code"]) == (1, "dead", "hopeless")
    assert await pool.fetchval("select state from job_history") == "dead"
    assert await pool.fetchval("select outcome from job_attempts") == "dead"


async def test_a_run_to_be_retried_leaves_its_row_in_the_queue(terminal: Terminal, pool: asyncpg.Pool) -> None:
    said = await terminal("run", "cli.retries", "--json")
    assert said.code == 1
    row = await pool.fetchrow("select state, attempt, worker_id, run_at - now() > '59 min' as later from jobs")
    assert row is not None
    assert tuple(row) == ("ready", 1, None, True)


@pytest.mark.req("BJ-02")
async def test_a_run_that_overstays_its_timeout_is_stopped_and_says_so(
    terminal: Terminal, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    args = json.dumps({"started": str(tmp_path / "started")})
    said = await terminal("run", "cli.waits", "--args", args, "--timeout", "100ms")
    assert said.code == 1
    assert "no end within 0.1 s; its row is back in queue default" in said.err
    assert await pool.fetchval("select code from job_attempts") == "timeout"


@pytest.mark.req("BJ-30")
async def test_a_dry_run_changes_nothing_whatever_the_handler_does(terminal: Terminal, pool: asyncpg.Pool) -> None:
    before = await contents(pool)
    good = await terminal.ok("run", "cli.done", "--dry-run", "--args", '{"say": "it"}')
    bad = await terminal("run", "cli.writes", "--dry-run", "--json")
    assert await contents(pool) == before
    assert good.json == {"said": "it"}
    assert bad.code == 1
    assert "read-only transaction" in bad.json["reason"]


async def test_a_paused_queue_does_not_hold_a_run_by_hand(terminal: Terminal) -> None:
    await terminal.ok("queues", "pause", "default")
    await terminal.ok("run", "cli.done")


async def test_a_run_counts_against_limits_and_gives_places_back(terminal: Terminal, pool: asyncpg.Pool) -> None:
    terminal.configure(
        '[daemon]\nhandlers = ["tests.life.cli_handlers"]\n[limits.one]\nkind = "cli.done"\nconcurrency = 1\n'
        '[limits.rare]\nkind = "cli.*"\nrate = "1/h"\nburst = 2\n'
    )
    await terminal.ok("run", "cli.done")
    await terminal.ok("run", "cli.done")
    assert await pool.fetchval("select count(*) from job_limit_holds where held > 0") == 0
    said = await terminal("run", "cli.done", "--timeout", "200ms")
    assert said.code == 1
    assert "waits at limit:rare:" in said.err
    assert await pool.fetchval("select gate from jobs where state = 'ready' and attempt = 0") == "limit:rare:"


async def test_no_daemon_can_take_the_row_of_a_run(terminal: Terminal, pool: asyncpg.Pool, tmp_path: Path) -> None:
    """It is never seen ready: inserted and claimed in one commit."""
    seen: list[str] = []
    stop = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            seen.extend(row["state"] for row in await pool.fetch("select state from jobs"))

    args = json.dumps({"started": str(tmp_path / "started")})
    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await terminal("run", "cli.waits", "--args", args, "--timeout", "100ms")
        stop.set()
    ran_until = len(seen) - seen[::-1].index("running")
    assert set(seen[:ran_until]) == {"running"}


# --- processes --------------------------------------------------------------------------------------------------------


async def _start_waiting(terminal: Terminal, started: Path) -> Command:
    command = terminal.start("run", "cli.waits", "--args", json.dumps({"started": str(started)}))
    await until(lambda: asyncio.to_thread(started.exists))
    return command


@pytest.mark.req("BJ-02")
async def test_two_runs_of_a_kind_never_overlap_and_a_killed_holder_frees_the_lock(
    terminal: Terminal, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    holder = await _start_waiting(terminal, tmp_path / "started")
    loser = await terminal("run", "cli.waits", "--timeout", "50ms", "--args", '{"started": "/dev/null"}')
    assert loser.code == 75
    holder.signal(signal.SIGKILL)
    await holder.ended()
    free = "select not exists (select from pg_locks where locktype = 'advisory')"
    await until(lambda: pool.fetchval(free))
    winner = await terminal("run", "cli.waits", "--timeout", "50ms", "--args", '{"started": "/dev/null"}')
    assert "no end within 0.05 s" in winner.err
    assert await pool.fetchval("select count(*) from jobs where state = 'running'") == 1, (
        "the dead run's, until rescued"
    )


async def test_a_run_told_to_stop_hands_its_row_back(terminal: Terminal, pool: asyncpg.Pool, tmp_path: Path) -> None:
    command = await _start_waiting(terminal, tmp_path / "started")
    command.signal(signal.SIGTERM)
    said = await command.ended()
    assert said.code == 1
    assert "handed back; its row is back in queue default" in said.err
    assert tuple(await pool.fetchrow("select state, attempt from jobs") or ()) == ("ready", 0)


async def test_a_run_whose_lock_is_lost_stops(terminal: Terminal, pool: asyncpg.Pool, tmp_path: Path) -> None:
    command = await _start_waiting(terminal, tmp_path / "started")
    await pool.execute("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
    said = await command.ended()
    assert said.code == 69
    assert "the connection that held the lock was lost" in said.err
    assert await pool.fetchval("select state from jobs") == "ready"


@pytest.mark.req("BJ-02")
async def test_a_handler_that_blocks_the_process_is_ended_with_it(terminal: Terminal, pool: asyncpg.Pool) -> None:
    program = (
        "import sys; import daemon.cli_run as command; from daemon.cli import main; command.OVERSTAY_S = 0.3\n"
        "sys.exit(main(['run', 'cli.blocks', '--timeout', '100ms']))"
    )
    said = await python("-c", program)
    assert said.code == 1
    assert "its handler did not end when its time was over" in said.err
    assert await pool.fetchval("select state from jobs") == "running", "until its lease has ended"
