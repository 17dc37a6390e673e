"""Type commands of `jobsd` as people do: in this process, or in one of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import main
from daemon.log import Bridge

ROOT = Path(__file__).parent.parent.parent


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

    async def start(self, *words: object, module: str = "daemon") -> asyncio.subprocess.Process:
        """A process of its own, with pipes to read from."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", module, *map(str, words)),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


async def ended(process: asyncio.subprocess.Process, timeout_s: float = 180.0) -> Said:
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
