"""`jobsd sample`: what it prints, and when it does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import ROOT


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def test_each_command_says_what_it_did_and_a_dry_run_what_it_would_do(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    assert (await terminal("sample", "fill", "--size", 100)).err.endswith("run: jobsd sample install\n")
    assert (await terminal("sample", "drop", "--yes")).code == 1
    assert (await terminal.ok("sample", "install", "--json")).json["installed"]
    assert not (await terminal.ok("sample", "install", "--json")).json["installed"]

    planned = (await terminal.ok("sample", "fill", "--size", 1000, "--dry-run", "--json")).json
    assert await pool.fetchval("select count(*) from app.messages") == 0
    made = (await terminal.ok("sample", "fill", "--size", 1000, "--json")).json
    assert [row["table"] for row in made] == [row["table"] for row in planned]
    assert {"table": "app.messages", "rows": 200} in made
    assert await pool.fetchval("select count(*) from app.messages") == 200
    alone = await terminal.ok("sample", "fill", "--size", 30, "--only", "app.sessions", "--again")
    assert "app.sessions  " in alone.out
    assert await pool.fetchval("select count(*) from app.sessions") == 30

    assert (await terminal("sample", "drop")).code == 2  # nobody can answer
    assert (await terminal.ok("sample", "drop", "--dry-run", "--json")).json["size_bytes"] > 0
    assert (await terminal.ok("sample", "drop", "--yes", "--json")).json["dropped"]
    assert await pool.fetchval("select to_regnamespace('app')") is None


async def test_its_jobs_are_a_config_that_finds_its_tables(terminal: Terminal) -> None:
    terminal.configure((await terminal.ok("sample", "jobs")).out)
    said = await terminal("config", "check", "--database")
    assert said.code == 78
    assert "there is no table app.sessions" in said.err + said.out
    await terminal.ok("sample", "install")
    await terminal.ok("config", "check", "--database")


@pytest.mark.req("BJ-23")
async def test_its_jobs_stand_at_the_end_of_the_shipped_file_one_sign_a_line_from_being_on(terminal: Terminal) -> None:
    upkeep = (await terminal.ok("sample", "jobs")).out
    shipped = (ROOT / "config.toml").read_text()
    assert re.sub(r"^#(?=[^ \n])", "", shipped, flags=re.MULTILINE).endswith(upkeep)


async def test_a_migration_never_makes_it(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await terminal.ok("migrate")
    assert await pool.fetchval("select to_regnamespace('app')") is None
