"""The daemon's HTTP client in a bare loop: the same signature, connections and concurrency, and no database.

`python -m benchmarks.bare_posts URL POSTS` prints seconds and seconds of CPU.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from collections.abc import Iterator

import uvloop

from daemon.serve import GARBAGE_AFTER
from jobs.webhook.headers import outgoing
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.signing import signer
from jobs.webhook.transport import Transport, open_http
from jobs.webhook.trip import begin

CONCURRENCY = 100
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOTE = ("five hundred bytes, as much as an order has to say " * 10)[:468]
BODY = f'{{"id": "order-1", "note": "{NOTE}"}}'


async def main(url: str, posts: int) -> None:
    settings = WebhookSettings(allow_http=True, allow_addresses=("127.0.0.0/8",), allow_ports=("1-65535",))
    client = open_http(settings)
    await work(client.guarded, settings, url, iter(range(CONCURRENCY)))
    gc.set_threshold(*GARBAGE_AFTER)
    gc.freeze()
    ids = iter(range(posts))
    began, cpu = time.perf_counter(), cpu_s()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work(client.guarded, settings, url, ids))
    print(time.perf_counter() - began, cpu_s() - cpu)
    await client.aclose()


async def work(guarded: Transport, settings: WebhookSettings, url: str, ids: Iterator[int]) -> None:
    """One POST after another, as long as there are ids."""
    keys, body = signer((SECRET,), ("standard",)), BODY.encode()
    for number in ids:
        name, now = f"msg_{number}", int(time.time())
        headers = outgoing(
            {},
            user_agent=settings.user_agent,
            content_type="application/json",
            message_id=name,
            timestamp=now,
            signatures=keys.headers(name, now, body),
            traceparent=None,
            correlation_id=None,
        )
        answer = await guarded.post(guarded.guard.target(url), headers, body, begin(), None)
        assert answer.status == 204
        while await answer.content.readany():
            pass
        answer.release()


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
