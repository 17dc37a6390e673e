"""A receiver written as its page says, with the public library, accepts what we send and nothing that is changed.

2,000 messages, with JOBSD_LONG=1 10,000, are composed, written and read as bytes of HTTP inside the test; a hundred go
over a connection.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from random import Random
from types import ModuleType
from typing import Any, cast

import pytest

from jobs.context import Context
from jobs.model import Job
from jobs.webhook.compose import compose
from jobs.webhook.draft import Draft
from jobs.webhook.exchange import _written
from tests.examples import LONG
from tests.jobs.webhook.server import NO_CONTENT, Request, Server, read_request, says
from tests.jobs.webhook.world import Log, World, world
from tests.life.doc_code import HOUSE, blocks

pytestmark = pytest.mark.req("BJ-15", "OR-08")

PAYLOADS = 10_000 if LONG else 2_000
OVER_HTTP = 300 if LONG else 100
LARGE = 256 * 1024
URL = "http://127.0.0.1/hooks"

Verify = Callable[[str, bytes, Mapping[str, str]], bool]


def on_the_page(name: str) -> Verify:
    """`is_ours` of the module that the receiver's page tells its readers to save as shop/NAME.py; imported when it is
    first called, since a library of theirs takes a second, and every process of the suite collects this file."""

    @cache
    def imported() -> ModuleType:
        page = HOUSE / "docs" / "receiving-webhooks.md"
        (block,) = [block for block in blocks(page) if block.file == f"shop/{name}.py"]
        module = ModuleType(name)
        exec(compile(block.text, block.place, "exec"), vars(module))
        return module

    return lambda secret, body, headers: cast(bool, imported().is_ours(secret, body, headers))


BY_LIBRARY = on_the_page("verify")
BY_SVIX = on_the_page("verify_svix")
BY_HAND = on_the_page("verify_by_hand")


def secret_of(dice: Random) -> str:
    return "whsec_" + base64.b64encode(dice.randbytes(dice.randint(24, 64))).decode()


def text_of(dice: Random, number: int) -> bytes:
    """Empty, short and long, of each length that UTF-8 has for a character, and the largest there is."""
    if number % 1_000 == 0:
        return ("é" * (LARGE // 2)).encode()
    alphabet = dice.choice(
        ('abc {}"\\:,.\r\n\t', "\x01\x7fäöü\u07ff", "\u0800\ufeff\ud7ff\uffff", "\U00010000\U0001f600\U0010ffff")
    )
    return "".join(dice.choices(alphabet, k=dice.choice((0, 1, 2, 20, 200)))).encode()


def bytes_of(dice: Random) -> bytes:
    """No UTF-8, whatever else is in them."""
    return b"\xff" + dice.randbytes(dice.choice((0, 1, 20, 500)))


def forged(message: Request, dice: Random) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """The message with one thing changed in it, for each thing that is signed."""
    body, headers = message.body, message.headers
    if body:
        place = dice.randrange(len(body))
        yield "a bit", body[:place] + bytes([body[place] ^ 1 << dice.randrange(8)]) + body[place + 1 :], headers
        yield "cut", body[:-1], headers
    yield "longer", body + b" ", headers
    yield "id", body, {**headers, "webhook-id": headers["webhook-id"] + "0"}
    sent_at = int(headers["webhook-timestamp"]) + dice.choice((-1, 1))
    yield "time", body, {**headers, "webhook-timestamp": str(sent_at)}
    signature = bytearray(base64.b64decode(headers["webhook-signature"].removeprefix("v1,")))
    signature[dice.randrange(len(signature))] ^= 1 << dice.randrange(8)
    yield "signature", body, {**headers, "webhook-signature": "v1," + base64.b64encode(signature).decode()}


async def sent(w: World, secret: str, body: bytes, number: int) -> Request:
    """The message as a server reads it that gets the bytes of our request."""
    draft = Draft(
        url=URL,
        body=body,
        content_type="application/octet-stream",
        message_id=f"msg_{number}",
        event=None,
        headers={},
        secrets=(secret,),
        signing=("standard",),
        client_certificate=None,
        template=None,
    )
    job = Job(number, 1, "webhook", "default", 2, 1, "{}", 0.0)
    ctx = Context(job, cast(Any, w), cast(Any, Log(w.lines)), cast(Any, None))
    message = await compose(draft, ctx, w.http.guarded)
    stream = asyncio.StreamReader(limit=2 * LARGE)
    stream.feed_data(_written("POST /hooks HTTP/1.1\r\nHost: 127.0.0.1\r\n", message.headers, message.body))
    stream.feed_eof()
    request = await read_request(stream)
    assert request is not None
    return request


async def test_the_public_libraries_accept_random_payloads_and_no_tampered_one() -> None:
    dice = Random(7)
    secrets = [secret_of(dice) for _ in range(100)]
    async with world() as w:
        for number in range(PAYLOADS):
            secret, other = dice.sample(secrets, 2)
            body = text_of(dice, number)
            request = await sent(w, secret, body, number)
            headers = request.headers
            assert request.body == body
            assert BY_LIBRARY(secret, body, headers)
            assert BY_SVIX(secret, body, headers)
            assert BY_HAND(secret, body, headers)
            assert not BY_LIBRARY(other, body, headers)
            assert not BY_HAND(other, body, headers)
            for what, other_body, other_headers in forged(request, dice):
                assert not BY_LIBRARY(secret, other_body, other_headers), (what, other_body, other_headers)
                assert not BY_HAND(secret, other_body, other_headers), (what, other_body, other_headers)


async def test_bytes_that_are_no_text_are_accepted_by_hand_and_refused_by_libraries_without_an_error() -> None:
    dice = Random(8)
    secrets = [secret_of(dice) for _ in range(10)]
    async with world() as w:
        for number in range(PAYLOADS // 5):
            secret, other = dice.sample(secrets, 2)
            request = await sent(w, secret, bytes_of(dice), number)
            assert BY_HAND(secret, request.body, request.headers)
            assert not BY_HAND(other, request.body, request.headers)
            assert not BY_LIBRARY(secret, request.body, request.headers)
            assert not BY_SVIX(secret, request.body, request.headers)
            for what, body, headers in forged(request, dice):
                assert not BY_HAND(secret, body, headers), (what, body, headers)


async def test_what_comes_over_a_connection_verifies_too() -> None:
    dice = Random(9)
    secrets = [secret_of(dice) for _ in range(10)]
    chosen: dict[str, tuple[str, bytes, bool]] = {}
    async with Server(says(NO_CONTENT)) as server, world() as w:
        for number in range(OVER_HTTP):
            secret = dice.choice(secrets)
            if is_text := number % 3 > 0:
                body = json.dumps(text_of(dice, number + 1).decode(), ensure_ascii=dice.random() < 0.5).encode()
                await w.deliver(server.url(), body.decode(), secret=secret, job_id=number)
            else:
                body = bytes_of(dice)
                await w.deliver(server.url(), None, secret=secret, job_id=number, body=base64.b64encode(body).decode())
            chosen[f"msg_{number}"] = secret, body, is_text
    assert len(server.requests) == OVER_HTTP
    for request in server.requests:
        secret, body, is_text = chosen[request.headers["webhook-id"]]
        assert request.body == body
        assert BY_HAND(secret, body, request.headers)
        assert BY_LIBRARY(secret, body, request.headers) is is_text
        for what, other_body, other_headers in forged(request, dice):
            assert not BY_HAND(secret, other_body, other_headers), what
            assert not BY_LIBRARY(secret, other_body, other_headers), what


@pytest.mark.parametrize("verify", [BY_LIBRARY, BY_SVIX, BY_HAND], ids=["library", "svix", "by_hand"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"webhook-id": "msg_1"},
        {"webhook-id": "msg_1", "webhook-timestamp": "soon", "webhook-signature": "v1,AAAA"},
        {"webhook-id": "msg_1", "webhook-timestamp": "²", "webhook-signature": "v1,AAAA"},
        {"webhook-id": "msg_1", "webhook-timestamp": "9" * 400, "webhook-signature": "v1,AAAA"},
        {"webhook-id": "msg_1", "webhook-timestamp": "1764590000", "webhook-signature": "v1,AAAA"},
        {"webhook-id": "msg_1", "webhook-timestamp": "now", "webhook-signature": "no comma"},
        {"webhook-id": "msg_1", "webhook-timestamp": "now", "webhook-signature": "v1,no base64!"},
        {"webhook-id": "msg_1", "webhook-timestamp": "now", "webhook-signature": "v1,é,é"},
        {"webhook-id": "msg_1", "webhook-timestamp": "now", "webhook-signature": ""},
    ],
    ids=str,
)
def test_nonsense_is_refused_and_raises_nothing(verify: Verify, headers: dict[str, str]) -> None:
    """Strangers write to a receiver too: its answer is 401, not 500."""
    given = {name: value.replace("now", str(int(time.time()))) for name, value in headers.items()}
    assert not verify("whsec_" + "A" * 32, b"{}", given)
