"""Each column of an endpoint is applied: against a server that would notice if it were not."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from jobs.model import Dead, Done, Outcome, Retry
from jobs.values import duration
from jobs.webhook.signing import public_of
from tests.jobs.webhook import receivers
from tests.jobs.webhook.certificate import client_pem, self_signed
from tests.jobs.webhook.server import OK, Request, Server, responds, says
from tests.jobs.webhook.test_webhook_endpoints import ONE, TWO, lab, signed
from tests.jobs.webhook.world import KIND, names
from tests.sql.rows import Pool
from tests.sql.test_webhook_events import emit, endpoint

pytestmark = pytest.mark.req("BJ-15")

PRIVATE = "whsk_" + base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize("styles", [["standard"], ["github"], ["stripe"], ["standard", "github", "stripe"]])
async def test_signing_says_how_its_secrets_sign(styles: list[str], pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, signing=styles)
        assert isinstance(await w.run({"endpoint": of, "payload": {"n": 1}}), Done)
    (request,) = server.requests
    checks: dict[str, Any] = {
        "standard": ("webhook-signature", receivers.standard),
        "github": ("x-hub-signature-256", receivers.github),
        "stripe": ("stripe-signature", receivers.stripe),
    }
    for style, (header, verify) in checks.items():
        assert (header in request.headers) == (style in styles)
        if style in styles:
            assert verify(ONE, request.body, request.headers)
            assert not verify(ONE, request.body + b" ", request.headers)


async def test_an_endpoint_may_sign_by_ed25519_and_by_hmac_at_once(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, signing=["standard", "standard_ed25519"])
        await pool.execute("select webhook_rotate_secret($1, $2)", of, PRIVATE)
        assert isinstance(await w.run({"endpoint": of, "payload": {"n": 1}}), Done)
    (request,) = server.requests
    assert receivers.standard(ONE, request.body, request.headers)
    assert receivers.standard_ed25519(public_of(PRIVATE), request.body, request.headers)


async def test_each_secret_in_its_grace_signs_in_the_style_of_the_endpoint(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, signing=["stripe"])
        await pool.execute("select webhook_rotate_secret($1, $2)", of, TWO)
        await w.run({"endpoint": of, "payload": {"n": 1}})
    (request,) = server.requests
    assert all(receivers.stripe(secret, request.body, request.headers) for secret in (ONE, TWO))


async def test_a_template_makes_the_body_and_what_it_makes_is_signed(pool: Pool) -> None:
    template = '{"text": "{{ event }}: {{ payload.n }}"}'
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, template=template, content_type="application/vnd.chat+json")
        event_id = await emit(pool, "invoice.paid", payload='{"n": 7}', content_type="application/json; charset=utf-8")
        assert isinstance(await w.run({"endpoint": of, "event_id": event_id}), Done)
        assert isinstance(await w.run({"endpoint": of, "event": "user.made", "payload": {"n": 8}}), Done)
    first, second = server.requests
    assert json.loads(first.body) == {"text": "invoice.paid: 7"}
    assert json.loads(second.body) == {"text": "user.made: 8"}
    assert first.headers["content-type"] == "application/vnd.chat+json"
    assert receivers.standard(ONE, first.body, first.headers)


async def test_a_template_leaves_bytes_that_are_no_json_as_they_are(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, template="never", content_type="text/plain")
        event_id = await emit(pool, body=b"\x00raw", content_type="image/png")
        assert isinstance(await w.run({"endpoint": of, "event_id": event_id}), Done)
        raw = base64.b64encode(b"\xffmine").decode()
        assert isinstance(await w.run({"endpoint": of, "body": raw}), Done)
    assert [request.body for request in server.requests] == [b"\x00raw", b"\xffmine"]
    assert [r.headers["content-type"] for r in server.requests] == ["image/png", "application/octet-stream"]


async def test_a_template_that_cannot_be_rendered_is_a_dead_letter_and_nothing_is_sent(pool: Pool) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, template="{{ payload.")
        assert isinstance(await w.run({"endpoint": of, "payload": {}}), Dead)
    assert server.requests == []


@pytest.mark.parametrize(
    ("of_endpoint", "of_event", "sent"),
    [
        (None, None, "application/json"),
        ("application/vnd.a+json", None, "application/vnd.a+json"),
        ("application/vnd.a+json", "application/vnd.b+json", "application/vnd.b+json"),
    ],
)
async def test_the_content_type_is_the_events_or_else_the_endpoints(
    of_endpoint: str | None, of_event: str | None, sent: str, pool: Pool
) -> None:
    async with Server(responds(204)) as server, lab(pool) as w:
        of = await signed(pool, server, content_type=of_endpoint)
        await w.run({"endpoint": of, "event_id": await emit(pool, content_type=of_event)})
    assert server.requests[0].headers["content-type"] == sent


async def _who(_request: Request, writer: asyncio.StreamWriter) -> None:
    (((_, name),),) = writer.get_extra_info("peercert")["subject"]
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode())
    await writer.drain()


async def test_an_endpoint_shows_its_own_client_certificate(pool: Pool, tmp_path: Path) -> None:
    tls, ca = self_signed(tmp_path / "server", "shop.example")
    tls.verify_mode = ssl.CERT_REQUIRED
    pems = {}
    for name in ("alice", "bob"):
        pems[name], certificate = client_pem(tmp_path / name, name)
        tls.load_verify_locations(certificate)
    lookup = names(shop_example=["127.0.0.1"])
    async with Server(_who, tls=tls) as server, lab(pool, lookup=lookup, ca_file=ca, secrets=pems) as w:
        for name in pems:
            url, shown = server.url(host="shop.example"), f"secret://{name}"
            of = await endpoint(pool, name, url=url, signing=[], client_certificate=shown)
            assert isinstance(await w.run({"endpoint": of, "payload": 1}), Done)
            assert w.records[-1]["response_body"] == name
        bare = await endpoint(pool, "bare", url=server.url(host="shop.example"), signing=[])
        assert isinstance(await w.run({"endpoint": bare, "payload": 1}), Retry)


@pytest.mark.parametrize(("gone", "outcome"), [("immediate", Dead), ("confirm", Dead), ("ignore", Retry)])
async def test_gone_says_what_a_410_means(gone: str, outcome: type[Outcome], pool: Pool) -> None:
    async with Server(responds(410)) as server, lab(pool) as w:
        of = await signed(pool, server, gone=gone)
        assert isinstance(await w.run({"endpoint": of, "payload": 1}), outcome)
        (said,) = w.health.take()
    assert (said["plea"], said["message"]) == ((None, None) if gone == "ignore" else ("gone", "msg_7"))
    assert said["failures"] == 1


async def test_what_goes_well_says_nothing_until_something_has_failed(pool: Pool) -> None:
    async with Server(says(OK)) as server, lab(pool) as w:
        of = await signed(pool, server)
        await w.run({"endpoint": of, "payload": 1})
        assert w.health.take() == []
        await pool.execute("update webhook_endpoints set failing_since = now(), failures = 1")
        w.endpoints.forget()
        await w.run({"endpoint": of, "payload": 1})
        assert [said["ok"] for said in w.health.take()] == [True]


@pytest.mark.req("OR-13")
@pytest.mark.parametrize(
    ("of", "name", "is_sent"),
    [
        ("acme", "acme--crm", True),
        ("acme", "stripe", False),
        ("acme", "acme", False),
        ("acme", "globex--crm", False),
        (None, "stripe", True),
    ],
)
@pytest.mark.parametrize("place", ["headers", "secret", "client_certificate", "an endpoint's header"])
async def test_where_organisations_have_their_own_secrets_no_other_is_sent(
    place: str, of: str | None, name: str, is_sent: bool, pool: Pool
) -> None:
    reference = f"secret://{name}"
    async with Server(responds(204)) as server, lab(pool, own_secrets=True, secrets={name: ONE}) as w:
        if place == "an endpoint's header":
            to = await endpoint(pool, url=server.url(), org_id=of, signing=[], headers=json.dumps({"x-key": reference}))
            args: dict[str, Any] = {"endpoint": to}
        else:
            url = server.url().replace("http:", "https:" if place == "client_certificate" else "http:")
            args = {"url": url, place: {"x-key": reference} if place == "headers" else reference}
        outcome = await w.run({"payload": 1, **args}, org_id=of)
    assert (getattr(outcome, "code", None) == "secret_refused") is not is_sent
    if place != "client_certificate":  # which is no certificate
        assert isinstance(outcome, Done if is_sent else Dead)
        assert len(server.requests) == is_sent
    assert ONE not in repr(outcome)


@pytest.mark.parametrize(("days", "told"), [("5d", 0), ("3d", 1), ("0", 0)])
async def test_of_one_that_is_known_to_fail_its_failures_are_told_when_its_time_is_over(
    days: str, told: int, pool: Pool
) -> None:
    async with Server(responds(500)) as server, lab(pool, disable_after=duration(days)) as w:
        of = await signed(pool, server)
        await pool.execute(
            "update webhook_endpoints set failures = 20, failed_messages = '{a,b,c}', "
            "failing_since = now() - interval '4 days', warned_at = now()"
        )
        await w.run({"endpoint": of, "payload": 1})
        assert len(w.health.take()) == told


@pytest.mark.parametrize(
    "more",
    [
        {"template": "x"},
        {"client_certificate": "secret://pem"},
        {"signing": ["github"]},
        {"secret": ONE},
        {"event_id": 1},
    ],
)
def test_a_row_to_an_endpoint_does_not_say_what_the_endpoint_says(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(more))):
        KIND.decode(json.dumps({"endpoint": 1, "payload": 1, **more}))
