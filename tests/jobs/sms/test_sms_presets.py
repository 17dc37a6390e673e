"""The providers of docs/sms.md, as the page sets them up, against servers that speak as their manuals say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from daemon.config import parse
from jobs.model import Dead, Done, Retry, Snooze
from jobs.sms.client import Sms
from tests.jobs.sms.messages import TO, messages
from tests.jobs.webhook.server import Server, responds

pytestmark = pytest.mark.req("JP-03")

PAGE = Path(__file__).parents[3] / "docs" / "sms.md"
SECRETS = {"twilio": "t", "vonage-key": "k", "vonage-secret": "s", "telnyx": "x"}


def _twilio(code: int | None) -> bytes:
    if code is None:
        return json.dumps({"sid": "SM7", "status": "queued", "error_code": None, "num_segments": "1"}).encode()
    return json.dumps({"code": code, "message": f"The 'To' number {TO} …", "more_info": "…", "status": 400}).encode()


def _vonage(status: str) -> bytes:
    sent = {"to": TO[1:], "status": status} | ({"message-id": "0C7"} if status == "0" else {"error-text": "no"})
    return json.dumps({"message-count": "1", "messages": [sent]}).encode()


def _telnyx(code: str | None) -> bytes:
    said: dict[str, Any] = {"data": {"id": "4031", "to": [{"status": "queued"}]}}
    return json.dumps(said if code is None else {"errors": [{"code": code, "title": "no"}]}).encode()


async def tried(name: str, status: int, body: bytes) -> tuple[Any, str, Any, Any]:
    """What the page's provider makes of an answer: outcome, result, message id; and the request."""
    text = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL))
    settings = parse(text).sms
    async with Server(responds(status, body=body)) as server, messages(server.url(), secrets=SECRETS) as w:
        provider = replace(settings.providers[name], url=server.url())
        w.sms = Sms(replace(settings, providers={name: provider}), w.base.secrets)
        outcome = await w.send(provider=name)
        return outcome, w.record["outcome"], w.record["message_id"], server.requests[0]


@pytest.mark.parametrize(
    ("name", "status", "body", "message_id"),
    [("main", 201, _twilio(None), "SM7"), ("vonage", 200, _vonage("0"), "0C7"), ("telnyx", 200, _telnyx(None), "4031")],
)
async def test_a_message_that_a_provider_takes_is_delivered(
    name: str, status: int, body: bytes, message_id: str
) -> None:
    outcome, result, found, _request = await tried(name, status, body)
    assert isinstance(outcome, Done)
    assert (result, found) == ("delivered", message_id)


@pytest.mark.parametrize(
    ("name", "status", "body", "kind"),
    [
        *(("main", 400, _twilio(code), Dead) for code in (21211, 21610, 21614)),
        *(("main", status, _twilio(code), Snooze) for status, code in ((401, 20003), (429, 20429), (429, 14107))),
        ("main", 500, b"", Retry),
        *(("vonage", 200, _vonage(status), Dead) for status in ("6", "7", "12")),
        *(("vonage", 200, _vonage(status), Snooze) for status in ("1", "4", "9")),
        ("vonage", 200, _vonage("5"), Retry),
        ("telnyx", 400, _telnyx("40310"), Dead),
        ("telnyx", 401, _telnyx("10009"), Snooze),
        ("telnyx", 429, _telnyx("10011"), Snooze),
    ],
)
async def test_what_a_provider_refuses_is_whose_fault_its_manual_says(
    name: str, status: int, body: bytes, kind: type[Any]
) -> None:
    outcome, *_ = await tried(name, status, body)
    assert isinstance(outcome, kind)


FIELDS: dict[str, tuple[bytes, Callable[[Any], Any], Any]] = {
    "main": (
        _twilio(None),
        lambda request: dict(parse_qsl(request.body.decode())),
        {"To": TO, "From": "+15550100", "Body": "Hi"},
    ),
    "vonage": (
        _vonage("0"),
        lambda request: dict(parse_qsl(request.body.decode())),
        {"api_key": "k", "api_secret": "s", "to": TO[1:], "from": "Shop", "text": "Hi", "type": "text"},
    ),
    "telnyx": (
        _telnyx(None),
        lambda request: (json.loads(request.body), request.headers["authorization"]),
        ({"to": TO, "from": "+15550100", "text": "Hi"}, "Bearer x"),
    ),
}


@pytest.mark.parametrize("name", FIELDS)
async def test_a_request_is_what_the_manual_asks_for(name: str) -> None:
    body, seen, wanted = FIELDS[name]
    *_, request = await tried(name, 200, body)
    assert seen(request) == wanted
