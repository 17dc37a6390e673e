"""What `pip install .` gives: the command, with every statement and migration, and nothing of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from email.parser import HeaderParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import ZipFile

import pytest

import sql

HOUSE = Path(__file__).parent.parent.parent
PACKAGES = ("daemon", "jobs", "sql")
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
SETUPTOOLS_MIN = 77


def _pip(*arguments: str, folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr


def _isolation() -> list[str]:
    """Without an isolated environment the build needs no network; that takes a setuptools that is new enough here."""
    try:
        is_here = int(version("setuptools").partition(".")[0]) >= SETUPTOOLS_MIN
    except PackageNotFoundError:
        is_here = False
    return ["--no-build-isolation"] if is_here else []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves folders behind in the sources."""
    folder = tmp_path_factory.mktemp("package")
    for name in SOURCES:
        if (HOUSE / name).is_dir():
            shutil.copytree(HOUSE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(HOUSE / name, folder / name)
    _pip("wheel", ".", "--no-deps", *_isolation(), "--wheel-dir", "built", folder=folder)
    (built,) = (folder / "built").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("installed")
    _pip(
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        str(folder / "site"),
        str(wheel),
        folder=folder,
    )
    return folder / "site"


def _python(site: Path, *arguments: str) -> str:
    """What Python prints when the installed packages come before those of this checkout."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_wheel_has_every_module_and_statement_and_nothing_else(wheel: Path) -> None:
    found = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(HOUSE).as_posix()
        for package in PACKAGES
        for path in (HOUSE / package).rglob("*")
        if path.suffix in (".py", ".sql", ".toml") or path.name == "py.typed"
    }
    assert found == wanted


def test_the_wheel_says_what_it_needs_and_under_which_licence(wheel: Path) -> None:
    archive = ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    said = HeaderParser().parsestr(archive.read(metadata).decode())
    assert (said["Name"], said["Requires-Python"], said["License-Expression"]) == ("jobsd", ">=3.11", "MIT")
    assert any(name.endswith("/LICENSE") for name in archive.namelist())


def test_the_installed_statements_are_those_of_the_sources(site: Path) -> None:
    program = (
        "import sql, pathlib; print(pathlib.Path(sql.__file__).parent); print(len(sql.migrations()));"
        "print(*sorted(sql.load('queue.sql')))"
    )
    folder, migrations, statements = _python(site, "-c", program).splitlines()
    assert Path(folder) == site / "sql"
    assert int(migrations) == len(sql.migrations())
    assert statements.split() == sorted(sql.load("queue.sql"))


def test_the_installed_command_runs(site: Path) -> None:
    assert _python(site, str(site / "bin" / "jobsd"), "--version") == f"jobsd {version('jobsd')}\n"
