"""Templates of strangers, rendered in a process of their own: bounded in time, memory and size."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

import msgspec

WORKERS = 2
TEXT_MAX = 64 * 1024
DATA_MAX = 1024 * 1024
_LOST_S = 5.0  # by the clock: the worker's own limits count CPU time, so this is for a machine that stands still
_START_S = 30.0
"""A worker's start takes 0.2 s; where a machine has other work for that long, no template is to blame."""

_Answer = tuple[str, list[str], int]  # what was rendered; or code, reason, and which part it was
_FATAL = {-signal.SIGPROF, -signal.SIGVTALRM, -signal.SIGSEGV}


class BadTemplate(ValueError):
    """It cannot be rendered, now or later.  `code`: template_error, template_timeout or template_too_large; the text is
    for the template's author.  `part`: which of several texts it was, counted from 0."""

    def __init__(self, code: str, reason: str, part: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.part = part


class TemplatesAway(Exception):
    """No worker could be had: our trouble, not the template's."""


class Templates:
    """Starts a worker when it is first asked, and a second one when both are needed; an idle one costs its memory only.

    A worker whose template did not come back to Python is dead, and the next one is started in its place.
    """

    def __init__(self) -> None:
        self._idle: list[Process] = []
        self._places = asyncio.Semaphore(WORKERS)

    async def render(self, text: str, data: bytes, *, escape: bool = False, size_max: int = DATA_MAX) -> str:
        """`text` with the members of the JSON object `data` as its variables; `escape`: for HTML.  BadTemplate,
        TemplatesAway.  An undefined variable is an error, not an empty text."""
        [rendered] = await self.render_all([(text, escape)], data, size_max=size_max)
        return rendered

    async def render_all(
        self, parts: Sequence[tuple[str, bool]], data: bytes, *, size_max: int = DATA_MAX
    ) -> list[str]:
        """Several texts, each with whether it is escaped, as `render` does it; they share one time limit."""
        for n, (text, _escape) in enumerate(parts):
            if len(text) > TEXT_MAX:
                raise BadTemplate("template_too_large", f"the template is longer than {TEXT_MAX} characters", n)
        if len(data) > DATA_MAX:
            raise BadTemplate("template_too_large", f"the template's data is more than {DATA_MAX} bytes")
        question = b"[%s,%s,%d]" % (msgspec.json.encode(parts), data, size_max)
        async with self._places:
            code, answer, part = await self._ask(question)
        if code:
            raise BadTemplate(code, answer[0], part)
        return answer

    async def close(self) -> None:
        for worker in self._idle:
            await _end(worker)
        self._idle.clear()

    async def _ask(self, question: bytes) -> _Answer:
        try:
            worker = self._idle.pop() if self._idle else await _start()
        except (OSError, asyncio.IncompleteReadError) as error:
            raise TemplatesAway from error
        answered = False
        try:
            async with asyncio.timeout(_LOST_S):
                reply = await _exchange(worker, question)
            answered = True
        except (asyncio.IncompleteReadError, ConnectionError):
            reply = await _last_words(worker)
        except TimeoutError:
            raise TemplatesAway from None
        finally:
            if answered:
                self._idle.append(worker)
            else:
                await _end(worker)
        return reply


async def _start() -> Process:
    """With our packages and nothing else of ours: no secret is in its environment."""
    paths = os.pathsep.join(path for path in sys.path if os.path.isabs(path))
    command = (sys.executable, "-P", "-m", "jobs.template_worker")
    worker = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={"PYTHONPATH": paths}, cwd="/"
    )
    try:
        async with asyncio.timeout(_START_S):
            await _answer(worker)  # it is ready
    except BaseException:
        await _end(worker)
        raise
    return worker


async def _exchange(worker: Process, question: bytes) -> _Answer:
    asked = worker.stdin
    assert asked is not None  # noqa: S101  it is a pipe
    asked.write(len(question).to_bytes(4, "big") + question)
    await asked.drain()
    return await _answer(worker)


async def _answer(worker: Process) -> _Answer:
    answers = worker.stdout
    assert answers is not None  # noqa: S101  it is a pipe
    size = int.from_bytes(await answers.readexactly(4), "big")
    answer: _Answer = msgspec.json.decode(await answers.readexactly(size), type=_Answer)
    return answer


async def _last_words(worker: Process) -> _Answer:
    """What a worker died of that did not answer."""
    if await worker.wait() in _FATAL:
        return "template_timeout", ["the template takes too long, in one step"], 0
    raise TemplatesAway


async def _end(worker: Process) -> None:
    with suppress(ProcessLookupError):
        worker.kill()
    await worker.wait()
