"""One check against real servers: well ones, slow ones, and those that misbehave in every way we know."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.monitor.prober import Prober
from jobs.monitor.reading import Reading
from jobs.monitor.settings import MonitorSettings
from jobs.monitor.watch import WatchSettings
from jobs.values import duration
from jobs.webhook.names import Lookup
from tests.jobs.dns.server import DnsServer
from tests.jobs.email import certificate
from tests.jobs.email.peer import DROP, HANG, RESET, Peer
from tests.jobs.webhook.certificate import self_signed
from tests.jobs.webhook.server import OK, Answer, Server, Wire, hangs_up, responds, says, stays_silent
from tests.jobs.webhook.world import names

PATIENT = duration("60s")
"""Longer than any machine is busy, where the time is not the point."""

HASTY = duration("300ms")


async def look(
    target: str,
    *,
    ca_file: Path | None = None,
    allow: tuple[str, ...] = ("127.0.0.0/8",),
    dns: DnsSettings | None = None,
    lookup: Lookup | None = None,
    **wanted: Any,
) -> Reading:
    settings = dns or DnsSettings(resolvers=("127.0.0.1:9",))
    prober = Prober(MonitorSettings(allow_addresses=allow, ca_file=ca_file), settings, lookup)
    try:
        watch = WatchSettings(verb="monitor", target=target, **{"patience": PATIENT, "expires": duration(0), **wanted})
        return await prober.check(watch, Resolver(settings))
    finally:
        prober.close()


# --- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("JD-04")
async def test_a_page_that_answers_is_well() -> None:
    async with Server(says(OK)) as server:
        found = await look(server.url("/health?a=b"))
    assert (found.outcome, found.code, found.address) == ("ok", "", "127.0.0.1")
    assert found.phases_ms.keys() == {"resolve", "connect", "open", "response"}
    [request] = server.requests
    assert request.line == "GET /health?a=b HTTP/1.1"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["user-agent"] == "jobsd-monitor"


@pytest.mark.req("JD-04")
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (responds(500), "http_500"),
        (responds(503), "http_503"),
        (responds(404), "http_404"),
        (hangs_up, "connection_closed"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-"), "connection_closed"),
        (says(b"220 mail.example ESMTP\r\n\r\n"), "protocol_error"),
        (says(b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 100_000), "protocol_error"),
    ],
    ids=["500", "503", "404", "hangs up", "breaks off", "is a mail server", "does not end"],
)
async def test_a_page_that_does_not_answer_as_it_should_has_failed(answer: Answer, code: str) -> None:
    async def last_words(request: Any, writer: asyncio.StreamWriter) -> None:
        await answer(request, writer)
        writer.close()

    async with Server(last_words) as server:
        found = await look(server.url())
    assert (found.outcome, found.code) == ("failed", code), found.reason


@pytest.mark.req("JD-04")
async def test_a_page_that_is_silent_has_failed_when_its_time_is_over() -> None:
    async with Server(stays_silent) as server:
        found = await look(server.url(), patience=HASTY)
    assert (found.outcome, found.code) == ("failed", "timeout")
    assert "waits for response" in found.reason


def trickles(first: bytes, rest: bytes) -> Answer:
    """Never silent, and never at an end."""

    async def answer(_request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(rest)
            await writer.drain()
            await asyncio.sleep(0.01)

    return answer


@pytest.mark.req("JD-04")
@pytest.mark.parametrize(
    ("scheme", "first", "rest"),
    [
        ("http", b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        ("http", b"HTTP/1.1 200 OK\r\n", b"x"),
        ("http", b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"."),
        ("smtp", b"220-", b"."),
    ],
    ids=["what comes before an answer", "headers", "a body", "a greeting"],
)
async def test_what_trickles_is_not_waited_for_longer_than_its_time(scheme: str, first: bytes, rest: bytes) -> None:
    wanted: dict[str, Any] = {"contains": "all is well"} if scheme == "http" else {}
    async with Wire(trickles(first, rest)) as server:
        found = await look(f"{scheme}://127.0.0.1:{server.port}", patience=HASTY, **wanted)
    assert (found.outcome, found.code) == ("failed", "timeout"), found.reason


async def test_a_body_without_an_end_is_read_no_further_than_its_words_may_stand() -> None:
    async def endless(_request: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"." * 65_536)
            await writer.drain()

    async with Server(endless) as server:
        found = await look(server.url(), contains="all is well")
    assert (found.outcome, found.code) == ("failed", "not_contained"), found.reason


@pytest.mark.req("JD-04")
async def test_a_page_that_is_late_is_poor() -> None:
    async def late(request: Any, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await says(OK)(request, writer)

    async with Server(late) as server:
        found = await look(server.url(), slow=duration("50ms"))
    assert (found.outcome, found.code) == ("poor", "slow")
    assert "longer than 50ms" in found.reason


async def test_its_statuses_and_its_words_are_what_was_asked_for() -> None:
    async with Server(responds(404, body=b"x" * 70_000 + b"all is well")) as server:
        assert (await look(server.url(), status="200-299, 404")).outcome == "ok"
        assert (await look(server.url(), status="404", contains="xxx")).outcome == "ok"
        too_far = await look(server.url(), status="404", contains="all is well")
    assert (too_far.outcome, too_far.code) == ("failed", "not_contained")


async def test_redirects_are_answers_and_are_not_followed() -> None:
    async with Server(responds(302, "location: http://127.0.0.1:1/")) as server:
        assert (await look(server.url())).outcome == "ok"
        assert (await look(server.url(), status="200")).code == "http_302"
    assert len(server.requests) == 2


# --- TCP and certificates ---------------------------------------------------------------------------------------------


@pytest.fixture
async def silent() -> AsyncIterator[Server]:
    """Takes connections and says nothing."""

    async def nothing(request: Any, _writer: asyncio.StreamWriter) -> None:
        await request.reader.read()

    async with Wire(nothing) as server:
        yield server


@pytest.mark.req("JD-04")
async def test_a_port_that_takes_connections_is_well_and_one_that_refuses_has_failed(silent: Server) -> None:
    assert (await look(f"tcp://127.0.0.1:{silent.port}")).outcome == "ok"
    found = await look("tcp://127.0.0.1:1")
    assert (found.outcome, found.code) == ("failed", "connection_refused")


@pytest.mark.req("JD-04")
@pytest.mark.parametrize("scheme", ["https", "tls", "smtp", "smtps"])
async def test_who_takes_connections_and_says_nothing_has_failed(silent: Server, scheme: str) -> None:
    found = await look(f"{scheme}://127.0.0.1:{silent.port}", patience=HASTY)
    assert (found.outcome, found.code) == ("failed", "timeout")


@pytest.mark.req("JD-04")
@pytest.mark.parametrize("scheme", ["https", "tls"])
async def test_a_certificate_is_looked_at(scheme: str, tmp_path: Path) -> None:
    made = certificate.make(tmp_path, "127.0.0.1")
    async with Server(says(OK), tls=made.server) as server:
        place, ca = f"{scheme}://127.0.0.1:{server.port}", Path(made.file)
        well = await look(place, ca_file=ca)
        soon = await look(place, ca_file=ca, expires=duration("14d"))
        stranger = await look(place)
    assert (well.outcome, well.code) == ("ok", "")
    assert well.expires_at is not None
    assert (soon.outcome, soon.code) == ("poor", "certificate_expires")
    assert "23 hours" in soon.reason
    assert (stranger.outcome, stranger.code) == ("failed", "certificate_untrusted")


@pytest.mark.req("JD-04")
async def test_a_certificate_that_has_ended_or_is_of_another_host_has_failed(tmp_path: Path) -> None:
    ended, ended_file = self_signed(tmp_path / "ended", "shop.example", expired=True)
    other, other_file = self_signed(tmp_path / "other", "other.example")
    known = names(shop_example=["127.0.0.1"])
    async with Server(says(OK), tls=ended) as old, Server(says(OK), tls=other) as strange:
        first = await look(old.url("/", "shop.example"), ca_file=ended_file, lookup=known)
        second = await look(strange.url("/", "shop.example"), ca_file=other_file, lookup=known)
    assert (first.outcome, first.code) == ("failed", "certificate_expired")
    assert (second.outcome, second.code) == ("failed", "certificate_wrong_host")


async def test_a_port_without_tls_has_failed() -> None:
    async with Wire(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        found = await look(f"https://127.0.0.1:{server.port}/")
    assert (found.outcome, found.code) == ("failed", "tls_error")


@pytest.mark.req("JD-04")
async def test_a_certificate_that_is_not_valid_yet_is_said_to_be_so(tmp_path: Path) -> None:
    early, file = self_signed(tmp_path / "early", "shop.example", from_days=1)
    async with Server(says(OK), tls=early) as server:
        found = await look(server.url("/", "shop.example"), ca_file=file, lookup=names(shop_example=["127.0.0.1"]))
    assert (found.outcome, found.code) == ("failed", "certificate_not_yet_valid")


async def test_certificates_that_cannot_be_read_now_are_our_own_trouble_and_are_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = certificate.make(tmp_path, "127.0.0.1")
    answers: list[Any] = [OSError(errno.EMFILE, "Too many open files"), ssl.create_default_context(cafile=made.file)]

    def context(_ca: Path | None = None) -> ssl.SSLContext:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr("jobs.monitor.reach._context", context)
    settings = DnsSettings(resolvers=("127.0.0.1:9",))
    prober = Prober(MonitorSettings(allow_addresses=("127.0.0.0/8",)), settings)
    async with Server(says(OK), tls=made.server) as server:
        watch = WatchSettings(
            verb="monitor", target=f"https://127.0.0.1:{server.port}/", patience=PATIENT, expires=duration(0)
        )
        found = [await prober.check(watch, Resolver(settings)) for _ in range(2)]
    prober.close()
    assert [(one.outcome, one.code) for one in found] == [("unknown", "local_error"), ("ok", "")]


@pytest.mark.req("JD-04")
async def test_an_address_that_is_silent_leaves_time_for_the_next(silent: Server) -> None:
    with full(silent.port):
        known = names(shop_example=["127.0.0.2", "127.0.0.1"])
        found = await look(f"tcp://shop.example:{silent.port}", lookup=known, patience=duration("2s"))
    assert (found.outcome, found.address) == ("ok", "127.0.0.1"), found.reason


@contextmanager
def full(port: int) -> Iterator[None]:
    """127.0.0.2 takes no connection at this port, and refuses none."""
    with socket.socket() as door, ExitStack() as waiting:
        door.bind(("127.0.0.2", port))
        door.listen(0)
        for _ in range(3):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", port))
        yield


# --- mail -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("JD-04")
async def test_a_mail_server_is_greeted_and_left_without_a_message(tmp_path: Path) -> None:
    made = certificate.make(tmp_path, "127.0.0.1")
    async with Peer(tls=made.server) as peer:
        found = await look(f"smtp://127.0.0.1:{peer.port}", ca_file=Path(made.file))
        await peer.closed_by_client()
    assert (found.outcome, found.code) == ("ok", "")
    assert found.expires_at is not None
    assert [command.split(" ")[0] for command in peer.commands] == ["EHLO", "STARTTLS", "EHLO"]


@pytest.mark.req("JD-04")
@pytest.mark.parametrize(
    ("script", "wanted", "code"),
    [
        ({"GREETING": ["421 4.3.2 too busy"]}, {}, "smtp_421"),
        ({"GREETING": ["554 5.7.1 go away"]}, {}, "smtp_554"),
        ({"GREETING": ["HTTP/1.1 400 Bad Request"]}, {}, "no_smtp"),
        ({"GREETING": [DROP]}, {}, "connection_reset"),
        ({"GREETING": [RESET]}, {}, "connection_reset"),
        ({"EHLO": ["421 4.3.2 not now"]}, {}, "smtp_421"),
        ({"EHLO": [DROP]}, {}, "connection_closed"),
        ({}, {}, "no_starttls"),
        ({"GREETING": ["220-more\r\n" * 20_000]}, {}, "no_smtp"),
        ({"GREETING": [HANG]}, {"patience": HASTY}, "timeout"),
        ({"EHLO": [HANG]}, {"patience": HASTY}, "timeout"),
    ],
)
async def test_a_mail_server_that_is_not_well_has_failed(
    script: dict[str, list[str]], wanted: dict[str, Any], code: str
) -> None:
    async with Peer(script) as peer:
        found = await look(f"smtp://127.0.0.1:{peer.port}", **wanted)
    assert (found.outcome, found.code) == ("failed", code), found.reason


async def test_starttls_is_not_asked_for_where_it_is_not_wanted_and_its_certificate_is_looked_at(
    tmp_path: Path,
) -> None:
    made = certificate.make(tmp_path, "127.0.0.1")
    async with Peer(tls=made.server) as peer, Peer(tls=made.server, implicit=True) as implicit:
        place = f"smtp://127.0.0.1:{peer.port}"
        assert (await look(place, starttls=False)).outcome == "ok"
        assert (await look(place)).code == "certificate_untrusted"
        assert (await look(place, ca_file=Path(made.file), expires=duration("14d"))).code == "certificate_expires"
        hidden = f"smtps://127.0.0.1:{implicit.port}"
        assert (await look(hidden, ca_file=Path(made.file))).outcome == "ok"
        assert (await look(hidden)).code == "certificate_untrusted"


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def zone() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.add("www.example.test. 300 IN A 192.0.2.1", "www.example.test. 300 IN A 192.0.2.2")
        server.add("example.test. 300 IN MX 10 mx.example.test.")
        yield server


def asking(server: DnsServer, timeout: float = PATIENT) -> DnsSettings:
    return DnsSettings(resolvers=(server.place,), timeout=duration(timeout), tries=1)


@pytest.mark.req("JD-04")
@pytest.mark.parametrize(
    ("target", "expect", "code"),
    [
        ("dns:www.example.test", (), ""),
        ("dns:www.example.test", ("192.0.2.2",), ""),
        ("dns:WWW.example.test.?type=a", ("192.0.2.2", "192.0.2.1"), ""),
        ("dns:example.test?type=MX", ("10 MX.example.test.",), ""),
        ("dns:www.example.test", ("192.0.2.3",), "dns_mismatch"),
        ("dns:www.example.test?type=AAAA", (), "dns_nodata"),
        ("dns:nothing.example.test", (), "dns_nxdomain"),
    ],
)
async def test_a_name_has_the_records_that_it_should(
    zone: DnsServer, target: str, expect: tuple[str, ...], code: str
) -> None:
    found = await look(target, expect=expect, dns=asking(zone))
    assert (found.outcome, found.code) == ("failed" if code else "ok", code), found.reason


@pytest.mark.req("JD-04")
async def test_a_name_server_that_fails_is_the_names_trouble_and_one_of_ours_that_is_silent_is_not(
    zone: DnsServer,
) -> None:
    zone.fault = "servfail"
    found = await look("dns:www.example.test", dns=asking(zone))
    assert (found.outcome, found.code) == ("failed", "dns_servfail")
    zone.fault = "refused"
    assert (await look("dns:www.example.test", dns=asking(zone))).outcome == "unknown", "our own will not serve us"
    assert (await look(f"dns://{zone.place}/www.example.test", dns=asking(zone))).code == "dns_refused"
    zone.fault = "silent"
    ours = await look("dns:www.example.test", dns=asking(zone, 0.2))
    assert (ours.outcome, ours.code) == ("unknown", "dns_timeout")
    theirs = await look(f"dns://{zone.place}/www.example.test", dns=asking(zone, 0.2))
    assert (theirs.outcome, theirs.code) == ("failed", "dns_timeout")


async def test_one_name_server_can_be_asked(zone: DnsServer) -> None:
    found = await look(f"dns://{zone.place}/www.example.test", dns=DnsSettings(resolvers=("127.0.0.1:1",)))
    assert (found.outcome, found.address) == ("ok", "127.0.0.1")


# --- the guard --------------------------------------------------------------------------------------------------------


@pytest.mark.req("JD-04")
@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "tcp://127.0.0.1:{port}", "tls://127.0.0.1:{port}"),
        *("smtp://127.0.0.1:{port}", "tcp://[::1]:{port}", "tcp://localhost:{port}", "dns://127.0.0.1:{port}/x.test"),
    ],
)
async def test_what_is_not_public_is_not_looked_at_unless_it_is_excepted(silent: Server, target: str) -> None:
    found = await look(target.format(port=silent.port), allow=())
    assert (found.outcome, found.code) == ("failed", "blocked")
    assert silent.connections == 0


@pytest.mark.req("JD-04")
async def test_a_name_is_looked_up_once_and_one_bad_address_among_good_ones_is_enough(silent: Server) -> None:
    asked: list[str] = []

    async def changes_its_mind(host: str) -> list[str]:
        asked.append(host)
        return ["8.8.8.8", "127.0.0.1"] if len(asked) == 1 else ["127.0.0.1"]

    found = await look(f"tcp://shop.example:{silent.port}", allow=(), lookup=changes_its_mind)
    assert (found.outcome, found.code, silent.connections) == ("failed", "blocked", 0)
    assert asked == ["shop.example"]


@pytest.mark.parametrize(
    "target",
    [
        *("ftp://shop.example", "shop.example", "", "tcp://shop.example", "tcp://shop.example:0", "tcp://:5432"),
        *("tcp://shop.example:99999", "smtp://a@shop.example", "tls://shop.example/path", "https://u:p@shop.example/"),
        *("https://127.1/", "dns:", "dns:a b", "dns:shop.example?type=ANY", "dns:shop.example?class=CH"),
        *("dns://ns.example/shop.example", "smtp://", "tcp://[::1:80", "dns:shop.example#x"),
    ],
)
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"^target: "):
        WatchSettings(verb="monitor", target=target)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slow", duration("10s")),
        ("timeout", duration("10s")),
        ("status", "ok"),
        ("status", "300-200"),
        ("contains", "x"),
        ("expect", ("192.0.2.1",)),
        ("tell", ("nobody",)),
        ("tell", ("ops@shop.example",) * 21),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        WatchSettings(**{"verb": "monitor", "target": "tcp://shop.example:80", field: value})
