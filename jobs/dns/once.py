"""A value that several want at the same time is made once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """By key.  If its maker fails or is cancelled, the next one who wants it makes it."""

    def __init__(self) -> None:
        self._made: dict[str, asyncio.Future[T]] = {}

    async def get(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        while (made := self._made.get(key)) is not None:
            if made.done():
                return made.result()
            await asyncio.wait([made])
        made = self._made[key] = asyncio.get_running_loop().create_future()
        try:
            value = await make()
        except BaseException:
            del self._made[key]
            made.cancel()
            raise
        made.set_result(value)
        return value
