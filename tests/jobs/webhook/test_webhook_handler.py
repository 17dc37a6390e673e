"""One row, one POST: what is sent, what is said about it, what is logged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from time import time
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook

from jobs.model import Dead, Done, Ladder, Retry
from tests.jobs.webhook.server import NO_CONTENT, OK, Request, Server, hangs_up, responds, says, stays_silent
from tests.jobs.webhook.world import KIND, SECRET, names, sockets_made, world

OTHER_SECRET = "whsec_" + "B" * 32
KEYS = {
    *("endpoint", "endpoint_id", "event", "event_id", "url", "outcome", "code", "status", "address", "phases"),
    *("duration_ms", "request_bytes", "replay_id", "began_at"),
    *("response_headers", "response_body", "response_truncated"),
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.req("BJ-15")
def test_the_kind_is_tried_after_1_5_30_minutes_and_2_hours() -> None:
    assert KIND.retry == Ladder("1m", "5m", "30m", "2h")


@pytest.mark.req("BJ-15")
async def test_an_attempt_leaves_one_record_with_these_keys() -> None:
    answer = responds(503, "retry-after: 90", "set-cookie: session=1", "X-Request-Id: r-1", body=b"sorry")
    before = time()
    async with Server(answer) as server, world() as w:
        outcome = await w.deliver(server.url("/hook?token=hunter2&x"), event="order.paid")
    assert isinstance(outcome, Retry)
    assert (outcome.code, outcome.after_s) == ("http_503", 90.0)
    (record,) = w.records
    assert set(record) == KEYS
    phases, duration_ms = record["phases"], record["duration_ms"]
    assert set(phases) == {"connect", "first_byte", "body"}  # an IP literal: nothing to resolve
    assert 0 < sum(phases.values()) <= duration_ms
    assert before <= record["began_at"] <= before + 60
    assert {name: record[name] for name in KEYS - {"phases", "duration_ms", "began_at"}} == {
        "endpoint": None,
        "endpoint_id": None,
        "event": "order.paid",
        "event_id": None,
        "replay_id": None,
        "url": f"http://127.0.0.1:{server.port}/hook?token=***&***",
        "outcome": "retry",
        "code": "http_503",
        "status": 503,
        "address": "127.0.0.1",
        "request_bytes": len('{"a": 1}'),
        "response_headers": {"content-length": "5", "retry-after": "90", "x-request-id": "r-1"},
        "response_body": "sorry",
        "response_truncated": False,
    }
    json.dumps(record)


@pytest.mark.parametrize("payload", ['{"b": 1,  "a":2.50}', "null", '"é\\u0000"', "[1e400]", "12345678901234567890123"])
async def test_the_payload_is_sent_byte_for_byte(payload: str) -> None:
    async with Server(says(NO_CONTENT)) as server, world() as w:
        for attempt in (1, 2):
            await w.deliver(server.url(), payload, job_attempt=attempt)
    assert [request.body for request in server.requests] == [payload.encode()] * 2


@pytest.mark.req("OR-08")
async def test_a_retry_carries_the_same_id_and_a_fresh_timestamp_and_verifies() -> None:
    async with Server(says(OK)) as server, world() as w:
        for attempt in (1, 2):
            await w.deliver(server.url(), secret=SECRET, job_id=42, job_attempt=attempt)
    assert [request.headers["webhook-id"] for request in server.requests] == ["msg_42", "msg_42"]
    for request in server.requests:
        assert Webhook(SECRET).verify(request.body, request.headers) == {"a": 1}


async def test_each_of_several_secrets_verifies_and_a_reference_is_resolved_at_send_time() -> None:
    async with Server(says(OK)) as server, world(secrets={"shop": SECRET}) as w:
        await w.deliver(server.url(), secret=["secret://shop", OTHER_SECRET])
    (request,) = server.requests
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(request.body, request.headers)


async def test_without_a_secret_there_is_an_id_and_no_signature() -> None:
    async with Server(says(OK)) as server, world() as w:
        await w.deliver(server.url())
    (request,) = server.requests
    assert request.line == "POST /hook HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "jobsd"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["webhook-id"] == "msg_7"
    assert "webhook-signature" not in request.headers


async def test_a_header_may_be_a_secret_reference() -> None:
    async with Server(says(OK)) as server, world(secrets={"token": "Bearer hunter2"}) as w:
        await w.deliver(server.url(), headers={"authorization": "secret://token"})
    assert server.requests[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in json.dumps(w.records)


@pytest.mark.parametrize(
    ("args", "code", "kind"),
    [
        ({"secret": "secret://nobody"}, "secret_missing", Retry),
        ({"secret": "secret://weak"}, "secret_invalid", Retry),
        ({"secret": "whsec_hunter2"}, "secret_invalid", Dead),
        ({"headers": {"x": "secret://nobody"}}, "secret_missing", Retry),
        ({"headers": {"x": "secret://lines"}}, "secret_invalid", Retry),
    ],
)
async def test_a_secret_that_cannot_be_used_sends_nothing(
    args: Mapping[str, Any], code: str, kind: type[Retry | Dead]
) -> None:
    """What the operator can put right is tried again; what stands in the row never changes."""
    known = {"weak": "hunter2", "lines": "hunter2\r\nhost: evil"}
    async with Server(says(OK)) as server, world(secrets=known) as w:
        outcome = await w.deliver(server.url(), **args)
    assert isinstance(outcome, kind)
    assert outcome.code == w.record["code"] == code
    assert server.connections == 0
    assert "hunter2" not in outcome.reason + json.dumps(w.records)


async def test_trace_and_correlation_are_passed_on() -> None:
    async with Server(says(OK)) as server, world() as w:
        await w.deliver(server.url(), job_traceparent=TRACE, job_correlation_id="order-9")
        await w.deliver(server.url(), job_traceparent="x\r\nhost: evil", job_correlation_id="a\r\nb: c")
    first, second = (request.headers for request in server.requests)
    assert (first["traceparent"], first["x-correlation-id"]) == (TRACE, "order-9")
    assert not {"traceparent", "x-correlation-id", "b"} & set(second)
    assert second["host"] == f"127.0.0.1:{server.port}"


async def test_a_connection_is_used_again_and_the_record_still_knows_the_address() -> None:
    async with Server(says(OK)) as server, world() as w:
        with sockets_made() as sockets:
            for _ in range(5):
                await w.deliver(server.url())
        assert server.connections == 1
        assert len(sockets) == 2  # one here, one at the server
    assert [record["address"] for record in w.records] == ["127.0.0.1"] * 5


async def test_a_dead_pooled_connection_costs_no_attempt() -> None:
    """The first connection answers once and then hangs up on the next request: the message goes out again at once,
    under the same id."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.connection == 1 and len(server.requests) > 1:
            writer.close()
        else:
            await says(OK)(request, writer)

    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
        outcome = await w.deliver(server.url(), job_id=8)
    assert isinstance(outcome, Done)
    assert [request.headers["webhook-id"] for request in server.requests] == ["msg_7", "msg_8", "msg_8"]
    assert [record["outcome"] for record in w.records] == ["ok", "ok"]


