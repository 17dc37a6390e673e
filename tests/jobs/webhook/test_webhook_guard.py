"""No URL of a tenant leads anywhere but to the public internet: no socket is made, and nobody learns an address."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

import httpx2
import pytest

from jobs.model import Dead, Retry
from jobs.webhook.addresses import networks
from jobs.webhook.guard import Blocked, Guard
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.trip import begin
from tests.jobs.webhook.server import OK, Server, responds, says
from tests.jobs.webhook.world import names, sockets_made, world

LITERALS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "0", "0.0.0.0"),
    *("10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1"),
    *("192.88.99.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::7f00:1]", "[::127.0.0.1]"),
    *("[::ffff:0:7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::1]"),
    *("[2001::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[fe80::1]"),
    *("[fe80::1%25eth0]", "[ff02::1]"),
    *("１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①", "127.0.0.1.", "user:pw@127.0.0.1", "example.com@127.0.0.1"),
]
NAMES = ["localhost", "LOCALHOST", "ⓛocalhost"]


@pytest.mark.req("AS-09")
@pytest.mark.parametrize("host", LITERALS + NAMES)
async def test_a_hostile_host_makes_no_socket(host: str) -> None:
    async with world(allow_addresses=()) as w:
        with sockets_made() as sockets:
            outcome = await w.deliver(f"http://{host}:8080/")
        assert sockets == []
        assert isinstance(outcome, Dead)
        assert w.record["outcome"] in ("blocked", "dead")
        assert w.record["address"] is None


@pytest.mark.parametrize("host", [*LITERALS, *NAMES, "localhost."])
async def test_the_clients_of_handlers_are_guarded_alike(host: str) -> None:
    async with world(allow_addresses=()) as w:
        with sockets_made() as sockets, pytest.raises((httpx2.TransportError, httpx2.InvalidURL)):
            await w.http.get(f"http://{host}:8080/")
        assert sockets == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["1.1.1.1", "10.0.0.1"],
        ["10.0.0.1", "1.1.1.1"],
        ["2606:4700::1111", "::1"],
        ["1.1.1.1", "::ffff:169.254.169.254"],
    ],
)
async def test_one_private_answer_condemns_the_whole_name(addresses: Sequence[str]) -> None:
    async with world(lookup=names(evil_example=addresses), allow_addresses=()) as w:
        with sockets_made() as sockets:
            outcome = await w.deliver("http://evil.example/")
        assert sockets == []
        assert isinstance(outcome, Dead)
        assert (w.record["outcome"], w.record["code"]) == ("blocked", "blocked")


async def test_a_name_that_is_rebound_between_attempts_is_judged_again() -> None:
    """First a good answer, then a private one: the second connection is not made, though the first one was."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def lookup(_host: str) -> Sequence[str]:
        return next(answers)

    async with Server(says(OK)) as server:
        for blocked in (False, True):  # a client each: what is judged must not be remembered as good
            async with world(lookup=lookup) as w:
                with sockets_made() as sockets:
                    outcome = await w.deliver(server.url(host="evil.example"))
                assert isinstance(outcome, Dead) is blocked
                assert (sockets == []) is blocked
    assert len(server.requests) == 1


def test_the_last_step_before_a_connection_judges_by_itself() -> None:
    """Even if a resolver lied or a cache was stale, the address connected to is the one judged."""
    guard = Guard(WebhookSettings())
    trip = begin()
    with sockets_made() as sockets, pytest.raises(Blocked):
        guard.make_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80)))
    assert sockets == []
    assert trip.was_blocked


async def test_what_a_tenant_reads_about_a_blocked_name_holds_no_address() -> None:
    async with world(lookup=names(evil_example=["10.11.12.13"]), allow_addresses=()) as w:
        outcome = await w.deliver("http://evil.example/")
        with pytest.raises(httpx2.ConnectError) as seen:
            await w.http.get("http://evil.example/")
    assert isinstance(outcome, Dead)
    told = [
        outcome.reason,
        json.dumps(outcome.detail),
        json.dumps(w.record),
        str(seen.value),
        str(seen.value.__cause__),
    ]
    assert not any("10.11.12.13" in text for text in told)


async def test_an_exception_in_the_settings_lets_a_name_through() -> None:
    async with Server(says(OK)) as server, world(lookup=names(inside_example=["127.0.0.1"])) as w:
        await w.deliver(server.url(host="inside.example"))
        assert w.record["outcome"] == "ok"
        assert w.record["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://127.0.0.1/", "only https:// URLs are allowed"), ("https://127.0.0.1:22/", "port 22 is not allowed")],
)
async def test_schemes_and_ports_are_allow_lists(url: str, reason: str) -> None:
    async with world(allow_http=False, allow_ports=(443,)) as w:
        with sockets_made() as sockets:
            outcome = await w.deliver(url)
        assert sockets == []
        assert isinstance(outcome, Dead)
        assert outcome.reason == reason


async def test_a_webhooks_redirect_is_not_followed() -> None:
    async with Server(responds(307, "location: http://10.0.0.1/admin?token=x")) as server, world() as w:
        with sockets_made() as sockets:
            outcome = await w.deliver(server.url())
        assert isinstance(outcome, Retry)
        assert outcome.reason == "redirect_not_followed: 10.0.0.1"
        assert len(sockets) == 1 + server.connections  # ours, and the server's end of it
        assert w.record["response_headers"]["location"] == "http://10.0.0.1/admin?token=***"


async def test_a_handler_that_follows_redirects_is_stopped_at_the_private_hop() -> None:
    async with Server(responds(302, "location: http://10.0.0.1/")) as server, world() as w:
        with pytest.raises(httpx2.ConnectError, match=r"^blocked: "):
            await w.http.get(server.url(), follow_redirects=True)
        assert server.connections == 1


async def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(says(OK)) as proxy, Server(says(OK)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        async with world() as w:
            await w.deliver(server.url())
            await w.http.get(server.url())
        assert (len(proxy.requests), len(server.requests)) == (0, 2)


async def test_the_table_is_the_same_for_a_rehearsal() -> None:
    async with world(lookup=names(evil_example=["10.0.0.1"]), allow_addresses=()) as w:
        for url in ("http://evil.example/", "http://127.0.0.1/", "http://[::1]/"):
            assert isinstance(await w.deliver(url, dry_run=True), Dead)


def test_no_exception_is_allowed_by_default() -> None:
    assert networks(WebhookSettings().allow_addresses) == ()
