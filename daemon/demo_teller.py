"""What the demo's stories are told with: words, statements and commands that are run as they are shown, and waits."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from daemon.demo_screen import Screen

LOOK_S = 0.1

WIDTH = 79
"""Of what is told, on any terminal: longer lines are no easier to read."""

T = TypeVar("T")


class Amiss(Exception):
    """Something came otherwise than it is told; with what it was."""


class Tale(Protocol):
    """A part of what is told."""

    async def run(self) -> None:
        """Until its end, however long that takes."""


class Teller:
    """`env` is the file that makes a shell's `jobsd` mean this demo."""

    def __init__(self, screen: Screen, env: Path) -> None:
        self._screen = screen
        self._env = env
        self._awaited = ""

    async def tell(self, *tales: Tale, deadline_s: float) -> bool:
        """One after another; whether each came to its end in time.  The screen says where it did not."""
        try:
            for tale in tales:
                async with asyncio.timeout(deadline_s):
                    await tale.run()
        except TimeoutError:
            self._screen.say(f"this did not come in time: {self._awaited}", "bad")
            return False
        except Amiss as error:
            self._screen.say(str(error), "bad")
            return False
        return True

    def say(self, text: str, shown: str = "", *, wraps: bool = False) -> None:
        """`shown` is what the reader would type, or read, himself; `wraps`: it may be broken into lines."""
        self._screen.say("\n".join(textwrap.fill(line, WIDTH) for line in text.split("\n")), "told")
        if shown:
            lines = textwrap.wrap(shown, WIDTH - 2, break_on_hyphens=False) if wraps else shown.splitlines()
            self._screen.say("\n".join(f"  {line}" for line in lines), "quiet")

    async def seen(self, what: str, look: Callable[[], Awaitable[T]], true: Callable[[T], bool]) -> T:
        """What was seen when it was true first."""
        self._awaited = what
        while True:
            found = await look()
            if true(found):
                return found
            await asyncio.sleep(LOOK_S)

    async def jobsd(self, command: str) -> str:
        """What it prints, in a shell that has read `env`, as the reader would type it."""
        self._awaited = command
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", f". {shlex.quote(str(self._env))}\n{command}",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await shell.communicate()
        finally:
            if shell.returncode is None:
                shell.kill()
                await shell.wait()
        if shell.returncode:
            raise Amiss(f"{command}: {err.decode(errors='replace').strip()}")
        return out.decode()
