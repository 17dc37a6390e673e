"""Whatever a tenant writes into a row, the wire carries one request, to a judged address, with the headers we meant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

import jobs.webhook.transport
from jobs.model import Dead, Done
from jobs.secrets import Secrets
from tests.jobs.webhook.server import OK, Request, Server, responds, says
from tests.jobs.webhook.world import SECRET, sockets_made, world

pytestmark = pytest.mark.req("AS-09")

SMUGGLED = "POST /evil HTTP/1.1\r\nhost: evil\r\ncontent-length: 0\r\n\r\n"
TEXTS = [
    *("a\r\nevil: 1", "a\nevil: 1", "a\revil: 1", "a\x00evil: 1", "a\x0b\x0cevil: 1", "a\x85evil: 1", "a\u2028evil: 1"),
    *(
        "a\r\n evil: 1",
        f"\r\n\r\n{SMUGGLED}",
        f"\n\n{SMUGGLED}",
        "a\u560d\u560aevil: 1",
        "%0d%0aevil: 1",
        "%E5%98%8Aevil",
    ),
    *("\ud800", "\ufeffa", "a\u202eb", "0\r\n\r\n" + SMUGGLED, "a" * 9000, "{{ 7 * 7 }}", "secret://x\r\nevil: 1"),
]
PLACES = [
    *("path", "query", "header", "name", "content_type", "event", "payload", "correlation_id", "traceparent", "secret"),
    *("header secret", "template", "user"),
]
OURS = {
    *("host", "content-length", "content-type", "user-agent", "accept", "accept-encoding", "webhook-id"),
    *("webhook-timestamp", "webhook-signature", "x-hub-signature-256", "x-correlation-id", "x-mine"),
}


def _row(place: str, text: str) -> dict[str, Any]:
    """Args and columns of a row with `text` in that place."""
    match place:
        case "header":
            return {"headers": {"x-mine": text}}
        case "name":
            return {"headers": {text: "x"}}
        case "correlation_id" | "traceparent":
            return {f"job_{place}": text}
        case "header secret":
            return {"headers": {"x-mine": "secret://mine"}}
        case "secret":
            return {"secret": text, "signing": ["github"]}
        case "content_type" | "event":
            return {place: text}
        case "template":
            return {"template": text}
    return {}


@pytest.mark.parametrize("place", PLACES)
async def test_no_text_of_a_row_becomes_a_header_or_a_request(place: str) -> None:
    async with Server(says(OK)) as server, world() as w:
        for text in TEXTS:
            path = {"path": f"/{text}", "query": f"/?q={text}"}.get(place, "/hook")
            url = server.url(path) if place != "user" else f"http://{text}@127.0.0.1:{server.port}/"
            payload = json.dumps(text) if place == "payload" else '{"a": 1}'
            sent = len(server.requests)
            w.secrets = Secrets(env={"JOBSD_SECRET_MINE": text})
            try:
                outcome = await w.deliver(url, payload, **_row(place, text))
            except msgspec.DecodeError:
                assert len(server.requests) == sent, "refused, and sent"
                continue
            assert len(server.requests) - sent == isinstance(outcome, Done), repr(text)
            for request in server.requests[sent:]:
                assert request.line.startswith("POST /")
                assert request.line.endswith(" HTTP/1.1")
                assert set(request.headers) <= OURS | {text.lower()}, repr(text)
                assert len(request.lines) == len(request.headers), "each once"
                assert request.headers["host"] == f"127.0.0.1:{server.port}"
                assert int(request.headers["content-length"]) == len(request.body)
        assert not any("evil" in request.headers for request in server.requests)


async def test_a_name_that_is_rebound_while_its_client_lives_is_judged_at_each_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs.webhook.transport, "_DNS_CACHE_S", 0)
    answers = iter([["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1", "::1"], ["127.0.0.1"]])

    async def lookup(_host: str) -> Sequence[str]:
        return next(answers)

    goodbye = responds(200, "connection: close")
    async with Server(goodbye) as server, world(lookup=lookup) as w:
        for is_good in (True, True, False, False, True):
            with sockets_made() as sockets:
                outcome = await w.deliver(server.url(host="evil.example"))
            assert isinstance(outcome, Done if is_good else Dead)
            assert bool(sockets) is is_good
        assert server.connections == len(server.requests) == 3


async def test_a_receiver_gets_no_cookie_back() -> None:
    async with Server(responds(200, "set-cookie: session=1; Path=/")) as server, world() as w:
        for _ in range(2):
            await w.deliver(server.url(), secret=SECRET)
    assert all("cookie" not in request.headers for request in server.requests)


async def test_what_an_answer_says_changes_nothing_of_the_next_request() -> None:
    """Headers by which servers steer browsers."""
    asked = ['alt-svc: h2=":443"', "upgrade: h2c", "refresh: 0; url=http://10.0.0.1/", "content-location: /other"]
    asked += ["www-authenticate: Basic realm=x", "proxy-authenticate: Basic", "link: </x>; rel=preload", "trailer: x"]
    lines: list[tuple[str, tuple[str, ...]]] = []

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        lines.append((request.line, tuple(line for line in request.lines if not line.startswith("webhook-timestamp"))))
        await responds(401, *asked)(request, writer)

    async with Server(answer) as server, world() as w:
        for _ in range(3):
            await w.deliver(server.url())
    assert len(set(lines)) == 1
    assert len(lines) == 3
