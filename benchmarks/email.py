"""W10: messages handed to a relay, beside aiosmtplib alone over as many connections, in turns in the same run.

`python -m benchmarks.email [MESSAGES] [ROUNDS]`

The relay is a process of its own, without delay and with a round trip of 20 ms.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field

import uvloop

from benchmarks.bare_mails import CONNECTIONS
from benchmarks.lab import median, ratio, verdict
from benchmarks.sink import listener

DISTANCES = ((0.0, 1.0, 3.0), (0.02, 0.02, 2.0))
"""Round trip, what of the messages is sent over it, and how much faster than the other we promise to be."""

OURS_MORE = 4
"""Times the messages for us: about as long as the other needs."""


@dataclass(slots=True)
class Seen:
    """Of each round: messages a second, and what one costs (µs of CPU)."""

    per_s: list[float] = field(default_factory=list)
    us: list[float] = field(default_factory=list)

    def told(self) -> str:
        return f"{median(self.per_s):,.0f}/s at {median(self.us):.0f} µs of CPU"


async def main(messages: int = 15_000, rounds: int = 5) -> bool:
    fine = []
    for delay_s, part, bar in DISTANCES:
        ours, theirs = Seen(), Seen()
        count = max(CONNECTIONS, int(messages * part))
        for _ in range(rounds):
            async with listener("-m", "benchmarks.mail_sink", str(delay_s)) as at:
                await send(at.port, count * OURS_MORE, "ours", ours)
                await send(at.port, count, "aiosmtplib", theirs)
        away = f"at {delay_s * 1000:.0f} ms"
        print(f"W10, {away}, {CONNECTIONS} connections, {rounds} rounds, medians")
        print(f"     ours: {ours.told()}; aiosmtplib alone: {theirs.told()}")
        faster = ratio(median(ours.per_s), median(theirs.per_s))
        fine.append(verdict(f"W10 to aiosmtplib {away}", faster, "×", bar, at_least=True))
    return all(fine)


async def send(port: int, messages: int, whose: str, seen: Seen) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bare_mails", str(port), str(messages), whose), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    seconds, cpu = map(float, out.split())
    seen.per_s.append(messages / seconds)
    seen.us.append(cpu / messages * 1e6)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
