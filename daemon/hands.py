"""Tasks for attempts: one runs row after row, as long as none of them waits for anything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from sys import getrefcount
from typing import Any, cast
from weakref import getweakrefcount

from daemon.attempt import Running

BEGIN_A_TURN = 20
"""Rows that wait begin so many in a turn of the loop: a claim of 250 whose handlers all begin at once, a connection
each, would hold up everything else for a tenth of a second."""


class Hand(asyncio.Task[None]):
    """A task that can tell whether a handler did anything to it that would outlast its row."""

    touched = False
    running: Running | None = None
    """What it is at."""

    def cancel(self, msg: Any | None = None) -> bool:
        self.touched = True
        return super().cancel(msg)

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        self.touched = True
        super().add_done_callback(fn, context=context)

    def set_name(self, value: object, /) -> None:
        self.touched = True
        super().set_name(value)


class Hands:
    """Gives rows to tasks.  A task for each was a sixth of what the daemon does for a row that waits for nothing.

    A task whose row waits stays with that row alone, and another goes on with the others: a handler's current task, its
    cancellation and its context variables are its own, as if no other had run before it.
    """

    def __init__(self, attempt: Callable[[Running], Awaitable[None]]) -> None:
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._blank = copy_context()
        self._rows: deque[Running] = deque()
        self._called = False  # a hand is on its way to the rows
        self._lead: Hand | None = None  # the one that runs in this turn of the loop
        self._slow: set[str] = set()  # kinds whose last row waited: theirs begin at once, each in a task of its own
        self._apart: deque[Running] = deque()  # those of them that begin in a later turn
        self._begun = 0  # in this turn

    def take(self, running: Running, *, waits: bool = False) -> None:
        """Begin with it in the next turn of the loop; `waits`: as is known already."""
        if waits or running.job.kind in self._slow:
            self._begin(running)
            return
        self._rows.append(running)
        if self._lead is None and not self._called:
            self._call()

    def _begin(self, running: Running) -> None:
        """In a task of its own."""
        if self._begun >= BEGIN_A_TURN:
            self._apart.append(running)
            return
        if not self._begun:
            self._loop.call_soon(self._next)
        self._begun += 1
        self._start(self._serve(running))

    def _next(self) -> None:
        self._begun = 0
        for _ in range(min(BEGIN_A_TURN, len(self._apart))):
            self._begin(self._apart.popleft())

    def _call(self) -> None:
        self._called = True
        self._start(self._serve_rows())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        Hand(work, loop=self._loop, name="attempt", context=self._blank.copy())  # owned by its row, as running.task

    async def _serve_rows(self) -> None:
        self._called = False
        if self._rows:
            await self._serve(self._rows.popleft())

    async def _serve(self, running: Running) -> None:
        hand = self._lead = _this_hand()
        self._loop.call_soon(self._turned, hand)
        rows, attempt = self._rows, self._attempt
        owners, watchers = getrefcount(hand), getweakrefcount(hand)
        while True:
            if not running.settled:  # else it was stopped before its first step
                hand.running, running.task = running, hand
                await attempt(running)
                hand.running = running.task = None
                if self._lead is not hand:  # it has waited
                    return
                if self._slow:
                    self._slow.discard(running.job.kind)
                if hand.touched or getrefcount(hand) != owners or getweakrefcount(hand) != watchers or self._marked():
                    return  # somebody may still mean this task, or has set variables of its
            if not rows:
                return
            running = rows.popleft()

    def _turned(self, hand: Hand) -> None:
        """The loop has come round: the row that it was at waits, or it has ended."""
        self._lead = None
        if hand.running is not None:
            self._slow.add(hand.running.job.kind)
            while self._rows:  # most likely they will wait too, and should not have to begin one a turn
                self._begin(self._rows.popleft())
        if self._rows and not self._called:
            self._call()

    def _marked(self) -> bool:
        """Are the context's variables others than before the first row?"""
        now, blank = copy_context(), self._blank
        return len(now) != len(blank) or (len(now) > 0 and any(now.get(name) is not blank[name] for name in blank))


def _this_hand() -> Hand:
    return cast(Hand, asyncio.current_task())
