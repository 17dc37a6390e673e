"""By way of an egress proxy: it resolves and connects, and its own troubles are no attempt of anybody's."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.model import Dead, Done, Retry, Snooze
from jobs.values import Secret
from jobs.webhook.settings import WebhookSettings
from tests.jobs.webhook.certificate import self_signed
from tests.jobs.webhook.connect_proxy import ConnectProxy, refuses
from tests.jobs.webhook.server import OK, Server, hangs_up, responds, says, stays_silent
from tests.jobs.webhook.world import World, names, sockets_made, world

SHOP = {"shop.example": "127.0.0.1"}


@pytest.fixture
def identity(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    return self_signed(tmp_path, "shop.example")


@asynccontextmanager
async def behind(proxy: ConnectProxy, ca: Path, *, at: str = "", **settings: Any) -> AsyncIterator[World]:
    """A world whose only way out is the proxy; no name can be resolved in it."""
    way: dict[str, Any] = {"allow_http": False, "allow_addresses": (), "ca_file": ca, "proxy": Secret(at or proxy.url)}
    async with world(lookup=names(), **(way | settings)) as w:
        yield w


def _is(w: World, word: str, code: str) -> bool:
    return (w.record["outcome"], w.record["code"]) == (word, code)


async def test_the_proxy_resolves_and_connects_and_the_tunnel_is_used_again(
    identity: tuple[ssl.SSLContext, Path],
) -> None:
    tls, ca = identity
    async with (
        Server(says(OK), tls=tls) as server,
        ConnectProxy(SHOP) as proxy,
        behind(proxy, ca) as w,
    ):
        for _ in range(3):
            assert isinstance(await w.deliver(server.url(host="shop.example")), Done)
        assert (await w.http.get(server.url(host="shop.example"))).status_code == 200
    assert proxy.asked == [f"shop.example:{server.port}"]
    assert "webhook-id" not in proxy.heads[0].lower()
    assert server.requests[0].headers["host"] == f"shop.example:{server.port}"
    assert "proxy-authorization" not in server.requests[0].headers


async def test_the_proxy_gets_its_password_and_nobody_else_does(identity: tuple[ssl.SSLContext, Path]) -> None:
    tls, ca = identity
    async with (
        Server(says(OK), tls=tls) as server,
        ConnectProxy(SHOP) as proxy,
        behind(proxy, ca, at=f"http://jobsd:p%40ss@127.0.0.1:{proxy.port}") as w,
    ):
        for _ in range(2):
            assert isinstance(await w.deliver(server.url(host="shop.example")), Done)
        assert "p%40ss" not in repr(w.webhook)
    assert "Proxy-Authorization: Basic am9ic2Q6cEBzcw==" in proxy.heads[0]
    assert all("authorization" not in name for request in server.requests for name in request.headers)


async def test_the_proxys_own_name_is_looked_up_here_and_no_other(identity: tuple[ssl.SSLContext, Path]) -> None:
    tls, ca = identity
    async with Server(says(OK), tls=tls) as server, ConnectProxy(SHOP) as proxy:
        at = f"http://proxy.internal:{proxy.port}"
        settings: dict[str, Any] = {"allow_http": False, "allow_addresses": (), "ca_file": ca, "proxy": Secret(at)}
        async with world(lookup=names(proxy_internal=["127.0.0.1"]), **settings) as w:
            assert isinstance(await w.deliver(server.url(host="shop.example")), Done)


@pytest.mark.req("AS-09")
@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1:8443/", "https://[::1]:8443/", "https://169.254.169.254/", "https://127.1/", "https://x:22/"],
)
async def test_literals_and_ports_are_judged_here_all_the_same(url: str, tmp_path: Path) -> None:
    _tls, ca = self_signed(tmp_path, "shop.example")
    async with ConnectProxy() as proxy, behind(proxy, ca, allow_ports=(443, 8443)) as w:
        with sockets_made() as sockets:
            assert isinstance(await w.deliver(url), Dead)
        assert sockets == []
    assert proxy.asked == []


def _nowhere() -> str:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("says", "code"),
    [
        pytest.param(refuses(407, 'proxy-authenticate: Basic realm="x"'), "proxy_refused", id="407"),
        pytest.param(refuses(400), "proxy_refused", id="400"),
        pytest.param(refuses(429), "proxy_refused", id="429"),
        pytest.param(refuses(302, "location: https://login.example/"), "proxy_refused", id="a captive portal"),
        pytest.param(refuses(500), "proxy_error", id="500"),
        pytest.param(refuses(502), "proxy_error", id="502"),
        pytest.param(refuses(503, "retry-after: 9"), "proxy_error", id="503"),
        pytest.param(refuses(504), "proxy_error", id="504"),
        pytest.param(
            refuses(502, "proxy-status: p; error=proxy_internal_error"), "proxy_error", id="says it is its own"
        ),
        pytest.param(refuses(500, "x-smokescreen-error: internal"), "proxy_error", id="Smokescreen's own"),
        pytest.param(refuses(503, "x-squid-error: ERR_CANNOT_FORWARD 0"), "proxy_error", id="Squid's own"),
        pytest.param(b"", "proxy_unreachable", id="hangs up"),
        pytest.param(b"220 mail.example ESMTP\r\n", "proxy_unreachable", id="is no proxy"),
        pytest.param(b"HTTP/1.1 502 " + b"x" * 300_000, "proxy_unreachable", id="has much to say"),
        pytest.param(b"HTTP/1.1 502 No\r\n" + b"a: b\r\n" * 10_000 + b"\r\n", "proxy_unreachable", id="10,000 headers"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, "proxy_unreachable", id="has never an answer"),
        pytest.param(None, "proxy_timeout", id="says nothing"),
    ],
)
async def test_a_fault_of_the_proxy_is_no_attempt(says: bytes | None, code: str, tmp_path: Path) -> None:
    _tls, ca = self_signed(tmp_path, "shop.example")
    patience_s = 0.5 if says is None else 30.0
    async with ConnectProxy(says=says) as proxy, behind(proxy, ca, timeout=patience_s) as w:
        outcome = await w.deliver("https://shop.example/")
        with pytest.raises(httpx2.TransportError, match=r"^(proxy_|connect_)"):
            await w.http.get("https://shop.example/", timeout=patience_s)
    assert isinstance(outcome, Snooze)
    assert outcome.code == code
    assert outcome.lane_fault is None
    assert _is(w, "retry", code)
    assert w.record["request_bytes"] == 0


@pytest.mark.parametrize("at", [_nowhere(), "http://proxy.internal:3128"], ids=["refused", "without an address"])
async def test_a_proxy_that_cannot_be_reached_is_no_attempt(at: str, tmp_path: Path) -> None:
    _tls, ca = self_signed(tmp_path, "shop.example")
    async with ConnectProxy() as proxy, behind(proxy, ca, at=at) as w:
        outcome = await w.deliver("https://shop.example/")
    assert isinstance(outcome, Snooze)
    assert _is(w, "retry", "proxy_unreachable")


@pytest.mark.parametrize(
    ("says", "word", "code"),
    [
        (refuses(502, "proxy-status: egress; error=connection_refused"), "retry", "connection_refused"),
        (refuses(502, "Proxy-Status: a, b; details=x; error=dns_error"), "retry", "dns_error"),
        (refuses(504, "proxy-status: p; error=connection_timeout"), "retry", "connect_timeout"),
        (refuses(502, "proxy-status: p; error=tls_certificate_error"), "retry", "tls_error"),
        (refuses(502, "proxy-status: p; error=destination_ip_prohibited"), "blocked", "blocked"),
        (refuses(407, "x-smokescreen-error: egress to this range is denied"), "blocked", "blocked"),
        (refuses(502, "x-smokescreen-error: Failed to resolve remote hostname: lookup x"), "retry", "dns_error"),
        (refuses(502, "x-smokescreen-error: Failed to connect to remote host"), "retry", "unreachable"),
        (refuses(504, "x-smokescreen-error: Timed out connecting"), "retry", "connect_timeout"),
        (refuses(503, "x-squid-error: ERR_CONNECT_FAIL 111"), "retry", "connection_refused"),
        (refuses(503, "x-squid-error: ERR_CONNECT_FAIL 113"), "retry", "unreachable"),
        (refuses(503, "x-squid-error: ERR_DNS_FAIL 0"), "retry", "dns_error"),
        (refuses(403), "blocked", "blocked"),
    ],
)
async def test_what_the_proxy_says_of_the_destination_is_the_destinations(
    says: bytes, word: str, code: str, tmp_path: Path
) -> None:
    _tls, ca = self_signed(tmp_path, "shop.example")
    async with ConnectProxy(says=says) as proxy, behind(proxy, ca) as w:
        outcome = await w.deliver("https://shop.example/")
    assert isinstance(outcome, Retry if word == "retry" else Dead)
    assert _is(w, word, code)


@pytest.mark.parametrize(("says", "code"), [(refuses(503), "unreachable"), (None, "connect_timeout")])
async def test_a_bare_refusal_is_the_destinations_while_the_proxy_opens_tunnels_for_others(
    says: bytes | None, code: str, identity: tuple[ssl.SSLContext, Path]
) -> None:
    """Else a dead destination behind a proxy that gives no reasons would be tried for ever."""
    tls, ca = identity
    async with (
        Server(responds(200), tls=tls) as server,
        ConnectProxy(SHOP) as proxy,
        behind(proxy, ca) as w,
    ):
        assert isinstance(await w.deliver(server.url(host="shop.example")), Done)
        proxy.says = says
        outcome = await w.deliver("https://dead.example/", timeout="500ms")
    assert isinstance(outcome, Retry)
    assert _is(w, "retry", code)


async def test_what_goes_wrong_inside_the_tunnel_is_the_destinations(identity: tuple[ssl.SSLContext, Path]) -> None:
    tls, ca = identity
    addresses = {**SHOP, "other.example": "127.0.0.1"}
    async with ConnectProxy(addresses) as proxy, behind(proxy, ca) as w:
        async with Server(says(OK), tls=tls) as server:
            await w.deliver(server.url(host="other.example"))
            assert _is(w, "retry", "tls_error")  # the certificate is the shop's
        async with Server(stays_silent) as server:
            await w.deliver(server.url(host="shop.example").replace("http:", "https:"), timeout="500ms")
            assert _is(w, "retry", "connect_timeout")  # a handshake that never ends
        for answer, code in ((hangs_up, "connection_closed"), (stays_silent, "timeout")):
            async with Server(answer, tls=tls) as server:
                await w.deliver(server.url(host="shop.example"), timeout="1s")
                assert _is(w, "unknown", code)


async def test_a_rehearsal_asks_neither_the_proxy_nor_a_name_server(tmp_path: Path) -> None:
    _tls, ca = self_signed(tmp_path, "shop.example")
    async with ConnectProxy() as proxy, behind(proxy, ca) as w:
        outcome = await w.deliver("https://shop.example/", dry_run=True)
    assert isinstance(outcome, Done)
    assert proxy.asked == []


@pytest.mark.parametrize(
    "proxy",
    ["", "proxy:3128", "https://proxy:3128", "http://proxy", "http://:3128", "http://hunter2@proxy:x", "http://p:1/x"],
)
def test_what_is_no_proxy_is_refused_and_not_shown(proxy: str) -> None:
    with pytest.raises(ValueError, match=r"^proxy: ") as refused:
        WebhookSettings(proxy=Secret(proxy))
    assert "hunter2" not in str(refused.value)


def test_a_proxy_and_plain_http_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"^proxy: .*allow_http"):
        WebhookSettings(proxy=Secret("http://proxy:3128"), allow_http=True)
