"""What README and docs say is so: their code runs, the names in them exist."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import click
import pytest

from daemon.cli import cli
from daemon.config import parse
from daemon.events import EVENTS
from daemon.handlers import load_kinds
from daemon.manifest import manifest
from daemon.metrics import LABELS, Metrics
from tests.life.doc_code import HOUSE, Reader, blocks

MADE_FROM_CODE = {"config.md", "logs.md", "metrics.md", "cli.md"}
PAGES = [HOUSE / "README.md", *(p for p in sorted((HOUSE / "docs").glob("*.md")) if p.name not in MADE_FROM_CODE)]
PRODUCERS = HOUSE / "docs" / "producers.md"
ALL_PAGES = [*PAGES, HOUSE / "ARCHITECTURE.md", HOUSE / "systemd" / "README.md"]


def _named(page: Path) -> str:
    return page.relative_to(HOUSE).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=_named)
every_page = pytest.mark.parametrize("page", ALL_PAGES, ids=_named)


@each_page
async def test_the_code_of_a_page_runs(page: Path, reader: Reader) -> None:
    await reader.follow(page)


@pytest.mark.parametrize(
    ("fence", "code"),
    [
        ("sql", "insert into jobs (kindd) values ('heartbeat');"),
        ("sql fails", "insert into jobs (kind) values ('heartbeat');\n-- ERROR:  it is late"),
        ("sql fails", "insert into jobs (kind, priority) values ('heartbeat', 9);\n-- ERROR:  other words"),
        ("sql fails", "insert into jobs (kind, priority) values ('heartbeat', 9);"),
        ("python", "assert await answer() == 42"),
        ("python", "async def test_it() -> None:\n    raise ValueError"),
        ("python file=shop/broken.py", "import nothing_of_this_name"),
        ("toml", "[daemon]\nleese = '30s'"),
        ("sh", "jobsd jobs show 404"),
        ("sh", "rm -r somewhere"),
        ("sh noexec", "systemctl start jobsd"),
        ("js", "client.query(`insert into jobs (kinds) values ($1)`)"),
        ("cobol", "STOP RUN."),
    ],
)
async def test_code_that_does_not_do_what_it_should_is_found(
    fence: str, code: str, reader: Reader, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n```{fence}\n{code}\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3"):
        await reader.follow(page)


@each_page
def test_every_metric_that_is_named_is_exposed(page: Path) -> None:
    exposed = {spec.name for spec in Metrics().specs}
    exposed |= {f"{s.name}_{part}" for s in Metrics().specs for part in ("bucket", "sum", "count")}
    named = set(re.findall(r"\bjobsd_[a-z_]+", page.read_text()))
    assert named - exposed - manifest().roles.keys() == set()


@each_page
def test_queries_go_by_labels_that_metrics_have(page: Path) -> None:
    queries = [block.text for block in blocks(page) if block.language == "promql"]
    found = re.findall(r"by \(([\w, ]+)\)|\{([^}]+)\}", "\n".join(queries))
    named = {
        label for by, where in found for label in re.findall(r"\w+(?=[,=!]|$)", by or re.sub('"[^"]*"', "", where))
    }
    assert named - {*LABELS, "le", "instance"} == set()


@each_page
def test_every_key_of_the_configuration_that_is_named_exists(page: Path) -> None:
    known = {*parse("").origins, "email.from", "database.dsn_file"}
    sections = "|".join({key.partition(".")[0] for key in known if "." in key})
    named = re.findall(rf"`((?:{sections})\.[a-z_]+)`", page.read_text())
    assert [key for key in named if key not in known] == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not _is_there(page, link)] == []


def _is_there(page: Path, link: str) -> bool:
    """The file, and the heading in it."""
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or anchor in _anchors(target.read_text()))


def _anchors(text: str) -> set[str]:
    """What headings are called in links: small letters and hyphens."""
    return {
        re.sub(r"[^\w-]", "", line.lower().replace(" ", "-")) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


@every_page
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", page.read_text())
    assert [path for path in named if not (HOUSE / path).exists()] == []


@every_page
def test_commands_that_a_page_names_exist(page: Path) -> None:
    if page.name == "requirements.md":
        return  # it names those to come
    named = re.findall(r"`jobsd\s+([a-z][^`]*)`", page.read_text())
    assert [words for words in named if not _is_command(words.split())] == []


def test_a_command_that_is_not_there_is_found() -> None:
    assert _is_command(["jobs", "explain", "ID"])
    assert not _is_command(["jobs", "explode"])
    assert not _is_command(["stats", "--jsonn"])


def _is_command(words: list[str]) -> bool:
    """Whether `jobsd` has it, with these options."""
    command: click.Command | None = cli
    for word in words:
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), word)
        elif command is None or (word.startswith("-") and word not in _options(command)):
            return False
    return command is not None


def _options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_the_runbook_has_an_entry_for_each_warning_and_error() -> None:
    entries = re.findall(r"^### `(\w+)`", (HOUSE / "docs" / "runbook.md").read_text(), re.MULTILINE)
    alarming = {event.name for event in EVENTS.values() if event.level in ("warning", "error")}
    assert sorted(entries) == sorted(alarming)


def test_each_entry_of_the_runbook_says_what_to_check_and_what_to_do() -> None:
    _head, *entries = re.split(r"^### ", (HOUSE / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)
    assert [entry for entry in entries if not re.search(r"\*\*Check\*\*.*\*\*[Ff]ix\*\*", entry, re.DOTALL)] == []


async def test_producers_are_told_of_every_column(pool: asyncpg.Pool) -> None:
    section = PRODUCERS.read_text().partition("## The columns\n")[2].partition("\n## ")[0]
    told = [name for line in section.splitlines() for name in re.findall(r"`(\w+)`", _first_cell(line))]
    rows = await pool.fetch(
        "select attname from pg_attribute where attrelid = 'jobs'::regclass and attnum > 0 and not attisdropped"
    )
    assert sorted(told) == sorted({row[0] for row in rows} - {"id"})


def test_args_that_are_shown_are_args_of_their_kind() -> None:
    shown = re.findall(r"^### `(\w+)`\n\n```json\n(.*?)```", PRODUCERS.read_text(), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _args in shown] == ["webhook", "email", "push", "sms", "dns_check", "domain_check"]
    kinds = load_kinds((), ("*",))
    for kind, args in shown:
        kinds[kind].decode(args)


def _first_cell(line: str) -> str:
    """Of a table's line; of the sentence below it, what stands in brackets."""
    return line.split("|")[1] if line.startswith("|") else "".join(re.findall(r"\(([^)]*)", line))


@each_page
def test_blocks_say_what_they_are(page: Path) -> None:
    assert [block.place for block in blocks(page) if not block.language] == []
