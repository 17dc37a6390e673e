"""Every limit of the [webhook] section is one: set otherwise, something else happens on the wire."""

from __future__ import annotations

import asyncio
import dataclasses
import tracemalloc
from pathlib import Path

import pytest

from jobs.webhook.settings import WebhookSettings
from tests.jobs.webhook.server import OK, Answer, Request, Server, responds, says, stays_silent
from tests.jobs.webhook.world import World, names, world

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
MEMORY = 5 * 1024 * 1024


def _is(w: World, word: str, code: str) -> bool:
    return (w.record["outcome"], w.record["code"]) == (word, code)


def test_each_key_is_set_by_a_test() -> None:
    """A setting that is stored and never applied is a promise broken in silence."""
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    texts += (Path(__file__).parent / "world.py").read_text()
    keys = [field.name for field in dataclasses.fields(WebhookSettings)]
    assert [key for key in keys if f"{key}=" not in texts and f'"{key}": ' not in texts] == []


async def test_an_idle_connection_is_kept_as_long_as_it_says_and_no_longer() -> None:
    async with Server(says(OK)) as server, world(keepalive=1.0) as w, asyncio.timeout(10):
        await w.deliver(server.url())
        assert not server.hung_up.is_set()
        await server.hung_up.wait()


async def test_one_host_gets_so_many_connections_and_another_is_not_kept_waiting() -> None:
    async with (
        Server(stays_silent) as slow,
        Server(says(OK)) as well,
        world(max_connections_per_host=2) as w,
        asyncio.TaskGroup() as group,
    ):
        waiting = [group.create_task(w.deliver(slow.url())) for _ in range(4)]
        await slow.arrived.wait()
        await w.deliver(well.url())
        assert _is(w, "ok", "http_200")
        await w.deliver(slow.url(), timeout="100ms")
        assert _is(w, "retry", "pool_timeout")
        assert slow.connections == 2
        for task in waiting:
            task.cancel()


@pytest.mark.parametrize(("most", "connections"), [(1000, 2), (4_000_000, 1)])
async def test_a_body_longer_than_what_is_read_costs_the_connection(most: int, connections: int) -> None:
    async with Server(responds(200, body=b"x" * 2_000_000)) as server, world(response_max=most, response_keep=500) as w:
        for _ in range(2):
            await w.deliver(server.url())
        assert server.connections == connections
    assert w.record["response_truncated"]


@pytest.mark.parametrize(("limit", "word"), [(300, "unknown"), (2000, "ok")])
async def test_a_header_may_be_so_long(limit: int, word: str) -> None:
    answer = says(HEAD + b"a: " + b"b" * 1000 + b"\r\ncontent-length: 0\r\n\r\n")
    async with Server(answer) as server, world(max_header=limit) as w:
        await w.deliver(server.url())
    assert w.record["outcome"] == word


@pytest.mark.parametrize(("limit", "word"), [(5, "unknown"), (20, "ok")])
async def test_a_response_may_have_so_many_headers(limit: int, word: str) -> None:
    answer = says(HEAD + b"".join(b"a%d: b\r\n" % n for n in range(10)) + b"content-length: 0\r\n\r\n")
    async with Server(answer) as server, world(max_headers=limit) as w:
        await w.deliver(server.url())
    assert w.record["outcome"] == word


async def test_the_user_agent_is_the_operators() -> None:
    async with Server(says(OK)) as server, world(user_agent="shop/1.2") as w:
        await w.deliver(server.url())
    assert server.requests[0].headers["user-agent"] == "shop/1.2"


async def test_the_settings_time_bounds_an_attempt() -> None:
    for timeout in (0.2, 2.0, 20.0):  # on a busy machine even the connection may take longer
        async with Server(stays_silent) as server, world(timeout=timeout) as w, asyncio.timeout(100):
            await w.deliver(server.url())
            if server.requests:
                break
    assert _is(w, "unknown", "timeout")


async def test_looking_up_a_name_is_bounded_by_itself() -> None:
    async def lookup(host: str) -> list[str]:
        if host == "shop.example":
            await asyncio.Event().wait()
        return ["192.0.2.1"]

    async with world(lookup=lookup, dns_timeout=0.1) as w, asyncio.timeout(5):
        await w.deliver("http://shop.example/")
    assert _is(w, "retry", "dns_timeout")


def _flood(head: bytes, piece: bytes, times: int) -> Answer:
    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(times):
            writer.write(piece)
            await writer.drain()

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(_flood(HEAD + b"\r\n", b"x" * 65536, 1000), id="64 MiB of body"),
        pytest.param(_flood(HEAD, b"a: " + b"b" * 8000 + b"\r\n", 5000), id="40 MiB of headers"),
        pytest.param(_flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, 100), id="5 MiB of 1xx"),
        pytest.param(_flood(HEAD + b"a: ", b"b" * 65536, 1000), id="64 MiB of one header"),
        pytest.param(_flood(b"HTTP/1.1 200 ", b"b" * 65536, 1000), id="64 MiB of reason"),
        pytest.param(_flood(b"", b"b" * 65536, 1000), id="64 MiB of a status line"),
        pytest.param(_flood(b"", b"\r\n" * 32768, 1000), id="64 MiB of blank lines"),
        pytest.param(_flood(HEAD, b"b" * 65536, 1000), id="64 MiB of a header's name"),
        pytest.param(_flood(CHUNKED + b"1;", b"b" * 65536, 1000), id="64 MiB of a chunk's extension"),
        pytest.param(_flood(CHUNKED, b"1;a=b\r\nx\r\n" * 6000, 1000), id="6 million chunks"),
        pytest.param(_flood(CHUNKED + b"0\r\n", b"a: " + b"b" * 8000 + b"\r\n", 8000), id="64 MiB of trailers"),
        pytest.param(_flood(CHUNKED + b"0\r\na: ", b"b" * 65536, 1000), id="64 MiB of one trailer"),
    ],
)
async def test_no_answer_takes_more_than_5_mib(answer: Answer) -> None:
    async with Server(answer) as server, world(lookup=names()) as w:
        await w.deliver(server.url("/warm"), timeout="500ms")
        tracemalloc.start()
        try:
            await w.deliver(server.url(), timeout="500ms")
            _now, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < MEMORY
    assert len(w.record["response_body"]) <= 64 * 1024