async def test_a_fresh_connection_that_dies_is_not_tried_twice() -> None:
    async with Server(hangs_up) as server, world() as w:
        assert isinstance(await w.deliver(server.url()), Retry)
    assert len(server.requests) == 1
    assert w.record["outcome"] == "unknown"


async def test_a_pooled_connection_that_began_to_answer_is_not_tried_twice() -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nx: y\r\n")
            await writer.drain()
            writer.close()
        else:
            await says(OK)(request, writer)

    async with Server(answer) as server, world() as w:
        await w.deliver(server.url())
        await w.deliver(server.url())
    assert len(server.requests) == 2
    assert (w.record["outcome"], w.record["code"]) == ("unknown", "connection_closed")


@pytest.mark.req("BJ-30")
async def test_a_rehearsal_resolves_and_builds_and_sends_nothing() -> None:
    async with Server(says(OK)) as server, world(lookup=names(shop_example=["127.0.0.1"])) as w:
        with sockets_made() as sockets:
            outcome = await w.deliver(server.url("/x?k=hunter2", "shop.example"), secret=SECRET, dry_run=True)
            lost = await w.deliver(server.url(host="lost.example"), dry_run=True)
        assert sockets == []
    assert isinstance(outcome, Done)
    assert outcome.result["would"] == f"POST 8 bytes to http://shop.example:{server.port}/x?k=***"
    assert "webhook-signature" in outcome.result["headers"]
    assert isinstance(lost, Retry)
    assert lost.code == "dns_error"
    assert w.records == []
    assert SECRET not in json.dumps(outcome.result)


async def test_stopped_in_mid_flight_it_lets_go_and_the_doubt_is_recorded() -> None:
    async with Server(stays_silent) as server, world() as w:
        attempt = asyncio.create_task(w.deliver(server.url()))
        await server.arrived.wait()
        attempt.cancel()
        outcome = await attempt
        await server.hung_up.wait()
    assert (w.record["outcome"], w.record["code"]) == ("unknown", "interrupted")
    assert isinstance(outcome, Retry)  # the receiver may have acted on it, so it is an attempt
    assert outcome.code == "interrupted"
    assert outcome.lane_fault is None


async def test_stopped_before_anything_was_sent_no_attempt_is_charged() -> None:
    asked = asyncio.Event()

    async def lookup(_host: str) -> list[str]:
        asked.set()
        await asyncio.Event().wait()
        return []

    async with world(lookup=lookup) as w:
        attempt = asyncio.create_task(w.deliver("http://shop.example/"))
        await asked.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert w.records == []


async def test_a_rows_timeout_shortens_the_settings_and_never_lengthens_it() -> None:
    async with world() as w:
        limit = w.webhook.timeout
        args = [KIND.decode(json.dumps({"url": "x", "payload": 1, "timeout": t})) for t in ("1s", "1h", 0.5, None)]
    assert [a.timeout_s(limit) for a in args] == [1.0, limit, 0.5, limit]


async def test_a_client_that_nothing_guards_is_refused() -> None:
    async with world() as w, httpx2.AsyncClient() as bare:
        w.http = bare  # type: ignore[assignment]  # the mistake under test
        with pytest.raises(TypeError, match="open_http"):
            await w.deliver("http://127.0.0.1/")
