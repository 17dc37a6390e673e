"""`ctx.http` is the httpx API, whole, with one vocabulary of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from jobs.webhook.faults import Fault
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.transport import HttpClient
from tests.jobs.webhook.server import OK, Request, Server, hangs_up, responds, says, stays_silent
from tests.jobs.webhook.world import names, world


async def test_it_gets_posts_and_streams_and_uses_its_connection_again() -> None:
    async with Server(responds(200, "x-a: 1", "X-A: 2", body=b"hello")) as server, world() as w:
        got = await w.http.get(server.url(), params={"q": "a b"}, headers={"x-mine": "yes"})
        posted = await w.http.post(server.url(), json={"a": 1})
        async with w.http.stream("GET", server.url()) as response:
            pieces = [piece async for piece in response.aiter_bytes()]
        assert server.connections == 1
    assert (got.status_code, got.text, got.headers.get_list("x-a")) == (200, "hello", ["1", "2"])
    assert posted.request.method == "POST"
    assert b"".join(pieces) == b"hello"
    first, second, _third = server.requests
    assert first.line == "GET /hook?q=a+b HTTP/1.1"
    assert first.headers["x-mine"] == "yes"
    assert "content-type" not in first.headers
    assert (second.headers["content-type"], second.body) == ("application/json", b'{"a":1}')


async def test_a_body_is_sent_in_pieces_when_its_length_is_not_known_or_large() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    large = b"x" * (3 * 1024 * 1024 + 1)
    async with Server(says(OK)) as server, world() as w:
        await w.http.put(server.url(), content=pieces())
        await w.http.put(server.url(), content=large)
    first, second = server.requests
    assert first.body == b"one two"
    assert first.headers["transfer-encoding"] == "chunked"
    assert second.body == large
    assert second.headers["content-length"] == str(len(large))
    assert "transfer-encoding" not in second.headers


async def test_cookies_are_not_kept_from_one_request_to_the_next() -> None:
    async with Server(responds(200, "set-cookie: session=1; Path=/")) as server, world() as w:
        await w.http.get(server.url())
        await w.http.get(server.url())
    assert all("cookie" not in request.headers for request in server.requests)


@pytest.mark.parametrize(
    ("url", "error", "code"),
    [
        ("http://127.0.0.1:1/", httpx2.ConnectError, "connection_refused"),
        ("http://10.0.0.1/", httpx2.ConnectError, "blocked"),
        ("http://nobody.example/", httpx2.ConnectError, "dns_error"),
        ("http://slow.example/", httpx2.ConnectTimeout, "dns_timeout"),
        ("http://127.1/", httpx2.UnsupportedProtocol, "bad_url"),
    ],
)
async def test_a_failure_is_the_exception_httpx_users_expect_and_names_its_code(
    url: str, error: type[httpx2.TransportError], code: str
) -> None:
    known = names()

    async def lookup(host: str) -> list[str]:
        if host == "slow.example":
            await asyncio.Event().wait()
        return list(await known(host))

    async with world(lookup=lookup, dns_timeout=0.1) as w:
        with pytest.raises(error, match=f"^{code}: ") as raised:
            await w.http.get(url)
    assert isinstance(raised.value.__cause__, Fault)
    assert raised.value.__cause__.code == code
    assert raised.value.request.url == url


async def test_a_server_that_hangs_up_or_is_slow_raises_as_in_httpx() -> None:
    async with Server(hangs_up) as server, world() as w:
        with pytest.raises(httpx2.RemoteProtocolError, match=r"^connection_closed: "):
            await w.http.post(server.url())
    async with Server(stays_silent) as server, world() as w:
        with pytest.raises(httpx2.ReadTimeout, match=r"^timeout: "):
            await w.http.get(server.url(), timeout=0.1)


async def test_waiting_for_a_free_connection_has_its_own_limit() -> None:
    async with Server(stays_silent) as server, world(max_connections=1) as w, asyncio.TaskGroup() as group:
        first = group.create_task(w.http.get(server.url()))
        await server.arrived.wait()
        with pytest.raises(httpx2.PoolTimeout, match=r"^pool_timeout: "):
            await w.http.get(server.url(), timeout=httpx2.Timeout(60, pool=0.05, connect=0.05))
        first.cancel()


async def test_a_reason_phrase_may_be_any_bytes() -> None:
    async with Server(says(b"HTTP/1.1 200 \xff\xfe\r\ncontent-length: 0\r\n\r\n")) as server, world() as w:
        assert (await w.http.get(server.url())).extensions["reason_phrase"] == b"\xff\xfe"


async def test_a_body_that_breaks_off_raises_while_it_is_read() -> None:
    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfive!")
        await writer.drain()
        writer.close()

    async with Server(answer) as server, world() as w:
        with pytest.raises(httpx2.RemoteProtocolError, match=r"^protocol_error: "):
            await w.http.get(server.url())


async def test_a_stream_that_is_left_early_closes_its_connection() -> None:
    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    async with Server(answer) as server, world() as w, asyncio.timeout(60):
        async with w.http.stream("GET", server.url()) as response:
            assert response.status_code == 200
        await server.hung_up.wait()


async def test_requests_carry_the_settings_user_agent_and_ask_for_no_encoding() -> None:
    async with Server(says(OK)) as server, world(user_agent="shop/2") as w:
        await w.http.get(server.url())
        await w.deliver(server.url())
    for request in server.requests:
        assert (request.headers["user-agent"], request.headers["accept-encoding"]) == ("shop/2", "identity")


async def test_concurrent_requests_to_a_name_look_it_up_once() -> None:
    asked: list[str] = []

    async def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with Server(says(OK)) as server, world(lookup=lookup) as w:
        await asyncio.gather(*(w.http.get(server.url(host="shop.example")) for _ in range(20)))
    assert asked == ["shop.example"]


async def test_connections_to_one_host_are_bounded() -> None:
    release = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await says(OK)(request, writer)

    async with Server(answer) as server, world(max_connections_per_host=3) as w, asyncio.TaskGroup() as group:
        requests = [group.create_task(w.http.get(server.url())) for _ in range(10)]
        await server.arrived.wait()
        release.set()
        assert [(await request).status_code for request in requests] == [200] * 10
        assert server.connections <= 3


async def test_an_idle_connection_is_closed_after_keepalive() -> None:
    async with Server(says(OK)) as server, world(keepalive=1.0) as w, asyncio.timeout(60):
        await w.http.get(server.url())
        await server.hung_up.wait()
        assert isinstance(w.http, HttpClient)
        assert WebhookSettings().keepalive == 15.0
