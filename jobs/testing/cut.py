"""A handler's call that stops for ever in the middle, as it does when its process is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

_CLOSINGS = 100
_LEFT_S = 1.0


class Cut:
    """Awaits `call` up to its `at`-th pause, and no further; with `meanwhile`, awaited there, it goes on.

    A pause is a moment when the handler gives way to the event loop: while a statement or a request of its is under
    way.  A killed process runs no `finally`; here each gets as far as its first `await`, so that locks are let go of.
    """

    def __init__(
        self, call: Coroutine[Any, Any, Any], at: int, meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self._call = call
        self._left = at
        self._meanwhile = meanwhile
        self._others = asyncio.all_tasks()
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        step, value = self._call.send, None
        while True:
            try:
                pause = step(value)
            except StopIteration as end:
                return end.value
            self._left -= 1
            if self._left == 0:
                self.reached = True
                if self._meanwhile is None:
                    _let_go(pause)
                    return None
                yield from self._meanwhile().__await__()
            step, value = self._call.send, None
            try:
                yield pause
            except BaseException as thrown:  # the event loop's, a cancellation: the handler shall have it
                step, value = self._call.throw, thrown

    async def clear_away(self) -> None:
        """End what the handler had begun beside itself, and then the handler, whose connections are gone."""
        tasks = asyncio.all_tasks() - self._others - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            done, _stubborn = await asyncio.wait(tasks, timeout=_LEFT_S)
            _ = [task.cancelled() or task.exception() for task in done]
        for _ in range(_CLOSINGS):  # each `finally` that awaits takes one
            try:
                _let_go(self._call.throw(GeneratorExit))
            except BaseException:  # its end, whatever it says in it
                return


async def pauses(call: Awaitable[Any]) -> Any:
    """`call` as a coroutine, whatever kind of awaitable it is."""
    return await call


def _let_go(pause: Any) -> None:
    """What the handler waits for may fail now, and nobody is left to be told."""
    if isinstance(pause, asyncio.Future):
        pause.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
