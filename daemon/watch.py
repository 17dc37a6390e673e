"""Measure how late the event loop is: time limits, heartbeats and answers are late by as much."""

from __future__ import annotations

import asyncio

from daemon.observe import Observer


async def watch_loop(observe: Observer, every_s: float = 0.5) -> None:
    """Ask to be woken every `every_s`, and report by how much it was later than that.  Runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe.loop_lag(max(0.0, loop.time() - due))
