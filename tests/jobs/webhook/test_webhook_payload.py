"""What is posted: the row's JSON, bytes of any kind, or what a template makes; the same each time, never too large."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import msgspec
import pytest

from jobs.model import Dead, Done, Snooze
from jobs.webhook.large import Large
from tests.jobs.webhook import receivers
from tests.jobs.webhook.server import OK, Server, says
from tests.jobs.webhook.world import KIND, SECRET, names, world

MOST = 256 * 1024


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("body", [b"", b"a=1&b=%20", bytes(range(256)), "<é/>".encode()])
async def test_bytes_of_any_kind_are_sent_as_they_are_with_their_own_type(body: bytes) -> None:
    async with Server(says(OK)) as server, world() as w:
        for attempt in (1, 2):
            outcome = await w.deliver(
                server.url(),
                None,
                body=_text(body),
                content_type="application/x-www-form-urlencoded",
                job_attempt=attempt,
            )
            assert isinstance(outcome, Done)
    assert [request.body for request in server.requests] == [body, body]
    assert {request.headers["content-type"] for request in server.requests} == {"application/x-www-form-urlencoded"}
    assert w.record["request_bytes"] == len(body)


async def test_what_is_signed_is_what_is_sent() -> None:
    body = "<order>é</order>".encode()
    async with Server(says(OK)) as server, world() as w:
        await w.deliver(server.url(), None, body=_text(body), content_type="application/xml", secret=SECRET)
    (request,) = server.requests
    assert receivers.standard(SECRET, request.body, request.headers)
    assert not receivers.standard(SECRET, request.body + b" ", request.headers)


async def test_a_header_of_the_row_wins_over_its_content_type() -> None:
    async with Server(says(OK)) as server, world() as w:
        await w.deliver(server.url(), content_type="text/plain", headers={"Content-Type": "text/csv"})
    assert server.requests[0].headers["content-type"] == "text/csv"


async def test_256_kib_are_sent_and_a_byte_more_is_a_dead_letter() -> None:
    async with Server(says(OK)) as server, world() as w:
        for size, kind in ((MOST, Done), (MOST + 1, Dead)):
            outcome = await w.deliver(server.url(), None, body=_text(os.urandom(size)), secret=SECRET)
            assert isinstance(outcome, kind)
    assert [len(request.body) for request in server.requests] == [MOST]
    assert w.record["code"] == "payload_too_large"


async def test_the_operator_may_allow_less() -> None:
    async with Server(says(OK)) as server, world(payload_max=7) as w:
        assert isinstance(await w.deliver(server.url(), '{"a":1}'), Done)
        assert isinstance(await w.deliver(server.url(), '{"a": 1}'), Dead)
    assert len(server.requests) == 1


async def test_a_body_larger_than_usual_is_told_of_once_for_each_destination() -> None:
    lookup = names(a_example=["127.0.0.1"], b_example=["127.0.0.1"])
    async with Server(says(OK)) as server, world(lookup=lookup) as w:
        for host, size in (("a", 20 * 1024), ("a", 20 * 1024 + 1), ("a", 30_000), ("b", 30_000)):
            body = _text(os.urandom(size))
            assert isinstance(await w.deliver(server.url(host=f"{host}.example"), None, body=body), Done)
        assert len(server.requests) == 4
    told = [(line["destination"], line["size_bytes"]) for line in w.lines if line["event"] == "webhook_payload_large"]
    assert told == [("a.example", 20 * 1024 + 1), ("b.example", 30_000)]


async def test_what_is_usual_is_the_operators_to_say() -> None:
    async with Server(says(OK)) as server, world(payload_warn=7) as w:
        for payload in ('{"a":1}', '{"a": 1}'):
            await w.deliver(server.url(), payload, job_lane="endpoint:12")
    assert [(line["destination"], line["usual_bytes"]) for line in w.lines] == [("endpoint:12", 7)]


def test_a_destination_is_told_of_again_after_an_hour() -> None:
    now = 0.0
    large = Large(clock=lambda: now)
    assert [large.is_news("a"), large.is_news("a"), large.is_news("b")] == [True, False, True]
    now = 3600.0
    assert large.is_news("a")
    for n in range(2000):
        large.is_news(str(n))
    assert len(large._told_at) == 1000


async def test_a_template_makes_the_body_and_the_signature_is_of_that() -> None:
    template = '{"text": {{ ("Order " ~ payload.id ~ ": " ~ event) | tojson }}}'
    async with Server(says(OK)) as server, world() as w:
        for attempt in (1, 2):
            await w.deliver(
                server.url(), '{"id": 7}', template=template, event="order.paid", secret=SECRET, job_attempt=attempt
            )
    first, second = server.requests
    assert json.loads(first.body) == {"text": "Order 7: order.paid"}
    assert first.body == second.body
    assert receivers.standard(SECRET, first.body, first.headers)


@pytest.mark.parametrize(
    ("template", "code", "says_"),
    [
        ("{{ payload.nothing }}", "template_error", "line 1: 'dict object' has no attribute 'nothing'"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "template_timeout", "30 ms"),
        ("{{ 'x' * 300000 }}", "template_too_large", "more than 262144 bytes"),
    ],
)
async def test_a_template_that_cannot_be_rendered_is_a_dead_letter_that_says_why(
    template: str, code: str, says_: str
) -> None:
    async with Server(says(OK)) as server, world() as w:
        outcome = await w.deliver(server.url(), "{}", template=template)
        assert server.connections == 0
    assert isinstance(outcome, Dead)
    assert outcome.code == w.record["code"] == code
    assert says_ in outcome.reason


async def test_without_a_process_for_templates_nothing_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    async with Server(says(OK)) as server, world() as w:
        outcome = await w.deliver(server.url(), "{}", template="x")
    assert isinstance(outcome, Snooze)
    assert outcome.code == "templates_away"


@pytest.mark.parametrize(
    ("args", "says_"),
    [
        ({}, "payload: is missing"),
        ({"body": "eA==", "payload": 1}, "body: is sent as it is"),
        ({"body": "eA==", "template": "x"}, "body: is sent as it is"),
        ({"body": "no base64!"}, "base64"),
        ({"payload": 1, "content_type": "a\r\nb: c"}, "content-type"),
        ({"payload": 1, "template": "x" * 65537}, "template"),
        ({"payload": 1, "signing": []}, "signing"),
        ({"payload": 1, "signing": ["md5"]}, "signing"),
        ({"payload": 1, "signing": ["github", "github"]}, "signing: names one twice"),
    ],
)
def test_args_that_contradict_each_other_are_refused(args: dict[str, Any], says_: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says_):
        KIND.decode(json.dumps({"url": "https://example.com/"} | args))
