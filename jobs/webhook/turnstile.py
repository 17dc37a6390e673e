"""Lets a few pass in each turn of the event loop, so that many who come at once do not hold up everybody else."""

from __future__ import annotations

import asyncio
from collections import deque


class Turnstile:
    """First come, first served: `most` in a turn.  Nobody who has passed is waited for: one that takes long, or never
    comes to an end, keeps nobody from passing."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._passed = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        if self._passed == 0:
            self._loop.call_soon(self._turned)
        if self._passed < self._most:
            self._passed += 1
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _turned(self) -> None:
        """The loop has come round: the next ones."""
        self._passed = 0
        while self._waiting and self._passed < self._most:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else it has given up
                waiter.set_result(None)
                self._passed += 1
        if self._passed:
            self._loop.call_soon(self._turned)
