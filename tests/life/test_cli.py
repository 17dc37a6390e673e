"""The command line as a whole: exit codes, help, and what goes where."""

from __future__ import annotations

import asyncio
import importlib
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import click
import pytest

from daemon import cli, cli_config
from daemon.cli_docs import PAGE, page
from daemon.embedded import Embedded
from tests.life.cli_terminal import ROOT, Terminal, opened, python
from tests.life.nursery import born
from tests.sql.plans import scratch

NO_SERVER = "postgresql:///shop?host=/nowhere"


@pytest.fixture(scope="module")
async def database(embedded_server: Embedded, template: str) -> AsyncIterator[str]:
    """One for all: what a command leaves behind is nothing to the next."""
    async with scratch(embedded_server, template, "cli"):
        yield embedded_server.dsn("cli")


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


# --- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.req("BJ-01")
@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        ("stats", 0, ""),
        ("enqueue cli.done", 0, ""),
        ("run cli.done", 0, "job_completed"),
        ("run cli.fails", 1, "it can never work"),
        ("run cli.retries", 1, "its row is back in queue default, due again in"),
        ("jobs show 999", 1, "no job 999"),
        ("jobs explain 999", 1, "no job 999"),
        ("jobs cancel 999 --yes", 1, "no job 999"),
        ("nonsense", 2, "No such command"),
        ("enqueue", 2, "Missing argument"),
        ("enqueue cli.done --args [1]", 2, "must be a JSON object"),
        ("enqueue cli.done --args {", 2, "is no JSON"),
        ("enqueue cli.done --run-at yesterday", 2, "is no time"),
        ("enqueue 1st", 2, "must hold: kind has known characters"),
        ("enqueue cli.done --queue a/b", 2, "must hold: queue has known characters"),
        ("enqueue cli.done --org a\x07b", 2, "must hold: org id has no control characters"),
        ("enqueue cli.done --run-at 9999-12-31T12:00Z", 2, "must hold: run at in 1970 to 9999"),
        ("run cli.dune", 2, "did you mean cli.done?"),
        ('run cli.typed --args {"a":"x"}', 2, "cli.typed cannot take them"),
        ("dead purge --all", 2, "say --yes"),
        ("dead retry", 2, "say which"),
        ("jobs cancel 1", 2, "say --yes"),
        ("jobs cancel --yes", 2, "say which"),
        ("jobs cancel 1 --queue a --yes", 2, "say which"),
        ("jobs postpone 1 --yes", 2, "say until when"),
        ("jobs postpone 1 --until +1h --for 1h --yes", 2, "either --until or --for"),
        ("jobs purge --all", 2, "say --yes"),
        ("undo 999", 1, "no operation 999"),
        ("schedules pause nightly", 1, "no schedule nightly"),
        ("schedules run nightly", 1, "no schedule nightly"),
        ("orgs list", 0, ""),
        ("queues pause a/b", 2, "a queue has letters"),
        ("config show -c /nowhere/config.toml", 78, "/nowhere/config.toml"),
    ],
)
async def test_the_exit_code_says_what_happened(terminal: Terminal, words: str, code: int, err: str) -> None:
    said = await terminal(*words.split(" "))
    assert said.code == code, said
    assert err in said.err


