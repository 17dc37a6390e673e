"""Type commands of `jobsd` as people do: in this process, or in one of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import main
from daemon.log import Bridge
from tests.life.nursery import born

ROOT = Path(__file__).parent.parent.parent
_numbers = count()


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Terminal:
    """Runs commands against one database; `config` is the text of the settings' file."""

    file: Path
    read: Callable[[], Any]

    def configure(self, text: str) -> None:
        self.file.write_text(text)

    async def __call__(self, *words: object) -> Said:
        """In a thread, since a command has an event loop of its own."""
        self.read()
        code = await asyncio.to_thread(main, [str(word) for word in words])
        out, err = self.read()
        return Said(code, out, err)

    async def ok(self, *words: object) -> Said:
        said = await self(*words)
        assert said.code == 0, said
        return said

    def start(self, *words: object) -> Command:
        """In a process of its own, to be signalled or killed."""
        stem = f"command-{next(_numbers)}"
        out, err = (self.file.with_name(stem + suffix) for suffix in (".out", ".err"))
        return Command(born([str(word) for word in words], os.environ, ROOT, out, err), out, err)


@dataclass(frozen=True)
class Command:
    """One that runs."""

    process: ForkServerProcess
    out: Path
    err: Path

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    async def ended(self, timeout_s: float = 180.0) -> Said:
        await asyncio.to_thread(self.process.join, timeout_s)
        assert self.process.exitcode is not None, self.err.read_text()
        return Said(self.process.exitcode, self.out.read_text(), self.err.read_text())


async def python(*arguments: object, timeout_s: float = 180.0) -> Said:
    """A Python from its very start, which takes a second."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *map(str, arguments)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(timeout_s):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def until(happened: Callable[[], Awaitable[object]], timeout_s: float = 180.0) -> None:
    """Wait for what another process does without telling us."""
    async with asyncio.timeout(timeout_s):
        while not await happened():  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.01)


def opened(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    """For a fixture: commands of `jobsd` against the test's database, with settings and handlers of the test's own."""
    file = tmp_path / "config.toml"
    file.write_text('[daemon]\nhandlers = ["tests.life.cli_handlers"]\n')
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("JOBSD_CONFIG", str(file))
    monkeypatch.setenv("USER", "tester")
    monkeypatch.delenv("SUDO_USER", raising=False)
    yield Terminal(file, capfd.readouterr)
    logging.captureWarnings(False)
    for handler in [handler for handler in logging.root.handlers if isinstance(handler, Bridge)]:
        logging.root.removeHandler(handler)
