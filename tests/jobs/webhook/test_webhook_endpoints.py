"""A row that names an endpoint is sent as that endpoint says, with the bytes of its event."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import Any, cast

import asyncpg
import pytest

from jobs.context import Context, Tools
from jobs.model import Dead, Done, Job, Ladder, Outcome, Retry, Snooze
from jobs.values import duration
from jobs.webhook import addressee
from jobs.webhook.args import WebhookArgs
from jobs.webhook.draft import Draft
from jobs.webhook.endpoints import open_endpoints, open_events
from jobs.webhook.health import Health
from jobs.webhook.profiles import ProfileSettings
from jobs.webhook.settings import WebhookSettings
from tests.jobs.webhook.server import Server, responds, stays_silent
from tests.jobs.webhook.world import KIND, World, handler, world
from tests.sql.rows import Pool
from tests.sql.test_webhook_events import emit, endpoint

pytestmark = pytest.mark.req("BJ-15")

ONE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TWO = "whsec_" + base64.b64encode(b"another-secret-of-32-bytes-......"[:32]).decode()


class Counted:
    """A pool that counts its statements."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.asked: list[Sequence[int]] = []
        self.away: Exception | None = None

    async def fetch(self, statement: str, ids: Sequence[int], *more: Any) -> Any:
        self.asked.append(ids)
        if self.away is not None:
            raise self.away
        return await self.pool.fetch(statement, ids, *more)


class _Log:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **fields: self.lines.append((name, args, fields))


class Lab:
    """The tools of a daemon, on the test's database."""

    def __init__(self, w: World, pool: Pool) -> None:
        self.world = w
        self.db = Counted(pool)
        db = cast(asyncpg.Pool, self.db)
        self.endpoints, self.events = open_endpoints(db), open_events(db)
        self.webhook, self.http, self.secrets, self.templates = w.webhook, w.http, w.secrets, w.templates
        self.records: list[dict[str, Any]] = []
        self.log = _Log()
        self.health = Health()

    def context(self, **columns: Any) -> Context:
        base: dict[str, Any] = {"id": 7, "fence": 1, "queue": "default", "priority": 2, "attempt": 1, "run_at": 0.0}
        job = Job(kind="webhook", args_json="{}", **(base | columns))
        return Context(job, cast(Tools, self), cast(Any, self.log), cast(Any, None))

    async def run(self, args: dict[str, Any], **columns: Any) -> Outcome:
        ctx = self.context(**columns)
        try:
            return await handler(KIND.decode(json.dumps(args)), ctx)
        finally:
            self.records += [dict(row) for _ledger, row in ctx.records]

    async def draft(self, args: dict[str, Any], *, at: float | None = None, **columns: Any) -> Draft:
        decoded: WebhookArgs = KIND.decode(json.dumps(args))
        found = await addressee.addressed(decoded, self.context(**columns), clock=time if at is None else lambda: at)
        return found.draft


@asynccontextmanager
async def lab(pool: Pool, **settings: Any) -> AsyncIterator[Lab]:
    async with world(**settings) as w:
        yield Lab(w, pool)


async def signed(pool: Pool, server: Server, secret: str = ONE, **columns: Any) -> int:
    of = await endpoint(pool, url=server.url(), **columns)
    await pool.execute("select webhook_rotate_secret($1, $2)", of, secret)
    return of


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return (
        "v1,"
        + base64.b64encode(hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)).decode()
    )


async def test_an_event_is_delivered_as_its_endpoint_says(pool: Pool) -> None:
    payload = '{ "b":1.10, "a" : 1e2 }'
    async with Server(responds(204)) as server, lab(pool) as w:
        headers = json.dumps({"X-Team": "billing", "X-Other": "1"})
        of = await signed(pool, server, headers=headers, content_type="application/vnd.shop+json", name="shop")
        event_id = await emit(pool, "invoice.paid", payload=payload)
        assert isinstance(await w.run({"endpoint": of, "event_id": event_id, "headers": {"x-other": "2"}}), Done)
    (request,) = server.requests
    assert request.body == payload.encode()
    assert (request.headers["x-team"], request.headers["x-other"]) == ("billing", "2")
    assert request.headers["content-type"] == "application/vnd.shop+json"
    assert request.headers["webhook-id"] == f"msg_e{event_id}"
    timestamp = request.headers["webhook-timestamp"]
    assert request.headers["webhook-signature"] == signature(ONE, f"msg_e{event_id}", timestamp, request.body)
    (record,) = w.records
    told = {name: record[name] for name in ("endpoint", "endpoint_id", "event", "event_id")}
    assert told == {"endpoint": "shop", "endpoint_id": of, "event": "invoice.paid", "event_id": event_id}


