"""The process that renders templates of strangers: it has nothing but them, and the kernel ends what takes too long.

Run as `python -m jobs.template_worker`: it says `ready`, is asked on stdin and answers on stdout, in lengths and JSON.
Jinja's sandbox keeps a template from Python's insides; it does not bound time or memory, and inside the daemon nothing
could: a thread cannot be stopped, and one multiplication of large numbers never comes back to Python.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from types import FrameType
from typing import Any, BinaryIO, TypeVar

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

T = TypeVar("T")

COMPILE_S = 0.25
RENDER_S = 0.03
HARD_S = 0.015
"""CPU time for the one and the other.  Python is interrupted then; what does not come back to Python is killed by the
kernel HARD_S later."""

MEMORY = 512 * 1024 * 1024
_KEPT = 64
_FIRST = "{{ first | tojson }}{% for n in first %}{{ n }}{% endfor %}"
"""Rendered at the start: what Python and Jinja do only once is charged to nobody's template."""

_SHOWN = 200
_FILE = "<template>"


class TooLong(BaseException):
    """Out of time; no template can catch it."""


class TooLarge(Exception):
    """It wrote more than it may."""


class _Refused(Exception):
    """`args`: code, reason."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Without a loader there is nothing to include; the same data always renders to the same text."""

    def __init__(self, *, escape: bool) -> None:
        super().__init__(autoescape=escape, undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0)
        del self.filters["random"], self.globals["lipsum"]


_ENVIRONMENTS = {escape: Sandbox(escape=escape) for escape in (False, True)}


def main() -> None:
    """Answer until nobody asks any more."""
    with suppress(OSError, ValueError):  # a unit may forbid it; then its own limits hold
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the daemon, which closes our stdin
    signal.signal(signal.SIGVTALRM, _too_long)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    for escape in _ENVIRONMENTS:
        _rendered(_compiled(_FIRST, escape), {"first": [1]}, 100)
    _say(answers, ("", ["ready"], 0))
    while (question := _read(asked)) is not None:
        _say(answers, _answer(*json.loads(question)))


def _say(answers: BinaryIO, said: tuple[str, list[str], int]) -> None:
    answer = json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")
    answers.write(len(answer).to_bytes(4, "big") + answer)
    answers.flush()


def _read(asked: BinaryIO) -> bytes | None:
    head = asked.read(4)
    return asked.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def _answer(parts: list[tuple[str, bool]], data: dict[str, Any], size_max: int) -> tuple[str, list[str], int]:
    """("", what was rendered, 0) or (code, [reason], which part it was).  All parts have the time of one."""
    rendered: list[str] = []
    templates: list[Template] = []

    def render() -> None:
        for template in templates:
            rendered.append(_rendered(template, data, size_max))

    try:
        for text, escape in parts:
            templates.append(_timed(COMPILE_S, partial(_compiled, text, escape)))
        _timed(RENDER_S, render)
    except _Refused as refused:
        at = len(rendered) if len(templates) == len(parts) else len(templates)
        return refused.args[0], [refused.args[1]], at
    return "", rendered, 0


def _timed(seconds: float, work: Callable[[], T]) -> T:
    try:
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds + HARD_S)
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            return work()
        finally:
            _disarm()
    except TooLong:
        _disarm()  # it may have come in the middle of the other
        raise _Refused("template_timeout", f"the template takes more than {seconds * 1000:.0f} ms") from None
    except MemoryError:
        raise _Refused("template_too_large", "the template needs too much memory") from None
    except TooLarge as large:
        raise _Refused("template_too_large", str(large)) from None
    except Exception as error:  # whatever a stranger's template does, it is answered
        raise _Refused("template_error", _said(error)) from None


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.setitimer(signal.ITIMER_PROF, 0)


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TooLong


@lru_cache(maxsize=_KEPT)
def _compiled(text: str, escape: bool) -> Template:
    return _ENVIRONMENTS[escape].from_string(text)


def _rendered(template: Template, data: dict[str, Any], size_max: int) -> str:
    pieces, size = [], 0
    for piece in template.generate(data):
        pieces.append(piece)
        size += len(piece)
        if size > size_max:
            break
    rendered = "".join(pieces)
    if size > size_max or len(rendered.encode("utf-8", "surrogatepass")) > size_max:
        raise TooLarge(f"the template writes more than {size_max} bytes")
    return rendered


def _said(error: Exception) -> str:
    """What is wrong, and in which line; for the template's author."""
    if isinstance(error, TemplateSyntaxError):
        line: int | None = error.lineno
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
        line = lines[-1] if lines else None
    message = str(getattr(error, "message", None) or error) or type(error).__name__
    return (f"line {line}: " if line else "") + message[:_SHOWN]


if __name__ == "__main__":
    main()
