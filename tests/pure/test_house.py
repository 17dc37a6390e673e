"""The house: what stands where, what it is built of, and that nothing in it speaks of a workplace."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent.parent

FOLDERS = ("daemon", "jobs", "sql", "systemd", "tests", "benchmarks", "docs", ".ci")
FILES = ("config.toml", "pyproject.toml", "Makefile", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE")
READ = {".py", ".sql", ".md", ".toml", ".sh", ".service", ".conf", ""}

# in brackets, so that these lines do not find themselves
ELSEWHERE = re.compile(
    r"/[w]ork/|/[h]ome/\w+|\.\./[s]hared|\b[D]ESIGN\.md|\b[S]TYLE\.md|\b[R]EQUIREMENTS\.md|[i]ndex-url|[a]rtifactory|"
    r"[T]ODO|[F]IXME|[X]XX\b"
)

DEPENDENCIES = {
    "asyncpg": "asyncpg",
    "apscheduler": "apscheduler",
    "aiosmtplib": "aiosmtplib",
    "httpx2": "httpx2",
    "orjson": "orjson",
    "prometheus-client": "prometheus_client",
}


def _texts() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in (HOUSE / folder).rglob("*"):
            if path.is_file() and path.suffix in READ and "__pycache__" not in path.parts:
                yield path
    yield from (HOUSE / name for name in FILES)


@pytest.mark.req("DC-03")
def test_everything_has_its_place() -> None:
    assert [name for name in FOLDERS if not (HOUSE / name).is_dir()] == []
    assert [name for name in FILES if not (HOUSE / name).is_file()] == []


@pytest.mark.req("DC-02")
def test_it_is_built_of_what_was_asked_for() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in project["dependencies"]}
    assert DEPENDENCIES.keys() - declared == set()
    assert any(line.startswith("pytest-asyncio") for line in project["optional-dependencies"]["dev"])
    assert set(DEPENDENCIES.values()) - set(_imported()) == set()


def _imported() -> Iterator[str]:
    for package in ("daemon", "jobs"):
        for path in (HOUSE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Import(names=names):
                        yield from (alias.name.partition(".")[0] for alias in names)
                    case ast.ImportFrom(module=str(module)):
                        yield module.partition(".")[0]


def test_every_module_is_on_the_map_and_nothing_else_is() -> None:
    page = (HOUSE / "ARCHITECTURE.md").read_text()
    lines = page.partition("## Map of modules")[2].partition("\n## ")[0].splitlines()
    rows = [line.split(" | ", 1) for line in lines if line.startswith("| ")]
    of = ""
    named: set[str] = set()
    for title, modules in rows:
        if title.startswith("| of "):
            of = title.split("`")[1]
            continue
        channel = re.match(r"\| `([\w/]+/)`", title)
        named |= {of + (channel[1] if channel else "") + name for name in re.findall(r"`(\w+)`", modules)}
    there = {path.relative_to(HOUSE).as_posix() for of in ("daemon", "jobs") for path in (HOUSE / of).rglob("*.py")}
    assert named == {path.removesuffix(".py") for path in there if not path.endswith("__init__.py")}


def test_no_file_speaks_of_a_workplace_or_of_what_is_still_to_be_done() -> None:
    found = [
        f"{path.relative_to(HOUSE)}:{number}: {line.strip()}"
        for path in _texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ELSEWHERE.search(line)
    ]
    assert found == []
