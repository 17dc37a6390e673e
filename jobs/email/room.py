"""Memory that messages share: whoever needs more than is left waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """In order of coming; one that is larger than the whole room has it for itself."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self, size: int) -> AsyncIterator[None]:
        needed = min(size, self._size)
        await self._take(needed)
        try:
            yield
        finally:
            self._left += needed
            self._wake()

    async def _take(self, needed: int) -> None:
        if not self._waiting and needed <= self._left:
            self._left -= needed
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((needed, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given, and nobody takes it
                self._left += needed
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._left):
            needed, turn = self._waiting.popleft()
            if not turn.done():
                self._left -= needed
                turn.set_result(None)
