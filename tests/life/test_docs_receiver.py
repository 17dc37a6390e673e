"""The receiver's page and a real daemon: its code takes what the daemon sends, once, and nothing that is changed."""

from __future__ import annotations

import base64
import importlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from jobs.webhook.signing import public_of
from tests.life.doc_code import HOUSE, Reader, blocks
from tests.life.fleet import Fleet, empty, until_sql
from tests.life.served import served

pytestmark = pytest.mark.req("BJ-15", "OR-08")

PAGE = HOUSE / "docs" / "receiving-webhooks.md"
CONFIG = """
[webhook]
allow_http = true
allow_addresses = ["127.0.0.0/8"]
allow_ports = ["1024-65535"]
[webhook.profiles.quick]
retry = ["50ms", "50ms"]
"""
OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PRIVATE = "whsk_" + base64.b64encode(bytes(range(1, 33))).decode()
OTHER = "whsec_" + "B" * 32

Message = tuple[bytes, dict[str, str]]
Verify = Callable[[str, bytes, Mapping[str, str]], bool]


@dataclass
class Hooks:
    """The receiver of the page, and one beside it that only listens; `loses` answers are lost, their work done."""

    url: str = ""
    loses: int = 0
    answers: list[int] = field(default_factory=list)
    heard: list[Message] = field(default_factory=list)

    async def listen(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append((await request.read(), headers))
        return web.Response(status=204)

    @web.middleware
    async def lose(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        answer: web.StreamResponse = await handler(request)
        self.answers.append(answer.status)
        if len(self.answers) <= self.loses:
            return web.Response(status=502, text="a proxy of theirs")
        return answer


@asynccontextmanager
async def receiving(app: web.Application) -> AsyncIterator[Hooks]:
    hooks = Hooks()
    app.router.add_post("/listen", hooks.listen)
    app.middlewares.append(hooks.lose)
    async with served(app) as port:
        hooks.url = f"http://127.0.0.1:{port}"
        yield hooks


async def endpoint(pool: asyncpg.Pool, url: str, *secrets: str, **columns: Any) -> None:
    """Its secrets: the oldest first."""
    columns = {"name": url.rpartition("/")[2], "url": url, "profile": "quick", **columns}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    made = await pool.fetchval(
        f"insert into webhook_endpoints ({', '.join(columns)}) values ({places}) returning id", *columns.values()
    )
    for secret in secrets:
        await pool.execute("select webhook_rotate_secret($1, $2)", made, secret)


def forged(message: Message, signature: str) -> Iterator[Message]:
    """The message with something changed in each part that is signed."""
    body, headers = message
    yield body[:-1] + bytes([body[-1] ^ 1]), headers
    yield b"", headers
    yield body, {**headers, "webhook-id": headers["webhook-id"] + "0"}
    yield body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
    yield body, {name: value for name, value in headers.items() if name != signature}
    yield body, {**headers, signature: re.sub(r"(v1a?[,=])(.)", _other, headers[signature])}


def _other(found: re.Match[str]) -> str:
    return found[1] + ("1" if found[2] == "0" else "0")


def verifiers() -> dict[str, Verify]:
    """What the page tells readers to save, by its name."""
    found = {}
    for name in ("verify", "verify_svix", "verify_by_hand", "verify_v1a"):
        found[name] = importlib.import_module(f"shop.{name}").is_ours
    others = importlib.import_module("shop.verify_others")
    return {**found, "github": others.is_ours_as_github, "stripe": others.is_ours_as_stripe}


async def test_the_pages_receiver_takes_a_daemons_messages_and_does_each_once(
    reader: Reader, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    await reader.follow(PAGE)
    page = importlib.import_module("shop.receiver")
    before = await pool.fetchval("select balance from accounts")
    async with receiving(page.app(pool, OLD)) as hooks:
        hooks.loses = 1
        await endpoint(pool, f"{hooks.url}/hooks", OLD, NEW)  # one is being replaced; the receiver knows the old one
        payload = '{"type": "invoice.paid",  "account": 7, "amount": 5, "note": "ünïcode"}'
        event = await pool.fetchval(
            "insert into webhook_events (event, payload) values ('invoice.paid', $1) returning id", payload
        )
        await fleet.start("a", CONFIG)
        await empty(pool)
        assert hooks.answers == [204, 204], "the second time it was known"
    kept = await pool.fetch("select webhook_id, body from webhook_inbox where done_at is null")
    assert [tuple(row) for row in kept] == [(f"msg_e{event}", payload.encode())]

    async def credit(conn: asyncpg.Connection, message: Any) -> None:
        await conn.execute("update accounts set balance = balance + $1", message["amount"])

    assert [await page.work_off(pool, credit), await page.work_off(pool, credit)] == [True, False]
    assert await pool.fetchval("select balance from accounts") == before + 5


async def test_work_that_fails_is_done_at_the_next_attempt(reader: Reader, pool: asyncpg.Pool) -> None:
    await reader.follow(PAGE)
    credit = importlib.import_module("shop.once").credit
    before = await pool.fetchval("select balance from accounts")
    with pytest.raises(asyncpg.PostgresError):
        await credit(pool, "msg_1", {"account": 7, "amount": 2**62 * 2 - 1})  # more than the column holds
    await credit(pool, "msg_1", {"account": 7, "amount": 1})
    assert await pool.fetchval("select balance from accounts") == before + 1


async def test_a_receiver_with_another_secret_refuses_and_the_message_stays_due(
    reader: Reader, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    await reader.follow(PAGE)
    inbox = await pool.fetchval("select count(*) from webhook_inbox")
    async with receiving(importlib.import_module("shop.receiver").app(pool, OTHER)) as hooks:
        await endpoint(pool, f"{hooks.url}/hooks", OLD, profile="standard")
        await pool.execute("""insert into webhook_events (event, payload) values ('invoice.paid', '{}')""")
        await fleet.start("a", CONFIG)
        await until_sql(pool, "select exists (select from webhook_deliveries where status = 401 and outcome = 'retry')")
    assert await pool.fetchval("select count(*) from webhook_inbox") == inbox


async def test_each_way_to_verify_accepts_a_daemons_messages_and_none_that_is_changed(
    reader: Reader, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """One endpoint that signs in all forms, while both its secrets hold."""
    await reader.follow(PAGE)
    async with receiving(web.Application()) as hooks:
        styles = ["standard", "standard_ed25519", "github", "stripe"]
        await endpoint(pool, f"{hooks.url}/listen", PRIVATE, OLD, NEW, signing=styles)
        await pool.execute("""insert into webhook_events (event, payload) values ('a', '{"name": "Zoë"}')""")
        await pool.execute("insert into webhook_events (event, body) values ('a', $1)", bytes(range(256)))
        await fleet.start("a", CONFIG)
        await empty(pool)
    text, raw = sorted(hooks.heard, key=lambda message: len(message[0]))
    verify = verifiers()
    github, v1a = verify.pop("github"), verify.pop("verify_v1a")
    assert github(NEW, *text)
    assert v1a(public_of(PRIVATE), *text)
    for name, is_ours in verify.items():
        signature = "stripe-signature" if name == "stripe" else "webhook-signature"
        assert is_ours(OLD, *text), name
        assert is_ours(NEW, *text), name
        assert not is_ours(OTHER, *text), name
        for body, headers in forged(text, signature):
            is_covered = name != "stripe" or (body, headers.get(signature)) != (text[0], text[1][signature])
            assert is_ours(OLD, body, headers) is not is_covered, (name, body, headers)
    for body, headers in forged(text, "webhook-signature"):
        assert not v1a(public_of(PRIVATE), body, headers)
    for body in (text[0] + b" ", b""):
        assert not github(NEW, body, text[1])
    by_bytes = {name for name, is_ours in verify.items() if is_ours(OLD, *raw)}
    assert by_bytes == {"verify_by_hand", "stripe"}, "the libraries read a body as text, as the page says"
    assert v1a(public_of(PRIVATE), *raw)
    assert github(NEW, *raw)


def test_the_message_that_the_page_shows_is_signed_with_the_secret_that_it_shows() -> None:
    shown = next(block.text for block in blocks(PAGE) if block.language == "text")
    head, _, body = shown.rstrip("\n").partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    assert headers["content-length"] == str(len(body.encode()))
    secret = re.findall(r'SECRET = "(whsec_[^"]+)"', PAGE.read_text())
    by_hand: dict[str, Any] = {}
    exec(next(block.text for block in blocks(PAGE) if block.file == "shop/verify_by_hand.py"), by_hand)
    by_hand["time"] = type("then", (), {"time": staticmethod(lambda: float(headers["webhook-timestamp"]))})
    assert by_hand["is_ours"](secret[0], body.encode(), headers)
    by_hand["time"] = type("later", (), {"time": staticmethod(lambda: float(headers["webhook-timestamp"]) + 301)})
    assert not by_hand["is_ours"](secret[0], body.encode(), headers)
