"""A text message from its row to the provider, and what each answer makes of it."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import msgspec
import pytest

from jobs.model import Dead, Done, Retry, Snooze
from jobs.sms.args import lane, masked
from jobs.sms.settings import ProviderSettings, SmsSettings
from jobs.values import rate
from tests.jobs.sms.messages import KIND, TO, messages
from tests.jobs.webhook.server import Server, hangs_up, responds, stays_silent
from tests.jobs.webhook.world import sockets_made

pytestmark = pytest.mark.req("JP-03")

TAKEN = responds(201, body=b'{"sid": "SM1"}')
SENDER: dict[str, Any] = {"from": "+15550100"}
TRICKY = 'A & B = {to} "{x}" %00 é €\n😀'


async def test_a_form_is_filled_in_and_says_no_more_than_its_fields() -> None:
    async with (
        Server(TAKEN) as server,
        messages(server.url(), username="AC7", password="secret://twilio", secrets={"twilio": "pa:ss{to}"}) as w,
    ):
        assert isinstance(await w.send(text=TRICKY, **SENDER), Done)
    (request,) = server.requests
    assert parse_qsl(request.body.decode()) == [("To", TO), ("From", "+15550100"), ("Body", TRICKY)]
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"AC7:pa:ss{to}"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_json_is_filled_in_and_stays_json() -> None:
    body = '{"to": ["{digits}"], "body": {"text": "{text}", "n": 1, "type": "{type}"}, "from": "{from}"}'
    headers = {"Idempotency-Key": "{id}", "X-Key": "secret://key"}
    async with (
        Server(TAKEN) as server,
        messages(
            server.url(),
            form={},
            json=body,
            password="secret://token",
            headers=headers,
            idempotent=True,
            secrets={"token": "t0ken", "key": "{k}"},
        ) as w,
    ):
        await w.send(text=TRICKY)
        await w.send(text=TRICKY)
        await w.send(text="other")
    first, second, third = server.requests
    says: dict[str, Any] = {"to": [TO[1:]], "body": {"text": TRICKY, "n": 1, "type": "unicode"}, "from": "Shop"}
    assert json.loads(first.body) == says
    assert json.loads(third.body)["body"]["type"] == "text"
    assert (first.headers["authorization"], first.headers["x-key"]) == ("Bearer t0ken", "{k}")
    ids = [request.headers["idempotency-key"] for request in (first, second, third)]
    assert ids[0] == ids[1] != ids[2]
    assert w.sms.provider("main").json == body


async def test_a_get_has_its_form_in_the_query_and_logs_none_of_it() -> None:
    async with Server(TAKEN) as server, messages(server.url("/send?key=1"), method="GET") as w:
        assert isinstance(await w.send(text=TRICKY), Done)
        tried = await w.send(text=TRICKY, dry_run=True)
    (request,) = server.requests
    method, path, _ = request.line.split()
    assert (method, request.body) == ("GET", b"")
    assert parse_qs(path.partition("?")[2])["Body"] == [TRICKY]
    assert isinstance(tried, Done)
    assert tried.result["parts"] == 1
    assert TO[1:] not in json.dumps([tried.result, w.logged])


async def test_a_message_that_is_taken_is_logged_with_its_parts_and_a_masked_number() -> None:
    async with Server(TAKEN) as server, messages(server.url(), id_path="sid") as w:
        outcome = await w.send(text="ł" * 71)
    assert isinstance(outcome, Done)
    assert outcome.result == {"status": 201, "message_id": "SM1"}
    shown: dict[str, Any] = {
        "channel": "sms",
        "outcome": "delivered",
        "code": "http_201",
        "service": "main",
        "message_id": "SM1",
    }
    shown |= {"parts": 2, "recipient": "+447*******23", "reply": None}
    assert {name: w.record[name] for name in shown} == shown


CODES: dict[str, Any] = {
    "code_path": "errors.0.code",
    "hard": ("21211", "http_410"),
    "soft": ("9",),
    "deferred": ("7",),
}


@pytest.mark.parametrize(
    ("status", "code", "kind", "result", "says"),
    [
        (400, 21211, Dead, "hard", "provider_21211"),
        (400, 9, Retry, "soft", "provider_9"),
        (400, "7", Snooze, "deferred", "provider_7"),
        (400, 1, Dead, "hard", "provider_1"),
        (422, None, Dead, "hard", "http_422"),
        (410, None, Dead, "hard", "http_410"),
        (401, None, Snooze, "deferred", "http_401"),
        (402, None, Snooze, "deferred", "http_402"),
        (404, None, Snooze, "deferred", "http_404"),
        (302, None, Snooze, "deferred", "http_302"),
        (429, None, Snooze, "deferred", "http_429"),
        (500, None, Retry, "soft", "http_500"),
        (503, None, Retry, "soft", "http_503"),
        (502, None, Dead, "unknown", "http_502"),
        (504, 21211, Dead, "hard", "provider_21211"),
        (200, 21211, Dead, "hard", "provider_21211"),
        (200, 5, Retry, "soft", "provider_5"),
    ],
)
async def test_the_providers_own_code_counts_first_then_the_status(
    status: int, code: Any, kind: type[Any], result: str, says: str
) -> None:
    body = json.dumps({"errors": [{"code": code, "message": f"bad {TO} or {TO[1:]}: Hi"}]}).encode()
    async with Server(responds(status, "retry-after: 77", body=body)) as server, messages(server.url(), **CODES) as w:
        outcome = await w.send()
    assert isinstance(outcome, kind)
    assert (w.record["outcome"], w.record["code"]) == (result, says)
    assert TO[1:] not in json.dumps(w.logged)
    assert "+447*******23" in w.record["reply"]
    if kind is Snooze:
        assert (outcome.after_s, outcome.lane_after_s, outcome.lane_fault) == (77.0, 77.0, True)
        assert [line["event"] for line in w.lines] == ["sms_provider_refuses"]


@pytest.mark.parametrize(
    ("body", "kind", "result"),
    [
        (b'{"messages": [{"status": "0", "message-id": "m1"}]}', Done, "delivered"),
        (b'{"messages": [{"status": "4"}]}', Snooze, "deferred"),
        (b'{"messages": [{"status": "7"}]}', Dead, "hard"),
        (b'{"messages": [{"status": "5"}]}', Retry, "soft"),
        (b'{"messages": []}', Dead, "unknown"),
        (b"<html>", Dead, "unknown"),
        (b"", Dead, "unknown"),
        (b"[" * 50_000, Dead, "unknown"),
        (b'{"messages": {"0": {"status": true}}}', Dead, "unknown"),
    ],
)
async def test_a_provider_that_says_200_to_everything_is_read_before_it_is_believed(
    body: bytes, kind: type[Any], result: str
) -> None:
    paths: dict[str, Any] = {"code_path": "messages.0.status", "id_path": "messages.0.message-id"}
    codes: dict[str, Any] = {"ok": ("0",), "hard": ("6", "7"), "deferred": ("1", "4", "8", "9")}
    async with Server(responds(200, body=body)) as server, messages(server.url(), **paths, **codes) as w:
        assert isinstance(await w.send(), kind)
    assert w.record["outcome"] == result


@pytest.mark.parametrize("answer", [hangs_up, stays_silent, responds(504), responds(200, body=b"?")])
@pytest.mark.parametrize(
    ("repeats", "kind"), [({}, Dead), ({"resend_unknown": True}, Retry), ({"idempotent": True}, Retry)]
)
async def test_a_message_of_which_nobody_knows_is_sent_again_only_where_that_is_meant(
    answer: Any, repeats: dict[str, Any], kind: type[Any]
) -> None:
    form = {"to": "{to}", "text": "{text}", "ref": "{id}"}
    async with Server(answer) as server, messages(server.url(), form=form, code_path="code", ok=("0",), **repeats) as w:
        outcome = await w.send(timeout="0.3s")
        assert len(server.requests) == 1
    assert isinstance(outcome, kind)
    assert w.record["outcome"] == "unknown"
    if kind is Dead:
        assert outcome.code == "unknown"


async def test_a_message_that_may_go_once_takes_no_connection_that_may_be_dead() -> None:
    """A second try at once, as webhooks make it, would be a second message."""
    answers = [TAKEN, hangs_up]

    async def answer(request: Any, writer: Any) -> None:
        await answers[len(server.requests) - 1](request, writer)

    async with Server(answer) as server, messages(server.url()) as w:
        await w.send()
        assert isinstance(await w.send(), Dead)
        assert (len(server.requests), server.connections) == (2, 2)


async def test_nothing_that_left_is_nothing_to_doubt() -> None:
    async with Server(TAKEN) as server:
        url = server.url()
    async with messages(url) as w:
        assert isinstance(await w.send(), Retry)
        assert (w.record["outcome"], w.record["code"]) == ("soft", "connection_refused")


@pytest.mark.parametrize(("repeats", "kind"), [({}, Dead), ({"resend_unknown": True}, Done)])
async def test_a_message_whose_daemon_was_lost_is_sent_again_only_where_that_is_meant(
    repeats: dict[str, Any], kind: type[Any]
) -> None:
    async with Server(TAKEN) as server, messages(server.url(), **repeats) as w:
        outcome = await w.send(job={"crashes": 1, "attempt": 2})
        assert isinstance(outcome, kind)
        assert len(server.requests) == (kind is Done)
    assert w.record["possible_duplicate"] is True
    if kind is Dead:
        assert (w.record["outcome"], w.record["code"], outcome.code) == ("unknown", "lost", "unknown")


@pytest.mark.parametrize(
    ("given", "args", "code"),
    [
        ({"parts": 1}, {"text": "a" * 161}, "text_too_long"),
        ({"numbers": ("+48", "+1")}, {}, "number_not_allowed"),
        ({"from_": None}, {}, "no_sender"),
        ({}, {"text": ..., "template": "{{ payload.x }}", "payload": {"y": 1}}, "template_error"),
        ({}, {"text": ..., "template": "{% if payload %}{% endif %}", "payload": 1}, "text_empty"),
        ({"headers": {"x-to": "{text}"}}, {"text": "a\r\nhost: b"}, "bad_header"),
    ],
)
async def test_what_cannot_be_sent_is_not(given: dict[str, Any], args: dict[str, Any], code: str) -> None:
    async with Server(TAKEN) as server, messages(server.url(), **given) as w:
        outcome = await w.send(**args)
        assert server.connections == 0
    assert isinstance(outcome, Dead)
    assert (w.record["outcome"], w.record["code"]) == ("hard", code)


async def test_a_template_is_rendered_with_the_payload() -> None:
    async with Server(TAKEN) as server, messages(server.url()) as w:
        await w.send(text=..., template="Hello {{ payload.who }}", payload={"who": "Ann"})
    assert parse_qs(server.requests[0].body.decode())["Body"] == ["Hello Ann"]


async def test_what_the_operator_has_not_set_up_can_be_put_right() -> None:
    async with Server(TAKEN) as server, messages(server.url(), password="secret://nowhere") as w:
        assert isinstance(await w.send(provider="other"), Retry)
        assert w.record["code"] == "provider_unknown"
        assert isinstance(await w.send(), Retry)
        assert w.record["code"] == "secret_missing"
        assert server.connections == 0


async def test_a_provider_that_is_not_public_is_not_connected_to_unless_the_operator_allows_it() -> None:
    async with messages("https://10.0.0.7/send", webhook={"allow_addresses": ()}) as w:
        with sockets_made() as made:
            assert isinstance(await w.send(), Dead)
    assert (w.record["code"], made) == ("blocked", [])


@pytest.mark.parametrize(
    "to", ["447700900123", "+0447700900", "+44 7700 900123", "+12345", "+1234567890123456", "+44770090012a", f"{TO}\n"]
)
def test_a_number_is_one_of_e_164(to: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="to"):
        KIND.decode(json.dumps({"to": to, "text": "a"}))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "give either text or template"),
        ({"text": "a", "template": "b"}, "give either text or template"),
        ({"template": "b"}, "goes with template"),
        ({"text": "a", "payload": 1}, "goes with template"),
        ({"text": ""}, "text"),
        ({"text": "a", "from": "a\nb"}, "from"),
        ({"text": "a", "provider": "a\n"}, "provider"),
        ({"text": "a", "timeout": 0}, "timeout"),
    ],
)
def test_args_that_say_too_little_or_too_much_are_refused(args: dict[str, Any], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        KIND.decode(json.dumps({"to": TO, **args}))


def test_a_lane_is_the_providers_and_no_relays() -> None:
    assert lane(KIND.decode(json.dumps({"to": TO, "text": "a"}))) == "sms:main"
    assert lane(KIND.decode(json.dumps({"to": TO, "text": "a", "provider": "bulk"}))) == "sms:bulk"
    assert masked("+1234567") == "+123**67"


FORM = {"to": "{to}", "text": "{text}"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "form: say what is sent"),
        ({"form": FORM, "json": "{}"}, "form: say what is sent"),
        ({"json": '{"a": "{to} {text}"}', "method": "GET"}, "json: a GET has no body"),
        ({"json": "{"}, "json: "),
        ({"json": '{"a": "{to}"}'}, r"json: \{text\}"),
        ({"form": {"a": "{text}"}}, r"form: \{text\}, and \{to\}"),
        ({"form": {**FORM, "b": "{form}"}}, r"there is no \{form\}"),
        ({"form": FORM, "idempotent": True}, r"idempotent: \{id\}"),
        ({"form": FORM, "username": "a"}, "username: "),
        ({"form": FORM, "id_path": "a..b"}, "id_path: "),
        ({"form": FORM, "ok": ("0",)}, "ok: "),
        ({"form": FORM, "burst": 1}, "burst: "),
        ({"form": FORM, "rate": rate("2000000/s")}, "rate: "),
    ],
)
def test_a_provider_that_cannot_work_is_refused_with_its_key(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ProviderSettings(url="https://a.example", **given)


def test_a_beginning_of_numbers_is_one() -> None:
    with pytest.raises(ValueError, match="numbers: '44'"):
        SmsSettings(numbers=("44",))
