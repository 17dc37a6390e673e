"""The request as it goes over the wire: framed once, by us, and let go of whatever the other side does."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest

from jobs.webhook.exchange import _written
from jobs.webhook.faults import Fault
from jobs.webhook.transport import Transport
from jobs.webhook.trip import begin
from tests.jobs.webhook.server import OK, Server, responds, says
from tests.jobs.webhook.world import World, world

START = "POST / HTTP/1.1\r\nHost: shop.example\r\n"


def _acquired(w: World) -> int:
    connector = w.http.guarded._session.connector
    assert connector is not None
    return len(connector._acquired)


@pytest.mark.req("AS-09")
@pytest.mark.parametrize("value", ["a\r\nhost: evil", "a\nb", "a\rb", "\r\n\r\nGET / HTTP/1.1", "é", "\u2028"])
@pytest.mark.parametrize("place", ["name", "value"])
def test_a_line_break_that_got_past_every_check_stops_at_the_last(value: str, place: str) -> None:
    headers = {value: "x"} if place == "name" else {"x": value}
    with pytest.raises(Fault, match="cannot be written") as refused:
        _written(START, headers, b"{}")
    assert refused.value.code == "bad_request"


async def test_and_then_no_connection_is_made() -> None:
    async with Server(says(OK)) as server, world() as w:
        guarded: Transport = w.http.guarded
        with pytest.raises(Fault):
            await guarded.post(guarded.guard.target(server.url()), {"x": "a\r\nb: c"}, b"", begin(), None)
        assert server.connections == 0


def test_the_length_is_of_the_bytes_and_stands_once() -> None:
    sent = _written(START, {"a": "1", "b": "2"}, "é".encode())
    assert sent == b"POST / HTTP/1.1\r\nHost: shop.example\r\na: 1\r\nb: 2\r\ncontent-length: 2\r\n\r\n\xc3\xa9"


async def test_a_url_is_asked_for_as_it_was_written() -> None:
    async with Server(says(OK)) as server, world() as w:
        await w.deliver(server.url("/a%2Fb/%7Ec?x=%2F&y=a+b&z"))
        await w.deliver(server.url("").replace("127.0.0.1", "127.0.0.1") + "?only=query")
    assert [request.line for request in server.requests] == [
        "POST /a%2Fb/%7Ec?x=%2F&y=a+b&z HTTP/1.1",
        "POST /?only=query HTTP/1.1",
    ]


async def test_each_header_stands_once_and_in_one_line() -> None:
    async with Server(says(OK)) as server, world() as w:
        await w.deliver(server.url(), headers={"accept": "text/plain", "x-empty": ""})
    (request,) = server.requests
    assert [line.partition(":")[0].lower() for line in request.lines].count("accept") == 1
    assert request.headers["accept"] == "text/plain"
    assert request.headers["x-empty"] == ""
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


async def test_a_receiver_that_reads_nothing_holds_no_connection() -> None:
    """The buffers are full, so part of the request is still here when the time is over: the connection is cut.  Closed
    in order it would stay open until the receiver had read the rest."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        async with world() as w, asyncio.timeout(10):
            small_buffers(w)
            attempt = asyncio.create_task(w.deliver(url, '"' + "x" * 200_000 + '"', timeout="300ms"))
            peer, _address = await asyncio.get_running_loop().sock_accept(listening)
            with peer:
                await attempt
                assert _acquired(w) == 0
                assert await _rest(peer) < 200_000
    assert (w.record["outcome"], w.record["code"]) == ("unknown", "timeout")


def small_buffers(w: World) -> None:
    connector = w.http.guarded._session.connector
    assert isinstance(connector, aiohttp.TCPConnector)
    make = w.http.guarded.guard.make_socket

    def small(address: Any) -> socket.socket:
        made = make(address)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return made

    connector._socket_factory = small


async def _rest(peer: socket.socket) -> int:
    """How many bytes still come before the end."""
    count = 0
    while data := await asyncio.get_running_loop().sock_recv(peer, 65536):
        count += len(data)
    return count


async def test_an_answer_that_comes_before_the_request_was_read_counts() -> None:
    async with Server(responds(413)) as server, world() as w:
        await w.deliver(server.url(), '"' + "x" * 200_000 + '"')
        assert _acquired(w) == 0
    assert w.record["code"] == "http_413"