async def test_the_bytes_and_the_id_are_the_same_at_each_attempt_and_for_each_endpoint(pool: Pool) -> None:
    payload = '{"amount": 1.10, "name": "\\u00e9é", "big": 12345678901234567890123}'
    async with Server(responds(503)) as server:
        of = [await signed(pool, server, name=name) for name in ("a", "b")]
        event_id = await emit(pool, payload=payload)
        for attempt in (1, 2, 3):
            async with lab(pool) as w:  # another daemon, which remembers nothing
                for one in of:
                    outcome = await w.run({"endpoint": one, "event_id": event_id}, id=one, attempt=attempt)
                    assert isinstance(outcome, Retry)
    assert {request.body for request in server.requests} == {payload.encode()}
    assert {request.headers["webhook-id"] for request in server.requests} == {f"msg_e{event_id}"}
    assert len(server.requests) == 6


async def test_bytes_of_any_kind_are_sent_with_their_own_type(pool: Pool) -> None:
    raw = bytes(range(256))
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, content_type="application/json")
        for given, told in ((None, "application/octet-stream"), ("image/png", "image/png")):
            event_id = await emit(pool, body=raw, content_type=given)
            assert isinstance(await w.run({"endpoint": of, "event_id": event_id}), Done)
            assert server.requests[-1].body == raw
            assert server.requests[-1].headers["content-type"] == told


async def test_a_row_may_bring_its_own_payload_for_an_endpoint(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server)
        assert isinstance(await w.run({"endpoint": of, "event": "a.b", "payload": {"n": 1}}, id=99), Done)
    (request,) = server.requests
    assert request.body == b'{"n": 1}'
    assert request.headers["webhook-id"] == "msg_99"
    assert w.records[0]["event"] == "a.b"


async def test_an_endpoints_timeout_shortens_the_setting_and_never_lengthens_it(pool: Pool) -> None:
    async with Server(stays_silent) as server, lab(pool, timeout=0.4) as w:
        short = await endpoint(pool, "short", url=server.url(), signing=[])
        await pool.execute("update webhook_endpoints set timeout = '100 ms'")
        long = await endpoint(pool, "long", url=server.url(), signing=[])
        await pool.execute("update webhook_endpoints set timeout = '4 min' where id = $1", long)
        for of in (short, long):
            assert isinstance(await w.run({"endpoint": of, "payload": 1}), Retry)
    took = [record["duration_ms"] for record in w.records]
    assert 90 <= took[0] < 390
    assert took[1] >= 390


