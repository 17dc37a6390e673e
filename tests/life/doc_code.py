"""The code of a page, run as a reader would run it: in order, in one folder, against one database."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType

import asyncpg

from daemon.config import parse
from daemon.handlers import load_kinds
from jobs.registry import KINDS
from tests.life.nursery import born

HOUSE = Path(__file__).parent.parent.parent
DSN = "postgresql:///shop"
"""What the pages call the reader's database."""

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REFUSED = re.compile(r"(.+?);\n-- ERROR: +([^\n]+)\n", re.DOTALL)
_INSERT = re.compile(r"""(["'`])(insert into .*?)\1""", re.DOTALL | re.IGNORECASE)
_PROGRAMS = {"js", "ruby", "go"}
_COMMAND_S = 180.0
_await = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, what else the fence says, and where it stands (`docs/page.md:12`)."""

    language: str
    info: str
    text: str
    place: str

    @property
    def file(self) -> str | None:
        """Where the reader is told to save it: `file=shop/handlers.py`."""
        match = re.search(r"\bfile=(\S+)", self.info)
        return match[1] if match else None

    @property
    def excuse(self) -> str | None:
        """Why it is not run: what follows `noexec`."""
        return self.info.partition("noexec")[2].strip() if "noexec" in self.info else None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in _FENCE.finditer(text):
        language, _, info = match[1].partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        name = page.relative_to(HOUSE) if page.is_relative_to(HOUSE) else page.name
        yield Block(language, info, match[2], f"{name}:{line}")


class Reader:
    """Does what a page says.  AssertionError names the block that does not do what it should.

    The SQL of a page is one session; its Python is one module; what a block is to be saved as lies in `folder`.
    """

    def __init__(self, dsn: str, conn: asyncpg.Connection, folder: Path, module: ModuleType) -> None:
        self._dsn = dsn
        self._conn = conn
        self._folder = folder
        self._module = module

    async def follow(self, page: Path) -> None:
        load_kinds((), ("*",))  # those of the house stay, also where a page is the first to ask for them
        before = dict(KINDS)
        try:
            for block in blocks(page):
                await self._do(block)
        finally:
            KINDS.clear()
            KINDS.update(before)

    async def _do(self, block: Block) -> None:
        if block.excuse is not None:
            assert block.excuse, f"{block.place}: say after `noexec` why it is not run"
            await self._prepare(block)
            return
        if block.file is not None:
            path = self._folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        try:
            match block.language:
                case "sql" if block.info == "fails":
                    await self._is_refused(block)
                case "sql":
                    await self._conn.execute(block.text)
                case "python":
                    await self._python(block)
                case "toml":
                    parse(block.text, name=block.place)
                case "sh":
                    await asyncio.to_thread(self._sh, block)
                case "json" | "text" | "promql" | "yaml" | "ini":
                    pass  # looked at by tests of their own, or for the eye
                case language if language in _PROGRAMS:
                    await self._prepare(block)
                case language:
                    raise AssertionError(f"{language!r} is no language that can be checked here")
        except Exception as error:
            raise AssertionError(f"{block.place}: {error}") from error

    async def _is_refused(self, block: Block) -> None:
        """Each statement is refused with the words that the page shows below it."""
        pairs = _REFUSED.findall(block.text)
        assert "".join(f"{statement};\n-- ERROR:  {says}\n" for statement, says in pairs) == block.text
        for statement, says in pairs:
            said = await self._refusal(statement)
            assert said == says, f"the database says: {said}"

    async def _refusal(self, statement: str) -> str | None:
        try:
            await self._conn.execute(statement)
        except asyncpg.PostgresError as error:
            return error.as_dict()["message"]
        return None

    async def _python(self, block: Block) -> None:
        """Runs it, with `await` at the top as in `python -m asyncio`; tests in it are called as pytest would.  One that
        was to be saved is imported."""
        if block.file is not None:
            importlib.import_module(block.file.removesuffix(".py").replace("/", "."))
            return
        code = compile(block.text.replace(DSN, self._dsn), block.place, "exec", flags=_await)
        await self._run(code)
        for name in re.findall(r"^async def (test_\w+)\(\)", block.text, re.MULTILINE):
            await getattr(self._module, name)()

    async def _run(self, code: CodeType) -> None:
        waiting = eval(code, vars(self._module))
        if inspect.isawaitable(waiting):
            await waiting

    def _sh(self, block: Block) -> None:
        for command in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(command, comments=True)
            if not words:
                continue
            assert words[0] == "jobsd", f"{words[0]!r} is not run here; say `noexec` and why"
            self._jobsd(words[1:])

    def _jobsd(self, arguments: list[str]) -> None:
        """The command, in a process of its own, in the reader's folder; it must end with 0."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBSD_")}
        environment |= {"DATABASE_URL": self._dsn, "JOBSD_ADMIN__LISTEN": ""}
        out, err = self._folder / "out", self._folder / "err"
        err.write_text("")
        child = born(arguments, environment, self._folder, out, err)
        child.join(_COMMAND_S)
        if child.exitcode is None:
            child.kill()
        assert child.exitcode == 0, f"jobsd {shlex.join(arguments)}: exit {child.exitcode}\n{err.read_text()}"

    async def _prepare(self, block: Block) -> None:
        """Another language is not run, but the statements in it are ones that Postgres understands."""
        for _quote, statement in _INSERT.findall(block.text):
            await self._conn.prepare(_numbered(statement))


def _numbered(statement: str) -> str:
    """Its places as Postgres writes them: $1, $2 for each %s."""
    numbers = count(1)
    return re.sub(r"%s", lambda _: f"${next(numbers)}", statement)
