"""Whatever a receiver does, an attempt ends in time, in bounded memory, with the right word for it."""

from __future__ import annotations

import asyncio
import gzip
import os
import resource
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.model import Retry, Snooze
from tests.jobs.webhook.certificate import self_signed
from tests.jobs.webhook.server import OK, Answer, Request, Server, hangs_up, says, stays_silent
from tests.jobs.webhook.world import World, names, world

HEAD = b"HTTP/1.1 200 OK\r\n"
KEEP = 16 * 1024
_TRIES = 5  # where something must not take long: the machine may be busy with something else, but not so often
HTTP2_GOAWAY = bytes.fromhex("000000040000000000" + "0000080700000000000000000000000002")
"""An empty SETTINGS frame, then GOAWAY with INTERNAL_ERROR."""


def _forever(before: bytes, piece: bytes, pause_s: float = 0.0) -> Answer:
    """`before`, then `piece` again and again until the client goes."""

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


def _then_close(*pieces: bytes) -> Answer:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await says(*pieces)(request, writer)
        writer.close()

    return answer


async def _resets(_request: Request, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


def _is(w: World, word: str, code: str) -> bool:
    return (w.record["outcome"], w.record["code"]) == (word, code)


@pytest.mark.parametrize(
    ("answer", "word", "code"),
    [
        pytest.param(hangs_up, "unknown", "connection_closed", id="closes without a word"),
        pytest.param(_resets, "unknown", "connection_reset", id="resets"),
        pytest.param(_then_close(b"HTTP/1.1 200"), "unknown", "connection_closed", id="closes in the status line"),
        pytest.param(_then_close(HEAD + b"x: y\r\n"), "unknown", "connection_closed", id="closes in the head"),
        pytest.param(says(b"220 mail.example ESMTP\r\n"), "unknown", "protocol_error", id="speaks SMTP"),
        pytest.param(says(b"\x00" * 100), "unknown", "protocol_error", id="speaks binary"),
        pytest.param(says(HEAD + b"content-length: x\r\n\r\n"), "unknown", "protocol_error", id="impossible length"),
        pytest.param(says(HEAD + b"a: " + b"b" * 300_000 + b"\r\n\r\n"), "unknown", "protocol_error", id="huge header"),
        pytest.param(says(HEAD + b"a: b\r\n" * 10_000 + b"\r\n"), "unknown", "protocol_error", id="10,000 headers"),
        pytest.param(says(HTTP2_GOAWAY), "unknown", "protocol_error", id="speaks HTTP/2 and takes its leave"),
        pytest.param(says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "retry", "http_101", id="switches protocols"),
        pytest.param(
            says(HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok"),
            "unknown",
            "protocol_error",
            id="two lengths",
        ),
        pytest.param(_then_close(HEAD + b"content-length: 100\r\n\r\nfive!"), "ok", "http_200", id="body cut short"),
        pytest.param(says(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, OK), "ok", "http_200", id="50 times 100 Continue"),
        pytest.param(_then_close(b"HTTP/1.0 200 OK\r\n\r\nuntil the end"), "ok", "http_200", id="HTTP/1.0"),
    ],
)
async def test_each_misbehaviour_has_its_word(answer: Answer, word: str, code: str) -> None:
    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
    assert _is(w, word, code)
    assert (w.record["status"] is None) is (word == "unknown")


@pytest.mark.parametrize(
    ("answer", "word", "code"),
    [
        pytest.param(stays_silent, "unknown", "timeout", id="says nothing"),
        pytest.param(_forever(HEAD, b"x", 0.01), "unknown", "timeout", id="drips a head"),
        pytest.param(_forever(HEAD + b"content-length: 9999\r\n\r\n", b"x", 0.01), "ok", "http_200", id="drips a body"),
        pytest.param(
            _forever(b"HTTP/1.1 503 No\r\ncontent-length: 9999\r\n\r\n", b"x", 0.01),
            "retry",
            "http_503",
            id="drips a 503",
        ),
    ],
)
async def test_one_deadline_covers_the_whole_attempt(answer: Answer, word: str, code: str) -> None:
    async with Server(answer) as server, world() as w, asyncio.timeout(60):
        for _ in range(_TRIES):
            await w.deliver(server.url(), timeout="300ms")
            await server.hung_up.wait()  # and the connection is not kept
            if w.record["duration_ms"] < 800:
                break
    assert _is(w, word, code)
    assert w.record["response_truncated"] is (word != "unknown")
    assert 290 <= w.record["duration_ms"] < 800, "half a second more at most"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_endless_body_is_cut_off_undecoded(encoding: str) -> None:
    piece = b"x" * 8192 if encoding == "identity" else gzip.compress(bytes(10_000_000))
    head = HEAD + f"content-encoding: {encoding}\r\n\r\n".encode()
    async with Server(_forever(head, piece)) as server, world() as w, asyncio.timeout(60):
        await w.deliver(server.url())
        await server.hung_up.wait()
    assert _is(w, "ok", "http_200")
    assert len(w.record["response_body"]) <= KEEP
    assert w.record["response_body"].startswith("x" if encoding == "identity" else "\x1f\ufffd")  # gzip's first bytes
    assert w.record["response_truncated"]


async def test_a_small_rest_is_read_so_that_the_connection_can_be_used_again() -> None:
    body = b"x" * (KEEP + 5000)
    answer = says(HEAD + b"content-length: %d\r\n\r\n" % len(body), body)
    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
        await w.deliver(server.url())
        assert server.connections == 1
    assert len(w.record["response_body"]) == KEEP
    assert w.record["response_truncated"]


async def test_the_log_keeps_as_much_as_the_settings_say() -> None:
    async with Server(says(HEAD + b"content-length: 9\r\n\r\n123456789")) as server:
        for keep, kept in ((4, "1234"), (9, "123456789"), (0, "")):
            async with world(response_keep=keep) as w:
                await w.deliver(server.url())
            assert w.record["response_body"] == kept
            assert w.record["response_truncated"] is (keep < 9)


async def test_what_postgres_refuses_does_not_reach_the_log() -> None:
    answer = says(HEAD + b"server: a\xff\xfe\r\ncontent-length: 6\r\n\r\na\x00\xed\xa0\x80b")
    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
    for text in (w.record["response_body"], w.record["response_headers"]["server"]):
        assert "\x00" not in text
        text.encode()


async def test_nobody_listening_is_connection_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with world() as w:
            outcome = await w.deliver(f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert _is(w, "retry", "connection_refused")
    assert isinstance(outcome, Retry)
    assert "127.0.0.1" not in outcome.reason


async def test_a_connection_that_is_not_accepted_is_a_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:  # more than the backlog takes: later ones get no answer from the kernel
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        async with world(connect_timeout=0.2, timeout=60.0) as w, asyncio.timeout(60):
            await w.deliver(f"http://127.0.0.1:{full.getsockname()[1]}/")
        for sock in waiting:
            sock.close()
    assert _is(w, "retry", "connect_timeout")


async def test_a_handshake_that_never_ends_is_a_connect_timeout() -> None:
    async with Server(stays_silent) as server, world(connect_timeout=0.2, timeout=60.0) as w, asyncio.timeout(60):
        await w.deliver(server.url().replace("http:", "https:"))
    assert _is(w, "retry", "connect_timeout")


@pytest.mark.parametrize("how", ["unknown issuer", "wrong name", "expired", "no TLS"])
async def test_a_server_that_cannot_prove_itself_gets_nothing(how: str, tmp_path: Path) -> None:
    certificate_name = "other.example" if how == "wrong name" else "shop.example"
    server_tls, certificate = self_signed(tmp_path, certificate_name, expired=how == "expired")
    client_tls = None if how == "unknown issuer" else ssl.create_default_context(cafile=certificate)
    lookup = names(shop_example=["127.0.0.1"])
    async with (
        Server(hangs_up if how == "no TLS" else says(OK), tls=None if how == "no TLS" else server_tls) as server,
        world(lookup=lookup, tls=client_tls) as w,
    ):
        if how == "no TLS":
            async with _plain(b"220 hello\r\n") as port:
                await w.deliver(f"https://shop.example:{port}/")
        else:
            await w.deliver(server.url(host="shop.example"))
    assert _is(w, "retry", "tls_error")
    assert server.requests == []


class _plain:
    """A server that greets each client in plain text."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting

    async def __aenter__(self) -> int:
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(self._greeting)
            await writer.drain()
            writer.close()

        self._server = await asyncio.start_server(greet, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()


async def test_tls_is_checked_against_the_name_in_the_url(tmp_path: Path) -> None:
    server_tls, certificate = self_signed(tmp_path, "shop.example")
    client_tls = ssl.create_default_context(cafile=certificate)
    async with (
        Server(says(OK), tls=server_tls) as server,
        world(lookup=names(shop_example=["127.0.0.1"]), tls=client_tls) as w,
    ):
        await w.deliver(server.url(host="shop.example"))
        await w.deliver(server.url(host="shop.example"))
        assert server.connections == 1
    assert _is(w, "ok", "http_200")
    assert server.requests[0].headers["host"] == f"shop.example:{server.port}"


async def test_a_name_nobody_knows_is_a_dns_error() -> None:
    async with world(lookup=names()) as w:
        outcome = await w.deliver("http://shop.example/")
    assert _is(w, "retry", "dns_error")
    assert isinstance(outcome, Retry)


async def test_a_name_server_that_stays_silent_about_a_name_is_a_dns_timeout() -> None:
    async def lookup(host: str) -> Sequence[str]:
        if host == "shop.example":
            await asyncio.Event().wait()
        return ["192.0.2.1"]

    for dns_timeout, timeout in ((0.1, 5.0), (5.0, 0.1)):  # whichever limit comes first
        async with world(lookup=lookup, dns_timeout=dns_timeout, timeout=timeout) as w:
            await w.deliver("http://shop.example/")
        assert _is(w, "retry", "dns_timeout")


async def test_waiting_for_our_own_pool_is_not_charged_to_the_message() -> None:
    async with Server(stays_silent) as server, world(max_connections=1) as w, asyncio.TaskGroup() as group:
        first = group.create_task(w.deliver(server.url()))
        await server.arrived.wait()
        outcome = await w.deliver(server.url(), timeout="100ms")
        assert _is(w, "retry", "pool_timeout")
        assert isinstance(outcome, Snooze)
        assert len(server.requests) == 1
        first.cancel()


async def test_running_out_of_files_is_not_charged_to_the_message() -> None:
    async with Server(says(OK)) as server, world() as w:
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            outcome = await w.deliver(server.url())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert _is(w, "retry", "local_error")
    assert isinstance(outcome, Snooze)


async def test_a_refused_first_address_gives_way_to_the_second() -> None:
    async with Server(says(OK)) as server, world(lookup=names(two_example=["127.0.0.9", "127.0.0.1"])) as w:
        await w.deliver(server.url(host="two.example"))
    assert _is(w, "ok", "http_200")
    assert w.record["address"] == "127.0.0.1"


async def test_hostile_answers_leave_no_task_and_no_connection_behind() -> None:
    before = asyncio.all_tasks()
    answers: list[Any] = [hangs_up, _resets, stays_silent, _forever(HEAD + b"\r\n", b"x" * 8192)]
    for answer in answers:
        async with Server(answer) as server, world() as w:
            await w.deliver(server.url(), timeout="100ms")
            connector = w.http.guarded._session.connector
            assert connector is not None
            assert not connector._acquired
    assert asyncio.all_tasks() <= before