async def test_a_hundred_deliveries_of_one_moment_ask_for_endpoints_once_and_for_events_once(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = [await signed(pool, server, name=f"e{n}") for n in range(10)]
        ids = [await emit(pool) for _ in range(10)]
        outcomes = await asyncio.gather(*(w.run({"endpoint": e, "event_id": v}) for e in of for v in ids))
        assert {type(outcome) for outcome in outcomes} == {Done}
        assert sorted(map(sorted, w.db.asked)) == sorted([sorted(of), sorted(cast(list[int], ids))])
        await asyncio.gather(*(w.run({"endpoint": e, "event_id": v}) for e in of for v in ids))
        assert len(w.db.asked) == 2


async def test_an_event_of_last_month_is_found_too(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server)
        old = await pool.fetchval(
            "insert into webhook_events (event, payload, created_at) values ('a', '1', now() - interval '25 days') "
            "returning id"
        )
        assert isinstance(await w.run({"endpoint": of, "event_id": old}), Done)


async def test_an_event_that_is_no_longer_kept_is_a_dead_letter_that_says_so(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server)
        outcome = await w.run({"endpoint": of, "event_id": 12345})
    assert isinstance(outcome, Dead)
    assert (outcome.code, w.records[0]["code"], server.requests) == ("event_gone", "event_gone", [])


@pytest.mark.req("OR-13")
@pytest.mark.parametrize("mine", [None, "globex"])
async def test_another_organisations_endpoint_and_event_are_not_there(mine: str | None, pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        theirs = await signed(pool, server, org_id="acme")
        event_id = await emit(pool, org_id="acme")
        own = await signed(pool, server, org_id=mine, name="own")
        for args, code in (
            ({"endpoint": theirs, "payload": 1}, "endpoint_unknown"),
            ({"endpoint": own, "event_id": event_id}, "event_gone"),
        ):
            outcome = await w.run(args, org_id=mine)
            assert isinstance(outcome, Dead)
            assert outcome.code == code
    assert server.requests == []


async def test_a_row_that_meets_a_disabled_endpoint_comes_back_uncharged_and_nothing_is_sent(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, state="disabled")
        outcome = await w.run({"endpoint": of, "payload": 1})
    assert isinstance(outcome, Snooze)
    assert (outcome.code, server.requests, w.records) == ("endpoint_disabled", [], [])


async def test_what_cannot_be_looked_up_is_not_charged(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server)
        w.db.away = ConnectionResetError("gone")
        outcome = await w.run({"endpoint": of, "payload": 1})
        assert isinstance(outcome, Snooze)
        assert outcome.code == "database_away"
        w.db.away = None
        assert isinstance(await w.run({"endpoint": of, "payload": 1}), Done)


async def test_an_endpoint_that_signs_sends_nothing_without_a_secret(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await endpoint(pool, url=server.url())
        outcome = await w.run({"endpoint": of, "payload": 1})
        assert isinstance(outcome, Retry)
        assert (outcome.code, server.requests) == ("secret_missing", [])
        open_one = await endpoint(pool, "open", url=server.url(), signing=[])
        assert isinstance(await w.run({"endpoint": open_one, "payload": 1}), Done)
        assert "webhook-signature" not in server.requests[0].headers


@pytest.mark.parametrize(
    "headers",
    [{"Host": "internal"}, {"X-A": "1\r\nX-B: 2"}, {"webhook-id": "mine"}, {"X-A": "1", "x-a": "2"}, {"a b": "c"}],
)
async def test_an_endpoint_with_a_header_that_must_not_be_sent_sends_nothing(
    headers: dict[str, str], pool: Pool
) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, headers=json.dumps(headers))
        outcome = await w.run({"endpoint": of, "payload": 1})
    assert isinstance(outcome, Retry)
    assert (outcome.code, w.records[0]["outcome"], server.requests) == ("endpoint_invalid", "retry", [])


async def test_both_secrets_sign_until_the_grace_is_over_and_not_a_moment_longer(pool: Pool) -> None:
    async with lab(pool) as w:
        of = await endpoint(pool)
        await pool.execute("select webhook_rotate_secret($1, $2)", of, ONE)
        await pool.execute("select webhook_rotate_secret($1, $2, '2 hours')", of, TWO)
        ends = await pool.fetchval("select date_part('epoch', expires_at) from webhook_secrets where secret = $1", ONE)
        args = {"endpoint": of, "payload": 1}
        for at, secrets in (
            (ends - 7000, (TWO, ONE)),
            (ends - 0.001, (TWO, ONE)),
            (ends, (TWO,)),
            (ends + 9e9, (TWO,)),
        ):
            assert (await w.draft(args, at=at)).secrets == secrets
        assert len(w.db.asked) == 1, "what is remembered knows when its secrets end"


async def test_a_message_in_the_grace_carries_a_signature_of_each_secret(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server)
        await pool.execute("select webhook_rotate_secret($1, $2)", of, TWO)
        assert isinstance(await w.run({"endpoint": of, "payload": 1}), Done)
    (request,) = server.requests
    timestamp = request.headers["webhook-timestamp"]
    assert request.headers["webhook-signature"].split() == [
        signature(secret, "msg_7", timestamp, request.body) for secret in (TWO, ONE)
    ]


async def test_a_secret_may_be_one_that_the_daemon_holds(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool, secrets={"pay": ONE}) as w:
        of = await signed(pool, server, "secret://pay", headers=json.dumps({"Authorization": "secret://pay"}))
        assert isinstance(await w.run({"endpoint": of, "payload": 1}), Done)
    (request,) = server.requests
    assert request.headers["authorization"] == ONE
    assert request.headers["webhook-signature"] == signature(
        ONE, "msg_7", request.headers["webhook-timestamp"], request.body
    )


@pytest.mark.parametrize("secret", [ONE, "whsec_notbase64!", "short"])
async def test_no_secret_is_ever_told(secret: str, pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Server(responds(500)) as server, lab(pool) as w:
        of = await signed(pool, server, secret)
        outcome = await w.run({"endpoint": of, "payload": 1})
        known = await w.endpoints.get(of)
        draft = await w.draft({"endpoint": of, "payload": 1})
    said = "".join([repr(outcome), str(outcome), repr(known), repr(draft), repr(w.records), repr(w.log.lines)])
    assert secret not in said + caplog.text


@pytest.mark.parametrize(
    "args",
    [
        {"payload": 1},
        {"url": "https://a.example/", "endpoint": 1, "payload": 1},
        {"endpoint": 1},
        {"endpoint": 1, "event_id": 2, "payload": 1},
        {"url": "https://a.example/", "event_id": 2},
        {"endpoint": 0, "payload": 1},
        {"endpoint": "main", "payload": 1},
        {"endpoint": 1, "payload": 1, "secret": ONE},
    ],
)
def test_args_that_say_two_things_or_nothing_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"url|payload|event_id|endpoint|secret"):
        KIND.decode(json.dumps(args))


def test_a_profile_of_the_config_comes_before_one_that_is_shipped() -> None:
    settings = WebhookSettings(
        profiles={"quick": ProfileSettings(retry=(duration("1s"),)), "standard": ProfileSettings()}
    )
    assert settings.ladder("quick") == Ladder(1.0)
    assert settings.ladder("standard") == Ladder()
    assert WebhookSettings().ladder("standard") == Ladder("5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h")