@pytest.mark.parametrize(
    "words", ["stats", "jobs list", "run cli.done", "enqueue cli.done", "migrate", "migrate --plan"]
)
async def test_a_database_that_is_away_is_69(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setenv("DATABASE_URL", NO_SERVER)
    said = await terminal(*words.split())
    assert said.code == 69
    assert said.err.startswith("jobsd: the database is unavailable")
    assert said.out == ""


async def test_a_database_that_does_not_exist_is_69(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, embedded_server: Embedded
) -> None:
    monkeypatch.setenv("DATABASE_URL", embedded_server.dsn("nobody_made_this"))
    assert (await terminal("stats")).code == 69


async def test_every_mistake_of_the_config_is_said_at_once_and_is_78(terminal: Terminal) -> None:
    terminal.configure('[daemon]\nlease = "soon"\nqueuse = []\n[wrong]\n')
    said = await terminal("stats")
    assert said.code == 78
    assert [f"config.toml:{line}" in said.err for line in (2, 3, 4)] == [True] * 3
    assert "did you mean" in said.err


async def test_a_module_that_cannot_be_imported_is_78(terminal: Terminal) -> None:
    terminal.configure('[daemon]\nhandlers = ["no_such_module"]\n')
    said = await terminal("run", "heartbeat")
    assert said.code == 78
    assert "no_such_module" in said.err


async def test_a_database_without_the_schema_is_78_and_says_what_to_do(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, embedded_server: Embedded
) -> None:
    monkeypatch.setenv("DATABASE_URL", embedded_server.dsn("postgres"))
    said = await terminal("stats")
    assert said.code == 78
    assert "jobsd migrate" in said.err


async def test_a_role_without_rights_is_78(terminal: Terminal, pool: asyncpg.Pool, database: str) -> None:
    await pool.execute("drop role if exists onlooker; create role onlooker login")
    try:
        os.environ["DATABASE_URL"] = database.replace("postgres@", "onlooker@")  # restored by the fixture
        said = await terminal("stats")
    finally:
        await pool.execute("drop role onlooker")
    assert said.code == 78
    assert "permission denied" in said.err


async def test_a_fault_of_our_own_is_70_and_shows_its_trace(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_config, "json_schema", lambda: 1 / 0)
    said = await terminal("config", "schema")
    assert said.code == 70
    assert "ZeroDivisionError" in said.err


@pytest.mark.req("BJ-02")
async def test_the_loser_of_the_lock_is_75(terminal: Terminal, pool: asyncpg.Pool) -> None:
    rows = "select count(*) from job_status"
    before = await pool.fetchval(rows)
    async with pool.acquire() as holder:
        await holder.execute("select pg_advisory_lock(hashtextextended('jobsd run public cli.done', 0))")
        said = await terminal("run", "cli.done")
        await holder.execute("select pg_advisory_unlock_all()")
    assert (said.code, said.out) == (75, "")
    assert "skipped: another run of cli.done holds the lock" in said.err
    assert await pool.fetchval(rows) == before


# --- the commands themselves ------------------------------------------------------------------------------------------


def test_help_imports_no_command() -> None:
    """Where no driver, parser or server is imported, nothing slow is."""
    program = (
        "import sys; from daemon.cli import main; code = main(['--help'])\n"
        "slow = {'asyncpg', 'aiohttp', 'msgspec', 'rich', 'asyncio', 'daemon.config'} & set(sys.modules)\n"
        "assert code == 0 and not slow, slow"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_help_says_of_each_command_what_the_command_says() -> None:
    for name, (where, doc) in cli.COMMANDS.items():
        module, _, attribute = where.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert (command.name, command.short_help) == (name, doc)


def _leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    ctx = click.Context(command)
    found = [(name, command.get_command(ctx, name)) for name in command.list_commands(ctx)]
    return [leaf for name, inner in found if inner for leaf in _leaves(inner, f"{path} {name}".strip())]


LEAVES = dict(_leaves(cli.cli, ""))


@pytest.mark.parametrize("path", sorted(LEAVES.keys() - {"demo"}))
def test_every_command_takes_a_config_file(path: str) -> None:
    assert any("-c" in param.opts for param in LEAVES[path].params)


READING = {
    "jobs list",
    "jobs show",
    "jobs explain",
    "dead list",
    "queues list",
    "kinds list",
    "orgs list",
    "schedules list",
    "stats",
    "doctor",
    "config check",
}
DESTROYING = {"jobs cancel", "jobs postpone", "jobs purge", "dead retry", "dead purge"}


@pytest.mark.parametrize("path", sorted(READING | {"config show", "config diff", "migrate", "run", "enqueue"}))
def test_what_prints_data_can_print_json(path: str) -> None:
    assert any("--json" in param.opts for param in LEAVES[path].params)


@pytest.mark.parametrize("path", sorted(DESTROYING))
def test_what_destroys_can_be_tried_dry_and_needs_a_yes(path: str) -> None:
    options = {option for param in LEAVES[path].params for option in param.opts}
    assert {"--dry-run", "--yes"} <= options


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == page(), "run: python -m daemon.cli_docs"


async def test_module_and_script_are_one(terminal: Terminal) -> None:
    """`python -m daemon` and `python -m jobs` end in the same function as `jobsd`."""
    first, second = await asyncio.gather(
        python("-m", "daemon", "jobs", "show", 999), python("-m", "jobs", "cli.done", "--args", '{"say": "it"}')
    )
    assert (first.code, second.code) == (1, 0), (first, second)
    assert second.json == {"said": "it"}


# --- what goes where --------------------------------------------------------------------------------------------------


async def test_standard_output_is_data_only(terminal: Terminal) -> None:
    said = await terminal.ok("run", "cli.done", "--args", '{"say": "hello"}')
    assert said.json == {"said": "hello"}
    assert "job_completed" in said.err
    assert (await terminal.ok("run", "cli.silent")).out == ""


async def test_a_reader_that_has_seen_enough_is_no_error(terminal: Terminal) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m daemon config env 2>err | true; cat err; rm err",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent)},
        cwd=terminal.file.parent,
    )
    assert (await ended_output(process)) == ""


async def ended_output(process: asyncio.subprocess.Process) -> str:
    out, _err = await process.communicate()
    return out.decode()


async def test_a_terminal_gets_a_table_and_colour_only_if_wanted(terminal: Terminal) -> None:
    words = ["queues", "list"]
    coloured, plain = await asyncio.gather(
        asyncio.to_thread(_on_a_terminal, words, {}), asyncio.to_thread(_on_a_terminal, words, {"NO_COLOR": "1"})
    )
    assert "\x1b[1mqueue" in coloured
    assert "\x1b" not in plain
    assert "notification" in plain


def _on_a_terminal(words: list[str], env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    terminal = Path(os.ttyname(theirs))
    child = born(words, {**inherited, "TERM": "xterm", **env}, ROOT, terminal, terminal)
    child.join()
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # a pty says so when its other end is closed
            break
    os.close(ours)
    return shown.decode()


async def test_what_a_stranger_wrote_cannot_drive_the_terminal(terminal: Terminal, pool: asyncpg.Pool) -> None:
    error = '{"code": "x", "message": "\\u001b[2J\\u009b31mgone"}'
    await pool.execute("insert into jobs (kind, last_error) values ('cli.done', $1)", error)
    said = await terminal.ok("jobs", "list")
    assert "\\u001b[2J\\u009b31mgone" in said.out
    assert not {"\x1b", "\x9b"} & set(said.out)


# --- small commands ---------------------------------------------------------------------------------------------------


async def test_the_plan_names_what_migrate_then_applies(
    terminal: Terminal, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBSD_DATABASE__SCHEMA", "another")
    planned = await terminal.ok("migrate", "--plan", "--json")
    assert not await pool.fetchval("select to_regnamespace('another') is not null")
    assert planned.json["pending"][0] == "0001_jobs"
    applied = await terminal.ok("migrate")
    assert applied.out.split() == planned.json["pending"]
    assert (await terminal.ok("migrate")).out == ""
    assert (await terminal.ok("migrate", "--plan", "--json")).json == {"pending": []}


async def test_an_embedded_database_needs_nobody_to_start_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, server_folder: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("JOBSD_DAEMON__STATE_DIR", str(server_folder / "cli"))
    added = await terminal.ok("enqueue", "cli.done")
    shown = await terminal.ok("jobs", "show", added.out.strip(), "--json")
    assert shown.json["kind"] == "cli.done"


async def test_serve_refuses_what_it_cannot_use(terminal: Terminal) -> None:
    terminal.configure("[daemon]\nlease = 5\n")
    assert (await terminal("serve")).code == 78


async def test_a_config_file_is_named_with_c(terminal: Terminal, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[queues.mine]\nconcurrency = 7\n")
    said = await terminal.ok("queues", "list", "-c", other, "--json")
    assert {"queue": "mine", "concurrency": 7}.items() <= next(r for r in said.json if r["queue"] == "mine").items()


async def test_config_check_says_all_and_tries_the_handlers(terminal: Terminal) -> None:
    said = await terminal.ok("config", "check")
    assert said.out == ""
    assert "config.toml: ok" in said.err
    terminal.configure('[daemon]\nhandlers = ["no_such_module"]\n')
    said = await terminal("config", "check", "--json")
    assert said.code == 78
    assert "no_such_module" in said.json["problems"][0]


async def test_config_show_reads_back_and_hides_secrets(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db/shop")
    said = await terminal.ok("config", "show")
    assert "hunter2" not in said.out
    origins = await terminal.ok("config", "show", "--origin", "--json")
    assert origins.json["database"]["dsn"]["origin"] == "env DATABASE_URL"


async def test_config_diff_says_what_a_reload_would(terminal: Terminal, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(terminal.file.read_text() + "[queues.default]\nconcurrency = 9\n")
    assert (await terminal.ok("config", "diff", other)).out == "queues.default.concurrency: 100 → 9\n"
    assert (await terminal.ok("config", "diff", terminal.file)).out == ""


async def test_config_schema_and_env_are_whole(terminal: Terminal) -> None:
    assert "database" in (await terminal.ok("config", "schema")).json["properties"]
    assert "#DATABASE_URL=" in (await terminal.ok("config", "env")).out
