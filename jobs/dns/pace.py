"""How often one server's address is asked: no more than so many questions in any second, by the whole process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

KEPT = 10_000
"""Addresses remembered before those that have been idle for a second are forgotten."""


class _Line:
    """Those who wait for one address, in order, and when the last questions went there."""

    __slots__ = ("lock", "sent", "waiting")

    def __init__(self, per_second: int) -> None:
        self.lock = asyncio.Lock()
        self.sent: deque[float] = deque(maxlen=per_second)
        self.waiting = 0

    @property
    def is_idle(self) -> bool:
        return not self.waiting and (not self.sent or self.sent[-1] < time.monotonic() - 1)


class Pace:
    """A name server may be that of a million domains, or of somebody who did not ask for our questions at all: whoever
    owns a domain can name any address as its server."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._lines: dict[str, _Line] = {}

    def take(self, address: str) -> bool:
        """A turn that can be had at once; whoever gets it sends a question."""
        line = self._line(address)
        now = time.monotonic()
        if line.waiting or (len(line.sent) == self._per_second and line.sent[0] + 1 > now):
            return False
        line.sent.append(now)
        return True

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Entered when a question may go to `address`; whoever leaves it sends one."""
        line = self._line(address)
        line.waiting += 1
        try:
            async with line.lock:
                if len(line.sent) == self._per_second:
                    wait_s = line.sent[0] + 1 - time.monotonic()
                    if wait_s > 0:
                        await asyncio.sleep(wait_s)
                yield
                line.sent.append(time.monotonic())
        finally:
            line.waiting -= 1

    def wait_s(self, address: str) -> float:
        """About how long the next one will wait for `address`."""
        line = self._lines.get(address)
        if line is None:
            return 0.0
        ahead = line.waiting / self._per_second
        if len(line.sent) < self._per_second:
            return ahead
        return ahead + max(0.0, line.sent[0] + 1 - time.monotonic())

    def _line(self, address: str) -> _Line:
        line = self._lines.get(address)
        if line is None:
            if len(self._lines) >= KEPT:
                self._lines = {known: kept for known, kept in self._lines.items() if not kept.is_idle}
            line = self._lines[address] = _Line(self._per_second)
        return line
