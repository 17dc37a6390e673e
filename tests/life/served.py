"""A receiver of webhooks within the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def served(app: web.Application, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """The port that it listens at.  Whoever is still waiting for an answer at the end gets none."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
