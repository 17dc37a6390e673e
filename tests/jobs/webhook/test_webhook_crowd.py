"""Many deliveries that want a connection at once: all get one, none at the cost of the others or of the event loop."""

from __future__ import annotations

import asyncio
import resource
from itertools import pairwise

import pytest

from jobs.webhook.settings import WebhookSettings
from jobs.webhook.transport import _affordable, open_http
from jobs.webhook.turnstile import Turnstile
from tests.jobs.webhook.world import world

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


async def _turns(counts: list[int], passed: list[int]) -> None:
    """Note in each turn of the loop how many have passed so far."""
    while True:
        counts.append(len(passed))
        await asyncio.sleep(0)


async def test_of_many_who_come_at_once_a_few_pass_in_a_turn_and_in_their_order() -> None:
    turnstile, passed, counts = Turnstile(4), list[int](), list[int]()

    async def come(number: int) -> None:
        await turnstile.enter()
        passed.append(number)

    watch = asyncio.create_task(_turns(counts, passed))
    await asyncio.gather(*(come(number) for number in range(50)))
    watch.cancel()
    assert passed == list(range(50))
    assert max(after - before for before, after in pairwise(counts)) <= 4


async def test_who_has_passed_is_waited_for_by_nobody() -> None:
    turnstile = Turnstile(2)

    async def pass_and_stay() -> None:
        await turnstile.enter()
        await asyncio.Event().wait()

    stuck = [asyncio.create_task(pass_and_stay()) for _ in range(20)]
    async with asyncio.timeout(60):
        await turnstile.enter()
    for task in stuck:
        task.cancel()


async def test_who_gives_up_waiting_takes_nobodys_place() -> None:
    turnstile = Turnstile(1)
    waiting = [asyncio.create_task(turnstile.enter()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in waiting[1:9]:
        task.cancel()
    async with asyncio.timeout(60):
        await waiting[9]
    assert not waiting[0].cancelled()


@pytest.mark.req("BJ-15")
async def test_hundreds_of_slow_receivers_are_all_sent_to_at_once_and_each_of_them_once() -> None:
    """Each answers when all have been sent to: had one been told to wait for another's end, none would ever end."""
    many, came, all_came = 300, list[bytes](), asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        came.append(head.split(b"\r\n")[1])
        if len(came) >= many:
            all_came.set()
        await all_came.wait()
        writer.write(NO_CONTENT)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(receive, "0.0.0.0", 0, backlog=many)
    port = server.sockets[0].getsockname()[1]
    async with server, world(timeout=60.0) as w:
        urls = [f"http://127.1.{n // 100}.{1 + n % 100}:{port}/" for n in range(many)]
        await asyncio.gather(*(w.deliver(url) for url in urls))
    assert [record["outcome"] for record in w.records] == ["ok"] * many
    assert len(came) == len(set(came)) == many


def test_connections_are_no_more_than_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def affordable(files: int, most: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda _which: (files, files))
        return _affordable(most)

    assert affordable(1024, 10_000) == 768
    assert affordable(65_536, 10_000) == 10_000
    assert affordable(100, 10_000) == 75
    assert affordable(1024, 20) == 20
    assert affordable(resource.RLIM_INFINITY, 10_000) == 10_000


async def test_two_thousand_receivers_fit_without_a_setting() -> None:
    http = open_http(WebhookSettings())
    connector = http.guarded._session.connector
    assert connector is not None
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connector.limit >= (2_000 if files > 3_000 else files // 2)
    await http.aclose()
