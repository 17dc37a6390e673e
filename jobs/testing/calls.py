"""The calls of handlers, watched, and spoiled where a test asks for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, assert_never

from jobs.context import Context
from jobs.many import Many, Row
from jobs.model import Outcome
from jobs.registry import Handler, Kind
from jobs.testing.cut import Cut, pauses

TIMES_MAX = 10_000
STANDSTILL_S = 0.25
"""How long a first call stands still for a second that does not end: then most likely it waits for the first."""

At = Literal["start", "end"] | int


@dataclass(frozen=True, slots=True)
class Fail:
    """The handler is not called; this is raised instead."""

    error: BaseException | type[BaseException]


@dataclass(frozen=True, slots=True)
class Crash:
    """The worker dies: before the call, in its n-th pause, or after it and before anything is written."""

    at: At


@dataclass(frozen=True, slots=True)
class Twice:
    """The handler is called two times for one row: one call after the other, or the second while the first stands still
    in its n-th pause."""

    at: int | None


Fault = Fail | Crash | Twice


@dataclass(slots=True)
class Call:
    """How one call went."""

    duration_s: float = 0.0
    error: BaseException | None = None


class Calls:
    """Stands between the engine and the handlers."""

    def __init__(self, cut_off: Callable[[], None]) -> None:
        self.die: Callable[[], None] = lambda: None
        """Set by the engine: this worker is no more."""
        self.reached = False
        """Whether the last pause that was asked for came before the handler's end."""
        self._cut_off = cut_off
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._made: dict[tuple[int, int], Call] = {}

    def spoil(self, kind: str, fault: Fault, times: int) -> None:
        """The next `times` calls of this kind's handler."""
        if not 1 <= times <= TIMES_MAX:
            raise ValueError(f"times: {times} is not between 1 and {TIMES_MAX}")
        self._faults[kind].extend([fault] * times)

    def unspoil(self) -> dict[str, int]:
        """Forget what was asked for; how much of it had not come yet, by kind."""
        left = {kind: len(faults) for kind, faults in self._faults.items() if faults}
        self._faults.clear()
        return left

    def taken(self, job_id: int, fence: int) -> Call:
        """How the call of this attempt went; asked for once."""
        return self._made.pop((job_id, fence), None) or Call()

    def watched(self, kind: Kind) -> Kind:
        """The kind with a handler that passes through here."""

        async def handler(args: Any, ctx: Context) -> Any:
            call, started = Call(), perf_counter()
            self._made[ctx.job.id, ctx.job.fence] = call
            try:
                return await self._call(kind, args, ctx)
            except BaseException as error:
                call.error = error
                raise
            finally:
                call.duration_s = perf_counter() - started

        if (spoilt := kind.many) is None:
            return replace(kind, handler=handler)

        async def many(rows: list[Row[Any]]) -> Any:
            calls, started = [Call() for _ in rows], perf_counter()
            self._made.update({(row.ctx.job.id, row.ctx.fence): call for row, call in zip(rows, calls, strict=True)})
            try:
                return await self._call(replace(kind, handler=_all_of(spoilt, rows)), None, rows[0].ctx)
            except BaseException as error:
                for call in calls:
                    call.error = error
                raise
            finally:
                for call in calls:
                    call.duration_s = perf_counter() - started

        return replace(kind, handler=handler, many=replace(spoilt, handler=many))

    async def _call(self, kind: Kind, args: Any, ctx: Context) -> Any:
        faults = self._faults[kind.name]
        fault = faults.popleft() if faults else None
        match fault:
            case None:
                return await kind.handler(args, ctx)
            case Fail(error):
                raise error
            case Crash(at):
                return await self._crash(kind.handler, args, ctx, at)
            case Twice(at):
                return await (
                    _again(kind.handler, args, ctx) if at is None else self._beside(kind.handler, args, ctx, at)
                )
            case _:
                assert_never(fault)

    async def _crash(self, handler: Handler, args: Any, ctx: Context, at: At) -> Any:
        self.reached = True
        cut: Cut | None = None
        if isinstance(at, int):
            cut = Cut(pauses(handler(args, ctx)), at)
            reply = await cut
            self.reached = cut.reached
            if not cut.reached:
                return reply
        elif at == "end":
            with suppress(Exception):  # whatever it came to is lost
                await handler(args, ctx)
        self.die()
        with suppress(asyncio.CancelledError):  # that was for this very task
            await asyncio.sleep(0)
        if cut is not None:
            self._cut_off()
            await cut.clear_away()
        raise asyncio.CancelledError

    async def _beside(self, handler: Handler, args: Any, ctx: Context, at: int) -> Any:
        """What the second call comes to.  It need not end while the first stands still: it may wait for its locks."""
        async with asyncio.TaskGroup() as group:
            second: list[asyncio.Task[Any]] = []

            async def meanwhile() -> None:
                second.append(group.create_task(_settled(handler(args, ctx))))
                await asyncio.wait(second, timeout=STANDSTILL_S)

            first = Cut(pauses(handler(args, _earlier(ctx))), at, meanwhile)
            await _settled(pauses(first))
            self.reached = first.reached
        reply = second[0].result() if second else await _settled(handler(args, ctx))
        if isinstance(reply, Exception):
            raise reply
        return reply


def _all_of(many: Many, rows: list[Row[Any]]) -> Handler:
    """A call with all of these rows; with an older fence each, when it is called for one that has lost its row."""

    async def handler(_args: Any, ctx: Context) -> Any:
        earlier = ctx is not rows[0].ctx
        return await many.handler([Row(row.args, _earlier(row.ctx)) for row in rows] if earlier else rows)

    return handler


async def _again(handler: Handler, args: Any, ctx: Context) -> Any:
    await _settled(handler(args, _earlier(ctx)))  # what the first call came to is what got lost
    return await handler(args, ctx)


async def _settled(call: Awaitable[Any]) -> Any:
    """What it returns or raises."""
    try:
        return await call
    except Exception as error:  # a handler may raise anything
        return error


def _earlier(ctx: Context) -> Context:
    """What a worker holds that has lost this row and does not know it: an older fence, and nobody who listens."""
    return Context(replace(ctx.job, fence=ctx.job.fence - 1), ctx.tools, ctx.log, ctx.progress)


def is_fault(error: BaseException | None) -> bool:
    """Whether a handler raised what it did not mean to."""
    return error is not None and not isinstance(error, (Outcome, asyncio.CancelledError))
