"""A receiver has spoken when the head of its answer is here; what it says after it, or out of turn, is no answer."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.model import Done, Failure, Retry
from jobs.webhook.connections import INTERIM_MAX, Hearing
from jobs.webhook.faults import SENTENCES
from tests.examples import examples
from tests.jobs.webhook.server import OK, Answer, Request, Server, Wire, hangs_up, says
from tests.jobs.webhook.test_webhook_exchange import small_buffers
from tests.jobs.webhook.world import World, world

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
NO = b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno"
STRAY = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray"

READABLE: dict[str, tuple[bytes, str, str, bool, int]] = {
    # name: bytes, code, body kept, whether it is cut short, connections for two deliveries
    "its body as announced": (OK, "http_200", "ok", False, 1),
    "more body than announced": (HEAD + b"content-length: 2\r\n\r\nokay", "http_200", "ok", False, 2),
    "more, and says it closes": (
        HEAD + b"content-length: 2\r\nconnection: close\r\n\r\nokay",
        "http_200",
        "ok",
        False,
        2,
    ),
    "another answer behind it": (NO + STRAY, "http_503", "no", False, 2),
    "half an answer behind it": (NO + STRAY[:9], "http_503", "no", False, 2),
    "a 204 with a length and a body": (
        b"HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\nhello",
        "http_204",
        "",
        False,
        2,
    ),
    "a 204 with a body": (b"HTTP/1.1 204 No\r\n\r\nhello", "http_204", "", False, 2),
    "a 304 with a body": (
        b"HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\nhello",
        "redirect_not_followed",
        "",
        False,
        2,
    ),
    "chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", "http_200", "ok", False, 1),
    "chunks with extensions and a trailer": (
        CHUNKED + b'1;a="b"\r\no\r\n1;c\r\nk\r\n0\r\nx: y\r\n\r\n',
        "http_200",
        "ok",
        False,
        1,
    ),
    "a chunk of no size": (CHUNKED + b"zz\r\n", "http_200", "", True, 2),
    "a chunk of negative size": (CHUNKED + b"2\r\nok\r\n-1\r\n", "http_200", "ok", True, 2),
    "a chunk of absurd size": (CHUNKED + b"2\r\nok\r\n" + b"f" * 40 + b"\r\n", "http_200", "ok", True, 2),
    "a chunk longer than it says": (CHUNKED + b"2\r\nokay\r\n0\r\n\r\n", "http_200", "ok", True, 2),
    "early hints": (b"HTTP/1.1 103 Hints\r\nlink: </a>\r\n\r\n" + OK, "http_200", "ok", False, 1),
    "many interim answers": (b"HTTP/1.1 102 Wait\r\n\r\n" * INTERIM_MAX + OK, "http_200", "ok", False, 1),
    "blank lines first": (b"\r\n\r\n" + OK, "http_200", "ok", False, 1),
    "bare line feeds": (OK.replace(b"\r\n", b"\n"), "http_200", "ok", False, 1),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", "http_200", "ok", False, 1),
    "a status of its own": (b"HTTP/1.1 999 Go\r\ncontent-length: 2\r\n\r\nok", "http_999", "ok", False, 1),
    "a folded header": (HEAD + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\nok", "http_200", "ok", False, 1),
    "a goodbye": (HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nok", "http_200", "ok", False, 2),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "http_200", "ok", False, 2),
    "HTTP/1.0 that stays": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        "http_200",
        "ok",
        False,
        1,
    ),
    "a body in an unknown coding": (
        HEAD + b"content-encoding: zstd\r\ncontent-length: 2\r\n\r\nok",
        "http_200",
        "ok",
        False,
        1,
    ),
}

UNREADABLE: dict[str, bytes] = {
    "two framings": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": HEAD + b"content-length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"content-length: +2\r\n\r\nok",
    "a length beyond all numbers": HEAD + b"content-length: " + b"9" * 40 + b"\r\n\r\n",
    "no colon": HEAD + b"nonsense\r\n\r\n",
    "NUL in a header": HEAD + b"x: a\x00b\r\n\r\n",
    "another protocol": b"ICY 200 OK\r\n\r\n",
    "a protocol in small letters": b"http/1.1 200 OK\r\n\r\n",
    "HTTP/2 in words": b"HTTP/2 200\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "an interim answer with a body": b"HTTP/1.1 102 Wait\r\ncontent-length: 3\r\n\r\nabc" + OK,
    "too many interim answers": b"HTTP/1.1 102 Wait\r\n\r\n" * (INTERIM_MAX + 1) + OK,
    "nothing but blank lines": b"\r\n" * 10_000,
}


def _is(w: World, word: str, code: str) -> bool:
    return (w.record["outcome"], w.record["code"]) == (word, code)


def _acquired(w: World) -> int:
    connector = w.http.guarded._session.connector
    assert connector is not None
    return len(connector._acquired)


def _in_pieces(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(at), len(data)]
    return [data[a:b] for a, b in pairwise(places) if a < b]


@pytest.mark.parametrize("how", ["at once", "head first"])
@pytest.mark.parametrize("name", READABLE)
async def test_the_head_counts_whatever_comes_after_it(name: str, how: str) -> None:
    data, code, body, cut, connections = READABLE[name]
    head = data.rindex(b"\r\n\r\n") if how == "head first" and b"\r\n\r\n" in data else 0

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        for piece in _in_pieces(data, [head]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with Server(answer) as server, world() as w, asyncio.timeout(60):
        for _ in range(2):
            outcome = await w.deliver(server.url())
            assert w.record["code"] == code
            assert (w.record["response_body"], w.record["response_truncated"]) == (body, cut)
            assert isinstance(outcome, Done) is code.startswith("http_20")
        assert server.connections == connections
        assert _acquired(w) == 0
    assert w.record["duration_ms"] < 5000, "nobody waited for the rest until the time was over"


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_head_that_cannot_be_read_is_no_answer(name: str) -> None:
    async with Server(says(UNREADABLE[name])) as server, world() as w, asyncio.timeout(60):
        outcome = await w.deliver(server.url())
        await server.hung_up.wait()
    assert _is(w, "unknown", "protocol_error")
    assert isinstance(outcome, Retry)
    assert outcome.reason == SENTENCES["protocol_error"]


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await says(HEAD + b"\r\nuntil the end")(request, writer)
        writer.close()

    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
    assert _is(w, "ok", "http_200")
    assert (w.record["response_body"], w.record["response_truncated"]) == ("until the end", False)


async def test_of_a_body_that_breaks_off_what_came_is_kept() -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await says(HEAD + b"content-length: 100\r\n\r\nfive!")(request, writer)
        writer.close()

    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
    assert (w.record["response_body"], w.record["response_truncated"]) == ("five!", True)


async def _heard(pieces: Sequence[bytes]) -> tuple[Any, ...]:
    """What is made of bytes that arrive so: status, body, whether it is whole."""
    hearing = Hearing(asyncio.get_running_loop())
    hearing.set_response_params(read_until_eof=True, auto_decompress=False)
    for piece in pieces:
        hearing.data_received(piece)
        if hearing.exception() is not None:
            break
    hearing.connection_lost(None)
    try:
        while True:
            head, content = await hearing.read()
            if head.code >= 200:
                break
    except (aiohttp.ClientError, HttpProcessingError):
        return (None,)
    try:
        return head.code, await content.read(), True
    except aiohttp.ClientError:
        return head.code, content._read_nowait(-1), False


@given(st.sampled_from([*(row[0] for row in READABLE.values()), *UNREADABLE.values()]), st.data())
@settings(max_examples=examples(80))
def test_how_the_network_cuts_an_answer_changes_nothing(answer: bytes, data: st.DataObject) -> None:
    at = data.draw(st.lists(st.integers(0, len(answer)), max_size=12))
    with asyncio.Runner() as runner:
        whole = runner.run(_heard([answer]))
        assert runner.run(_heard(_in_pieces(answer, at))) == whole
        assert runner.run(_heard(_in_pieces(answer, range(1, min(len(answer), 300))))) == whole


@pytest.mark.parametrize(
    "stray",
    [
        pytest.param([STRAY], id="an answer"),
        pytest.param([b"HTTP/1.1 408 Slow\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"], id="a 408"),
        pytest.param([b"HTTP/1.1 204 No\r\n\r\n" * 4000] * 100, id="7 MB of answers"),
        pytest.param([b"\x00" * 65536] * 100, id="6 MB of nothing"),
    ],
)
async def test_what_an_idle_connection_says_is_nobodys_answer(stray: list[bytes]) -> None:
    """Taken for the answer to the next message, a 200 would lose that message."""
    at_rest = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await says(NO)(request, writer)
        if request.connection == 1:
            await at_rest.wait()
            for piece in stray:
                writer.write(piece)
                await writer.drain()

    async with Server(answer) as server, world() as w, asyncio.timeout(60):
        await w.deliver(server.url())
        at_rest.set()
        await server.hung_up.wait()
        outcome = await w.deliver(server.url())
        assert server.connections == 2
    assert isinstance(outcome, Retry)
    assert _is(w, "retry", "http_503")


async def test_the_second_try_is_on_a_new_connection_however_many_dead_ones_lie_in_the_pool() -> None:
    """A load balancer that was restarted leaves them all dead."""
    together = asyncio.Barrier(3)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.connection > 3:
            await says(OK)(request, writer)
        elif len(server.requests) <= 3:
            await together.wait()
            await says(OK)(request, writer)
        else:
            writer.close()

    async with Server(answer) as server, world() as w:
        await asyncio.gather(*(w.deliver(server.url(), job_id=n) for n in (1, 2, 3)))
        assert server.connections == 3
        outcome = await w.deliver(server.url(), job_id=4)
        assert server.connections == 4
        assert [request.headers["webhook-id"] for request in server.requests[3:]] == ["msg_4", "msg_4"]
    assert isinstance(outcome, Done)


async def _answers_and_waits(request: Request, writer: asyncio.StreamWriter) -> None:
    await request.reader.readuntil(b"\r\n\r\n")
    await says(b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nno")(request, writer)
    await asyncio.Event().wait()


async def _answers_and_closes(request: Request, writer: asyncio.StreamWriter) -> None:
    await request.reader.readuntil(b"\r\n\r\n")
    await says(b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nno")(request, writer)


@pytest.mark.parametrize("answer", [_answers_and_waits, _answers_and_closes])
async def test_an_answer_to_a_request_that_nobody_reads_counts_and_costs_the_connection(answer: Answer) -> None:
    async with Wire(answer) as server, world() as w:
        server._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small_buffers(w)
        for n in (1, 2):
            await w.deliver(server.url(), '"' + "x" * 200_000 + '"')
            assert w.record["code"] == "http_413"
            assert server.connections == n
        assert _acquired(w) == 0


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_bytes_come_there_is_a_word_for_it_and_it_is_ours(seed: int) -> None:
    dice = random.Random(seed)
    originals = [row[0] for row in READABLE.values()] + list(UNREADABLE.values())
    said: list[bytes] = []

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        mutant = bytearray(dice.choice(originals)[:400])
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(mutant))
            mutant[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        said.append(bytes(mutant))
        await says(bytes(mutant))(request, writer)
        await hangs_up(request, writer)

    async with Server(answer) as server, world() as w, asyncio.timeout(120):
        for _ in range(60):
            outcome = await w.deliver(server.url())
            status, word, code = w.record["status"], w.record["outcome"], w.record["code"]
            if status is None:
                assert word == "unknown", said[-1]
                assert code in ("protocol_error", "connection_closed", "connection_reset"), said[-1]
                assert isinstance(outcome, Failure)
                assert outcome.reason == SENTENCES[code]
            else:
                assert word == ("ok" if 200 <= status <= 299 else "dead" if status == 410 else "retry"), said[-1]
        assert _acquired(w) == 0
