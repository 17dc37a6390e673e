"""How late the event loop is: a handler that blocks it delays every other job, heartbeats aside."""

from __future__ import annotations

import asyncio

from daemon.observe import Observer

EVERY_S = 0.5


async def probe(observer: Observer) -> None:
    """Measure until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        observer.life.loop_lag(max(0.0, loop.time() - due))
