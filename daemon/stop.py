"""A stop that was asked for, once or twice, and what is waited for meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

FORCED_S = 0.4
"""How long each step of a stop may still take once a second signal has come."""


class Stop:
    """Asked for once: end in good order.  Twice: at once."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._forced = asyncio.Event()

    def ask(self) -> None:
        """Once more is at once."""
        if self._asked.is_set():
            self._forced.set()
        self._asked.set()

    def begin(self) -> None:
        """Nobody asked, but something is broken: as if asked for once."""
        self._asked.set()

    async def wait(self) -> None:
        await self._asked.wait()

    async def unless_asked(self, task: asyncio.Task[Any], seconds: float | None = None) -> bool:
        """Wait for `task` until a stop is asked for, at most so long; whether it is done.  Else it is cancelled."""
        stop = asyncio.get_running_loop().create_task(self._asked.wait())
        await asyncio.wait({task, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            return False
        return True

    async def unless_forced(self, seconds: float, task: asyncio.Task[None], *, grace_s: float = FORCED_S) -> bool:
        """Wait for `task`, but once a second signal has come only a moment longer; whether it is done."""
        forced = asyncio.get_running_loop().create_task(self._forced.wait())
        await asyncio.wait({task, forced}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if forced.done() and not task.done() and grace_s > 0:
            await asyncio.wait({task}, timeout=min(seconds, grace_s))
        forced.cancel()
        return task.done()


async def within(seconds: float, what: Any) -> bool:
    """Whether `what` was over in time."""
    try:
        async with asyncio.timeout(seconds):
            await what
    except TimeoutError:
        return False
    return True
