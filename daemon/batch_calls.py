"""Calls of handlers that take many rows, filled from the rows that run; each keeps its slot, its time and its end."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

from daemon.replies import CANCELLED_INSIDE, failed, meant
from jobs.many import Many, Row, replies
from jobs.model import Outcome

Said = tuple[Outcome, str | None]
"""What was said of a row, and the trace of what was raised."""


class _Call:
    """Rows that are, or will be, in one call."""

    def __init__(self, many: Many) -> None:
        self.many = many
        self.waiting: dict[asyncio.Future[Said], tuple[Row[Any], Callable[[], None]]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None


class BatchCalls:
    """Puts rows into calls, by handler and queue."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: dict[tuple[Many, str], _Call] = {}

    async def join(
        self, many: Many, queue: str, row: Row[Any], on_begin: Callable[[], None], *, alone: bool = False
    ) -> Said:
        """Wait for others, be called, and return what was said of this row.  Cancelled, the row leaves the call; the
        call is cancelled when its last row leaves, which then waits until the handler has ended."""
        call = _Call(many) if alone else self._with_room(many, queue)
        said: asyncio.Future[Said] = self._loop.create_future()
        call.waiting[said] = (row, on_begin)
        if alone or len(call.waiting) >= many.most:
            self._begin(call, queue)
        try:
            return await said
        except asyncio.CancelledError:
            call.waiting.pop(said, None)
            await asyncio.sleep(0)  # those that were told to stop with it leave in this turn of the loop
            if not call.waiting:
                await self._end(call, queue)
            raise

    def _with_room(self, many: Many, queue: str) -> _Call:
        call = self._open.get((many, queue))
        if call is None:
            call = self._open[many, queue] = _Call(many)
            call.timer = self._loop.call_later(many.linger_s, self._begin, call, queue)
        return call

    def _shut(self, call: _Call, queue: str) -> None:
        """Nobody joins it any more."""
        if call.timer is not None:
            call.timer.cancel()
        if self._open.get((call.many, queue)) is call:
            del self._open[call.many, queue]

    def _begin(self, call: _Call, queue: str) -> None:
        self._shut(call, queue)
        if call.waiting:
            call.task = self._loop.create_task(self._run(call))  # owned by the rows that wait for it

    async def _end(self, call: _Call, queue: str) -> None:
        self._shut(call, queue)
        if call.task is not None and not call.task.done():
            call.task.cancel()
            await asyncio.wait({call.task})

    async def _run(self, call: _Call) -> None:
        entries = list(call.waiting.items())
        rows = [row for _said, (row, _begin) in entries]
        for _said, (_row, begin) in entries:
            begin()
        for (said, _entry), answer in zip(entries, await _answers(call.many, rows), strict=True):
            if not said.done():
                said.set_result(answer)


async def _answers(many: Many, rows: list[Row[Any]]) -> list[Said]:
    """What is said of each row; what the handler raises is said of all."""
    try:
        reply = await many.handler(list(rows))
    except Outcome as said:
        return [(said, None)] * len(rows)
    except asyncio.CancelledError:  # if by us, there is nobody left who would hear it
        return [(CANCELLED_INSIDE, None)] * len(rows)
    except (Exception, SystemExit) as error:  # a handler may raise anything; the daemon must not
        return [(failed(error), traceback.format_exc())] * len(rows)
    return [(meant(said), None) for said in replies(rows, reply)]
