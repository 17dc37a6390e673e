"""A push from its row to the browser, and what each answer of a push service makes of it."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import Any

import pytest

from jobs.model import Dead, Done, Retry, Snooze
from jobs.push.cipher import PLAIN_MAX
from jobs.push.handler import recipient
from jobs.push.judge import HELD_S
from jobs.values import duration
from tests.jobs.push.browser import sender
from tests.jobs.push.pushes import KEY, PUBLIC, SUBJECT, pushes
from tests.jobs.webhook.server import Server, hangs_up, responds, stays_silent
from tests.jobs.webhook.world import sockets_made

pytestmark = pytest.mark.req("JP-03")

CREATED = responds(201, "location: https://push.example/m/7?token=x")


async def test_a_thousand_messages_are_read_by_their_browser_and_their_sender_is_verified() -> None:
    dice = random.Random(8291)
    sizes = [dice.choice([dice.randint(0, 30), dice.randint(0, PLAIN_MAX // 6 - 1)]) for _ in range(1000)]
    payloads = ["".join(dice.choices('aé€𝄞"\\\n\x7f ', k=size)) for size in sizes]
    async with Server(CREATED) as server, pushes() as w:
        origin = f"http://127.0.0.1:{server.port}"
        for payload in payloads:
            assert isinstance(await w.send(server.url(), payload=payload), Done)
    for request, payload in zip(server.requests, payloads, strict=True):
        assert json.loads(w.browser.read(request.body)) == payload
        assert sender(request.headers, origin, PUBLIC)["sub"] == SUBJECT
    assert len({request.headers["authorization"] for request in server.requests}) == 1, "one token for a service"
    assert server.connections == 1


async def test_a_request_has_the_headers_that_services_ask_for() -> None:
    async with Server(CREATED) as server, pushes() as w:
        await w.send(server.url(), ttl="90s", urgency="high", topic="mail-7")
        headers = server.requests[0].headers
        await w.send(server.url())
    wanted = {"ttl": "90", "urgency": "high", "topic": "mail-7", "content-encoding": "aes128gcm"}
    assert {name: headers[name] for name in wanted} == wanted
    assert server.requests[1].headers["ttl"] == "86400"
    assert "topic" not in server.requests[1].headers
    assert "x-correlation-id" not in headers


@pytest.mark.parametrize(
    ("args", "body"),
    [
        ({"payload": {"a": [1, None]}}, b'{"a": [1, null]}'),
        ({"payload": "x"}, b'"x"'),
        ({"payload": None}, b"null"),
        ({"payload": ..., "text": "just é"}, "just é".encode()),
        ({"payload": {"who": "Ann"}, "template": "Hello {{ payload.who }}"}, b"Hello Ann"),
    ],
)
async def test_a_payload_goes_as_json_a_text_as_it_is_a_template_rendered(args: dict[str, Any], body: bytes) -> None:
    async with Server(CREATED) as server, pushes() as w:
        assert isinstance(await w.send(server.url(), **args), Done)
        assert w.browser.read(server.requests[0].body) == body


async def test_what_is_too_large_is_not_sent() -> None:
    async with Server(CREATED) as server, pushes() as w:
        assert isinstance(await w.send(server.url(), payload=..., text="é" * (PLAIN_MAX // 2)), Done)
        outcome = await w.send(server.url(), payload=..., text="é" * (PLAIN_MAX // 2 + 1))
        assert isinstance(outcome, Dead)
        assert (w.record["outcome"], w.record["code"]) == ("hard", "payload_too_large")
        outcome = await w.send(server.url(), payload={"n": 9999}, template="{{ 'x' * payload.n }}")
        assert isinstance(outcome, Dead)
        assert w.record["code"] == "template_too_large"
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_a_message_that_is_taken_is_delivered_and_logged(status: int) -> None:
    async with Server(responds(status, "location: https://push.example/m/7?token=x")) as server, pushes() as w:
        assert isinstance(await w.send(server.url()), Done)
    shown = {"channel": "push", "outcome": "delivered", "code": f"http_{status}", "service": "127.0.0.1"}
    shown |= {"recipient": recipient(server.url()), "message_id": "https://push.example/m/7?token=***"}
    assert {name: w.record[name] for name in shown} == shown
    assert w.record["phases"]["first_byte"] > 0
    assert server.url() not in json.dumps(w.logged), "whoever reads the log cannot send"


@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_is_gone_is_over_and_whoever_keeps_it_is_told(status: int) -> None:
    async with Server(responds(status)) as server, pushes() as w:
        outcome = await w.send(server.url())
    assert isinstance(outcome, Dead)
    assert (outcome.code, outcome.lane_fault) == ("gone", False)
    assert w.record["outcome"] == "hard"
    assert w.events == [{"endpoint": server.url(), "status": status}]


async def test_a_message_that_the_service_finds_too_large_is_over() -> None:
    async with Server(responds(413)) as server, pushes() as w:
        outcome = await w.send(server.url())
    assert isinstance(outcome, Dead)
    assert (w.record["outcome"], w.record["code"], w.events) == ("hard", "too_large", [])


@pytest.mark.parametrize("status", [429, 503])
async def test_a_service_that_asks_for_time_gets_it_for_all_of_its_messages(status: int) -> None:
    async with Server(responds(status, "retry-after: 120")) as server, pushes() as w:
        outcome = await w.send(server.url())
    assert isinstance(outcome, Retry)
    assert (outcome.after_s, outcome.lane_after_s) == (120.0, 120.0)
    assert (w.record["outcome"], w.record["code"]) == ("soft", f"http_{status}")


@pytest.mark.parametrize(("status", "is_ill"), [(500, True), (502, True), (405, False), (406, False), (307, False)])
async def test_other_answers_are_tried_again(status: int, is_ill: bool) -> None:
    async with Server(responds(status, "location: https://elsewhere.example/")) as server, pushes() as w:
        outcome = await w.send(server.url())
        assert len(server.requests) == 1
    assert isinstance(outcome, Retry)
    assert outcome.lane_fault is is_ill
    assert w.record["outcome"] == "soft"


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_key_that_a_service_never_took_is_charged_to_nobody_and_told_to_the_operator(status: int) -> None:
    async with Server(responds(status, body=b"invalid\x00 JWT")) as server, pushes() as w:
        outcome = await w.send(server.url())
    assert isinstance(outcome, Snooze)
    assert (outcome.after_s, outcome.lane_after_s) == (HELD_S, HELD_S)
    assert (w.record["outcome"], w.record["code"], w.record["reply"]) == (
        "deferred",
        "key_refused",
        "invalid\ufffd JWT",
    )
    assert [line["event"] for line in w.lines if line["level"] == "error"] == ["push_key_refused"]


async def test_one_subscription_made_with_another_key_does_not_hold_up_those_of_the_same_service() -> None:
    async with Server(CREATED) as server, pushes() as w:
        await w.send(server.url("/well"))
        server.answer = responds(403)
        for n in range(1, 4):  # the same one, again and again
            outcome = await w.send(server.url("/stale"), job={"attempt": n})
            assert isinstance(outcome, Retry)
            assert (outcome.code, outcome.lane_fault, outcome.lane_after_s) == ("refused", False, None)
    assert w.record["outcome"] == "soft"
    assert w.lines == []


async def test_a_service_that_refuses_one_after_another_means_the_key() -> None:
    async with Server(CREATED) as server, pushes() as w:
        await w.send(server.url("/well"))
        server.answer = responds(401)
        kinds = [type(await w.send(server.url(f"/{n}"))) for n in range(4)]
        assert kinds == [Retry, Retry, Snooze, Snooze]
        server.answer = CREATED
        await w.send(server.url("/1"))
        server.answer = responds(401)
        assert isinstance(await w.send(server.url("/1")), Retry), "it takes them again"


async def test_a_stranger_who_refuses_everything_keeps_no_row_for_ever() -> None:
    async with Server(responds(403)) as server, pushes(push={"refused_for": duration("1h")}) as w:
        w.db.tried_s = timedelta(minutes=59).total_seconds()
        assert isinstance(await w.send(server.url()), Snooze)
        w.db.tried_s += 120
        outcome = await w.send(server.url())
    assert isinstance(outcome, Dead)
    assert (w.record["outcome"], w.record["code"]) == ("hard", "refused")


async def test_silence_after_the_request_is_unknown_and_tried_again() -> None:
    async with Server(hangs_up) as server, pushes() as w:
        assert isinstance(await w.send(server.url()), Retry)
        assert (w.record["outcome"], w.record["code"]) == ("unknown", "connection_closed")
        server.answer = stays_silent
        assert isinstance(await w.send(server.url(), timeout="50ms"), Retry)
        assert (w.record["outcome"], w.record["code"]) == ("unknown", "timeout")


async def test_nothing_is_connected_to_that_is_not_public() -> None:
    async with pushes(allow_addresses=(), allow_http=False) as w:
        for endpoint in ("https://127.0.0.1/x", "https://[::1]/x", "http://push.example/x", "https://169.254.169.254/"):
            with sockets_made() as made:
                outcome = await w.send(endpoint)
            assert isinstance(outcome, Dead)
            assert (w.record["outcome"], w.record["code"], made) == ("hard", "blocked", [])


async def test_a_dry_run_does_all_but_the_connection_and_writes_nothing() -> None:
    async with Server(CREATED) as server, pushes() as w:
        outcome = await w.send(server.url("/s?secret=1"), dry_run=True)
        bad = await w.send(server.url(), dry_run=True, payload=..., text="x" * 4000)
        assert server.connections == 0
    assert isinstance(outcome, Done)
    assert outcome.result["would"].startswith("POST 359 bytes to http://127.0.0.1")
    assert outcome.result["would"].endswith("?secret=***")
    assert isinstance(bad, Dead)
    assert w.logged == []


@pytest.mark.parametrize(
    ("push", "secrets", "code"),
    [
        ({"private_key": None}, {"vapid": KEY}, "push_not_set_up"),
        ({"subject": None}, {"vapid": KEY}, "push_not_set_up"),
        ({}, {"other": KEY}, "secret_missing"),
        ({}, {"vapid": "hunter2"}, "secret_invalid"),
    ],
)
async def test_a_key_that_is_not_there_sends_nothing_and_says_so(
    push: dict[str, Any], secrets: dict[str, str], code: str
) -> None:
    async with Server(CREATED) as server, pushes(push=push, secrets=secrets) as w:
        outcome = await w.send(server.url())
        assert server.connections == 0
    assert isinstance(outcome, Retry)
    assert (outcome.code, w.record["outcome"]) == (code, "soft")
    assert "hunter2" not in outcome.reason + json.dumps(w.lines)


async def test_a_key_that_is_replaced_counts_at_once_and_begins_anew_with_each_service() -> None:
    secrets = {"vapid": KEY}
    async with Server(CREATED) as server, pushes(secrets=secrets) as w:
        await w.send(server.url())
        w.base.secrets._env["JOBSD_SECRET_VAPID"] = KEY[:-1] + "E"  # type: ignore[index]
        server.answer = responds(403)
        assert isinstance(await w.send(server.url()), Snooze)
        assert f"k={PUBLIC}" not in server.requests[-1].headers["authorization"]
