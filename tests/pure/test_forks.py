"""Whoever runs the tests in several processes misses no failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent.parent
CONFTEST = """
from tests.forks import Forks, add_option

def pytest_addoption(parser):
    add_option(parser)

def pytest_configure(config):
    if count := config.getoption("--forks"):
        config.pluginmanager.register(Forks(count))
"""
PASSES = "def test_{0}(tmp_path):\n    print('{0}')\n"
OTHERS = """
import os, pytest

def test_skipped():
    pytest.skip("no time")

def test_failed():
    print("last words")
    assert 1 + 1 == 3

@pytest.fixture(scope="session")
def shared():
    yield 7
    open({0!r}, "w").close()

def test_with_what_is_shared(shared):
    assert shared == 7
"""
DIES = "import os\n\ndef test_it():\n    os._exit(3)\n"


def run(folder: Path, *arguments: str, **files: str) -> tuple[int, str]:
    (folder / "conftest.py").write_text(CONFTEST)
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    unasked = [f"-pno:{name}" for name in ("hypothesispytest", "asyncio", "anyio", "cov", "xdist", "cacheprovider")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", *unasked, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_test_is_run_once_and_what_is_shared_ends_with_its_process(tmp_path: Path) -> None:
    sign = tmp_path / "ended"
    some = {name: PASSES.format(name) for name in ("a", "b", "c")}
    code, said = run(tmp_path, "--forks", "2", others=OTHERS.format(str(sign)), **some)
    assert code == pytest.ExitCode.TESTS_FAILED, said
    assert "1 failed, 4 passed, 1 skipped" in said
    assert "last words" in said
    assert "FAILED test_others.py::test_failed - assert (1 + 1) == 3" in said
    assert "no time" in said
    assert sign.exists()


def test_a_process_that_dies_is_no_success(tmp_path: Path) -> None:
    code, said = run(tmp_path, "--forks", "2", dies=DIES, a=PASSES.format("a"))
    assert code == pytest.ExitCode.INTERRUPTED, said
    assert "ended (3) in test_dies.py::test_it" in said
