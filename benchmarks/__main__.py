"""Every benchmark after another: `python -m benchmarks [--short]`; exit 1 when a target is missed, but for --short."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine

import uvloop

from benchmarks import (
    catalogue,
    dns,
    drain,
    email,
    endpoints,
    enqueue,
    history,
    horizon,
    lanes,
    limits,
    neighbour,
    pickup,
    purge,
    rescue,
    roles,
    slow_endpoints,
    webhooks,
)

TOGETHER = 3
"""Programs that run beside each other in a short run: they wait about as long as they compute."""


async def main() -> bool:
    fine = [
        await drain.main(),
        await pickup.main(),
        await enqueue.main(),
        await neighbour.main(),
        await horizon.main(),
        await rescue.main(),
        await lanes.main(),
        await endpoints.main(),
        await webhooks.main(),
        await slow_endpoints.main(),
        await email.main(),
        await dns.main(),
        await limits.main(),
        await history.main(),
        await purge.main(),
        await catalogue.main(100_000),
        await roles.main(),
    ]
    return all(fine)


async def short() -> None:
    """Does every program run?  Its figures mean nothing: there is little data, and they run beside each other."""
    programs = [
        limits.main(3, 1, 500),
        neighbour.main(2_000, 2, 500),
        lanes.main(200, 100, 1),
        endpoints.main(50, 1, 1),
        webhooks.main(500, 1),
        slow_endpoints.main(50, 0.5),
        email.main(200, 1),
        dns.main(40, 1, 20_000),
        rescue.main(1),
        horizon.main(3, 200, holds=["an open writer"]),
        pickup.main(20, 3),
        drain.main(2_000, 1),
        enqueue.main(200, 2_000, 1),
        history.main(10_000),
        purge.main(10_000, 50),
        catalogue.main(20_000, apart=False),
        roles.main(3, 20),
    ]
    room = asyncio.Semaphore(TOGETHER)

    async def run(program: Coroutine[None, None, bool]) -> None:
        async with room:
            await program

    async with asyncio.TaskGroup() as group:
        for program in programs:
            group.create_task(run(program))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--short", action="store_true", help="little data: only to see that every program runs")
    little: bool = parser.parse_args().short
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(short()) if little else runner.run(main())
    sys.exit(1 if held is False else 0)
