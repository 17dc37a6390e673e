"""One message again and again over a few connections that are kept: by `ctx.mail`, or by aiosmtplib alone.

`python -m benchmarks.bare_mails PORT MESSAGES ours|aiosmtplib` prints seconds and seconds of CPU.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import aiosmtplib
import uvloop

from daemon.serve import GARBAGE_AFTER
from jobs.email.message import EmailArgs, compose
from jobs.email.relay import Mail
from jobs.email.settings import EmailSettings, RelaySettings
from jobs.secrets import Secrets

CONNECTIONS = 5
AT_ONCE = 20
"""Handlers that have a message each."""

TEXT = "A receipt has about as many words as this one, and then some more.\n" * 20
ARGS = EmailArgs(to="jane@customer.example", subject="Your receipt", text=TEXT, from_="Shop <no-reply@shop.example>")

Work = Callable[[Iterator[int]], Awaitable[None]]


async def main(port: int, messages: int, whose: str) -> None:
    await (ours if whose == "ours" else theirs)(port, messages)


async def ours(port: int, messages: int) -> None:
    relay = RelaySettings(
        host="127.0.0.1", port=port, tls="none", connections=CONNECTIONS, messages_per_connection=10**9
    )
    settings = EmailSettings(relays={"main": relay})
    mail = Mail(settings, Secrets())
    message = compose(ARGS, settings, identity="1", now=datetime.now(UTC))

    async def work(turns: Iterator[int]) -> None:
        for _ in turns:
            report = await mail.send(message, message.recipients, message.sender)
            assert report.answers[0].phase == "final"

    await timed([work] * AT_ONCE, messages)
    await mail.close()


async def theirs(port: int, messages: int) -> None:
    """Its connections take one message at a time; more tasks would only wait for each other."""
    wire = compose(ARGS, EmailSettings(), identity="1", now=datetime.now(UTC)).wire
    clients = [aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) for _ in range(CONNECTIONS)]
    for client in clients:
        await client.connect()

    def worker(client: aiosmtplib.SMTP) -> Work:
        async def work(turns: Iterator[int]) -> None:
            for _ in turns:
                await client.sendmail("no-reply@shop.example", ["jane@customer.example"], wire)

        return work

    await timed([worker(client) for client in clients], messages)
    for client in clients:
        client.close()


async def timed(works: list[Work], messages: int) -> None:
    """All of them until the messages are through; some before, which do not count."""
    await run(works, max(len(works), messages // 20))
    gc.set_threshold(*GARBAGE_AFTER)
    gc.freeze()
    began, cpu = time.perf_counter(), cpu_s()
    await run(works, messages)
    print(time.perf_counter() - began, cpu_s() - cpu)


async def run(works: list[Work], messages: int) -> None:
    turns = iter(range(messages))
    await asyncio.gather(*(work(turns) for work in works))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
