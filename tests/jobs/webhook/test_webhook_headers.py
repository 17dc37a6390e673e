"""A row's headers cannot choose a host, frame a second request, or forge a signature."""

from __future__ import annotations

import json

import msgspec
import pytest

from jobs.webhook.headers import RESERVED
from tests.jobs.webhook.server import OK, Server, says
from tests.jobs.webhook.world import KIND, world

SMUGGLED = [
    *sorted(RESERVED),
    *(name.title() for name in sorted(RESERVED)),
    *("webhook-id", "Webhook-Timestamp", "WEBHOOK-SIGNATURE", "webhook-anything"),
    *("x y", "x:", "x\r\nhost", "x\n", "x\x00", "", " host", "host ", "hóst", "x(", "content-length\t"),
]
BAD_VALUES = [
    *("hunter2\r\nhost: evil", "hunter2\n", "\nhunter2", "hunter2\rb", "hunter2\x00b", "hunter2\x7f", "hunter2\x1b[0m"),
    *("hunter2é", " hunter2", "hunter2 ", "\thunter2", "hunter2\u2028", "hunter2\x85"),
]


def _decode(**args: object) -> object:
    return KIND.decode(json.dumps({"url": "https://example.com/", "payload": 1} | args))


@pytest.mark.req("AS-09")
@pytest.mark.parametrize("name", SMUGGLED)
def test_a_header_that_is_ours_or_no_header_is_refused_before_the_handler(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="headers: "):
        _decode(headers={name: "x"})


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_value_that_could_end_its_line_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="the value of x-a has characters") as refused:
        _decode(headers={"x-a": value})
    assert "hunter2" not in str(refused.value)


def test_the_caps_are_64_headers_and_8_kib() -> None:
    _decode(headers={f"x-{n}": "v" for n in range(64)})
    with pytest.raises(msgspec.ValidationError, match="more than 64"):
        _decode(headers={f"x-{n}": "v" for n in range(65)})
    _decode(headers={"x": "v" * (8192 - 5)})
    with pytest.raises(msgspec.ValidationError, match="more than 8192 bytes"):
        _decode(headers={"x": "v" * (8192 - 4)})


def test_a_header_may_not_come_twice_in_another_case() -> None:
    with pytest.raises(msgspec.ValidationError, match="given twice"):
        _decode(headers={"X-A": "1", "x-a": "2"})


@pytest.mark.parametrize(
    "args",
    [
        {"uri": "x"},
        {"url": ""},
        {"url": "https://example.com/" + "a" * 5000},
        {"headers": {"x": 1}},
        {"secret": []},
        {"secret": ""},
        {"secret": ["whsec_a"] * 11},
        {"timeout": "soon"},
        {"timeout": 0},
        {"timeout": -1},
        {"event": 5},
    ],
)
def test_args_of_the_wrong_shape_are_refused(args: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _decode(**args)


def test_a_payload_is_required() -> None:
    with pytest.raises(msgspec.ValidationError, match="payload"):
        KIND.decode('{"url": "https://example.com/"}')


async def test_a_rows_own_headers_win_over_defaults_and_are_sent_once() -> None:
    given = {"Content-Type": "application/cloudevents+json", "User-Agent": "shop/1", "X-Shop": "42", "empty": ""}
    async with Server(says(OK)) as server, world() as w:
        await w.deliver(server.url(), headers=given)
    (request,) = server.requests
    names = [line.partition(":")[0].lower() for line in request.lines]
    assert len(names) == len(set(names))
    assert {name: request.headers[name.lower()] for name in given} == given


async def test_a_handlers_request_is_framed_in_one_way_only() -> None:
    async with Server(says(OK)) as server, world() as w:
        await w.http.post(
            server.url(), content=b"12345", headers={"transfer-encoding": "chunked", "content-length": "3"}
        )
    (request,) = server.requests
    assert request.body == b"12345"
    assert request.headers["content-length"] == "5"
    assert "transfer-encoding" not in request.headers
