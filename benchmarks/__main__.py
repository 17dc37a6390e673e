"""Every benchmark after another: `python -m benchmarks [--short]`; exit 1 when a target is missed, but for --short."""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop

from benchmarks import (
    drain,
    enqueue,
    history,
    horizon,
    lanes,
    limits,
    neighbour,
    pickup,
    rescue,
    roles,
)


async def main(*, short: bool) -> bool:
    fine = [
        await drain.main(2_000, 1) if short else await drain.main(),
        await pickup.main(20, 3) if short else await pickup.main(),
        await enqueue.main(200, 2_000, 1) if short else await enqueue.main(),
        await neighbour.main(2_000, 2, 500) if short else await neighbour.main(),
        await horizon.main(3, 200, holds=["an open writer"]) if short else await horizon.main(),
        await rescue.main(1) if short else await rescue.main(),
        await lanes.main(200, 100, 1) if short else await lanes.main(),
        await limits.main(3, 1, 500) if short else await limits.main(),
        await history.main(10_000) if short else await history.main(),
        await roles.main(3, 20) if short else await roles.main(),
    ]
    return all(fine)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--short", action="store_true", help="little data: only to see that every program runs")
    short: bool = parser.parse_args().short
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        held = runner.run(main(short=short))
    sys.exit(0 if held or short else 1)
