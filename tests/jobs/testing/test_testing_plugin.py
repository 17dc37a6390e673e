"""The plugin in somebody's project: a folder with a test in it, and nothing said about jobsd."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import asyncpg

from daemon.embedded import Embedded

HOUSE = Path(__file__).parent.parent.parent.parent
GUIDE = HOUSE / "docs" / "testing.md"

TEST = """
import pytest
from jobs import Context, job

@job("greet")
async def greet(args: dict[str, str], ctx: Context) -> str:
    return f"hello {args['name']}"

@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["jo", "al", "bo", "cy"])
async def test_greeting(jobs_queue, name):
    await jobs_queue.enqueue("greet", {"name": name}, run_at="1d")
    assert (await jobs_queue.drain_all()).one().result == f"hello {name}"
    assert len(await jobs_queue.history()) == 1

@pytest.mark.asyncio
async def test_wrong(jobs_queue):
    await jobs_queue.assert_enqueued("greet")
"""


WITHOUT_PYTEST_ASYNCIO = """
import sys
import pytest

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == "pytest_asyncio":
            raise ImportError(name)

sys.meta_path.insert(0, NotInstalled())
sys.exit(pytest.main())
"""

DSN = """
import pytest

@pytest.fixture(scope="session")
def jobs_dsn():
    return {!r}
"""
"""For a project's conftest.py, where the server is not the point: one of its own takes longer than its tests."""

UNASKED = ("-p", "no:hypothesispytest", "-p", "no:cov")
"""Plugins that happen to be installed here, and take long to import."""

CALM = ("-p", "no:cacheprovider", "-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function", *UNASKED)


def _pytest(folder: Path, *arguments: str) -> str:
    return _run(folder, "-m", "pytest", *CALM, *arguments)


def _run(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "JOBSD_"))}
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return ended.stdout + ended.stderr


def test_a_fresh_project_needs_no_conftest(tmp_path: Path) -> None:
    """Nor do processes of it that run tests at the same time, each of which starts a server of its own."""
    (tmp_path / "test_greet.py").write_text(TEST)
    said = _pytest(tmp_path, "-W", "error", "-n", "2")
    assert re.search(r"\b1 failed, 4 passed\b", said), said
    assert "no waiting row of kind 'greet'; there are no rows at all" in said
    assert not [path for path in tmp_path.iterdir() if path.name not in ("test_greet.py", "__pycache__")]


def test_anyios_plugin_will_do(tmp_path: Path, embedded_server: Embedded) -> None:
    (tmp_path / "conftest.py").write_text(DSN.format(embedded_server.dsn()))
    (tmp_path / "test_greet.py").write_text(
        TEST.replace("pytest.mark.asyncio", "pytest.mark.anyio")
        + "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    (tmp_path / "run.py").write_text(WITHOUT_PYTEST_ASYNCIO)
    said = _run(tmp_path, "run.py", "-p", "no:asyncio", "-p", "no:cacheprovider", *UNASKED)
    assert re.search(r"\b1 failed, 4 passed\b", said), said


def test_a_run_that_does_not_ask_for_it_imports_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        textwrap.dedent("""
            import sys

            def test_nothing():
                ours = [n for n in sys.modules if n.split(".")[0] in ("jobs", "sql", "asyncpg", "msgspec", "httpx2")]
                assert ours == []
                assert [n for n in sys.modules if n.split(".")[0] == "daemon"] == ["daemon", "daemon.pytest_plugin"]
        """)
    )
    assert "1 passed" in _pytest(tmp_path, "-W", "error")


async def test_a_server_of_the_projects_own_is_left_as_it_was(tmp_path: Path, database: str) -> None:
    (tmp_path / "test_greet.py").write_text(TEST)
    (tmp_path / "conftest.py").write_text(DSN.format(database))
    said = _pytest(tmp_path, "-k", "greeting")
    assert "4 passed" in said, said
    conn = await asyncpg.connect(database)
    names = await conn.fetch("select datname from pg_database where datname like 'jobsd\\_te%'")
    await conn.close()
    assert names == []


def test_the_tests_of_the_guide_pass(tmp_path: Path, embedded_server: Embedded) -> None:
    blocks = re.findall(r"^```(?:python|sql|ini) file=(\S+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    for name, text in blocks:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with (tmp_path / "conftest.py").open("a") as file:
        file.write(DSN.format(embedded_server.dsn()))
    said = _pytest(tmp_path)
    wanted = sum(len(re.findall(r"^async def test_", text, re.MULTILINE)) for _name, text in blocks)
    assert wanted >= 8
    assert f"{wanted} passed" in said, said
