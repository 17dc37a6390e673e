"""A relay that behaves: who gets what, through how many connections, how fast."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiosmtpd.smtp
import pytest

from jobs.email.address import mailbox
from jobs.email.judge import judge
from jobs.email.relay import WAIT_S, UnknownRelay
from jobs.email.session import dotted
from jobs.email.settings import RelaySettings
from jobs.values import duration, rate
from tests.jobs.email.certificate import Certificate
from tests.jobs.email.mail import PASSWORD, SENDER, Clock, mail, message, only, send
from tests.jobs.email.peer import HANG, PIPELINING, Peer


class Inbox:
    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], bytes]] = []

    async def handle_DATA(
        self, server: aiosmtpd.smtp.SMTP, session: aiosmtpd.smtp.Session, envelope: aiosmtpd.smtp.Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        self.messages.append((envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 kept"


async def test_a_message_arrives_over_tls_and_login_byte_for_byte(certificate: Certificate) -> None:
    inbox, logins = Inbox(), []

    def authenticate(
        server: object, session: object, envelope: object, mechanism: str, data: aiosmtpd.smtp.LoginPassword
    ) -> aiosmtpd.smtp.AuthResult:
        logins.append((data.login, data.password))
        return aiosmtpd.smtp.AuthResult(success=True)

    def protocol() -> aiosmtpd.smtp.SMTP:
        return aiosmtpd.smtp.SMTP(
            inbox,
            enable_SMTPUTF8=True,
            tls_context=certificate.server,
            require_starttls=True,
            authenticator=authenticate,
            auth_required=True,
        )

    async with await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        relay = RelaySettings(
            host="127.0.0.1",
            port=port,
            username="shop",
            password=PASSWORD,
            ca_file=certificate.file,
            data_timeout=duration("5s"),
        )
        out = mail(relay)
        one = message(to=["jane@x.example", "bob@x.example"], text="Zażółć\n.\n..\n" + "x" * 200_000)
        report = await out.send(one, one.recipients, mailbox(SENDER))
        await out.close()
    assert [(a.phase, a.reply and a.reply.enhanced) for a in report.answers] == [("final", "2.0.0")] * 2
    assert inbox.messages == [("no-reply@shop.example", ["jane@x.example", "bob@x.example"], one.wire)]
    assert logins == [(b"shop", b"hunter2")]


async def test_one_connection_serves_many_messages() -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        for _ in range(20):
            assert only(await send(out)).phase == "final"
        assert (peer.connections, len(peer.received), peer.count("RSET")) == (1, 20, 0)
        await out.close()
        await peer.until(lambda: peer.open == 0)
        assert peer.commands[-1] == "QUIT"


async def test_a_connection_is_renewed_after_its_messages() -> None:
    async with Peer() as peer:
        out = mail(peer.settings(messages_per_connection=3))
        for _ in range(8):
            await send(out)
        assert [received.connection for received in peer.received] == [1, 1, 1, 2, 2, 2, 3, 3]
        await out.close()


@pytest.mark.req("BJ-21")
async def test_there_are_never_more_connections_than_allowed() -> None:
    async with Peer() as peer:
        out = mail(peer.settings(connections=3))
        reports = await asyncio.gather(*(send(out) for _ in range(50)))
        assert all(only(report).phase == "final" for report in reports)
        assert len(peer.received) == 50
        assert peer.connections == 3
        await out.close()


async def test_an_idle_connection_is_closed() -> None:
    async with Peer() as peer:
        out = mail(peer.settings(idle=0.02))
        await send(out)
        await peer.until(lambda: peer.open == 0)
        assert peer.commands[-1] == "QUIT"
        assert only(await send(out)).phase == "final"
        assert peer.connections == 2
        await out.close()


async def test_a_connection_that_waited_is_probed_before_it_is_trusted() -> None:
    clock = Clock()
    async with Peer({"RSET": ["250 ok", "drop"]}) as peer:
        out = mail(peer.settings(), clock=clock)
        for pause_s, connections in ((9.0, 1), (11.0, 1), (11.0, 2)):
            await send(out)
            clock.now += pause_s
            assert only(await send(out)).phase == "final"
            assert peer.connections == connections
        await out.close()


async def test_a_connection_that_the_relay_closed_meanwhile_costs_nothing() -> None:
    async with Peer({"MAIL": ["250 ok", "drop", "250 ok", "421 4.4.2 idle too long"]}) as peer:
        out = mail(peer.settings())
        for _ in range(4):
            assert only(await send(out)).phase == "final"
        assert peer.connections == 3
        await out.close()


async def test_a_closed_mail_sees_its_messages_through_and_keeps_no_connection() -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        await out.close()
        assert only(await send(out)).phase == "final"
        await peer.until(lambda: peer.open == 0)


async def test_many_recipients_are_handed_over_in_turns() -> None:
    async with Peer() as peer:
        out = mail(peer.settings(recipients_per_message=50))
        report = await send(out, *(f"u{n}@x.example" for n in range(120)))
        assert [len(received.recipients) for received in peer.received] == [50, 50, 20]
        assert len({received.wire for received in peer.received}) == 1
        assert [answer.recipient for answer in report.answers] == [f"u{n}@x.example" for n in range(120)]
        await out.close()


async def test_a_message_that_would_wait_long_for_the_rate_gives_its_slot_back() -> None:
    clock = Clock()
    async with Peer() as peer:
        out = mail(peer.settings(rate=rate("2/m")), clock=clock)
        assert [only(await send(out)).phase for _ in range(2)] == ["final", "final"]
        clock.now += 20
        report = await send(out)
        assert (only(report).phase, only(report).fault) == ("queue", "rate")
        assert report.after_s == pytest.approx(40)
        assert len(peer.received) == 2
        clock.now += 40
        assert only(await send(out)).phase == "final"
        await out.close()


async def test_a_message_that_waits_long_for_a_connection_gives_its_slot_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.email.relay.WAIT_S", 0.05)
    async with Peer({"MAIL": [HANG]}) as peer:
        out = mail(peer.settings(connections=1))
        slow = asyncio.ensure_future(send(out))
        await peer.until(lambda: peer.count("MAIL") == 1)
        report = await send(out)
        assert (only(report).phase, only(report).fault) == ("queue", "busy")
        slow.cancel()
        await asyncio.wait([slow])
        assert only(await send(out)).phase == "final"
        await out.close()
    assert WAIT_S > 1


async def test_smtputf8_is_asked_of_a_relay_that_has_it_and_of_no_other() -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        assert only(await send(out, "używa@x.example")).phase == "final"
        assert any(c.startswith("MAIL") and c.endswith("SMTPUTF8 BODY=8BITMIME") for c in peer.commands)
        assert "RCPT TO:<używa@x.example>" in peer.commands
        await out.close()
    async with Peer(offers=["8BITMIME"]) as peer:
        out = mail(peer.settings())
        assert only(await send(out, "używa@x.example")).fault == "smtputf8"
        assert peer.count("MAIL") == 0
        assert only(await send(out, "jane@bücher.example")).phase == "final"
        assert "RCPT TO:<jane@xn--bcher-kva.example>" in peer.commands
        await out.close()


async def test_a_message_that_the_relay_says_it_cannot_take_is_not_offered() -> None:
    async with Peer(offers=["SIZE 2000"]) as peer:
        out = mail(peer.settings())
        assert only(await send(out, text="x" * 3000)).fault == "size"
        assert peer.count("MAIL") == 0
        await out.close()


@dataclass(frozen=True)
class Raw:
    """A message that was not composed here."""

    wire: bytes
    needs_smtputf8: bool = False

    @property
    def is_8bit(self) -> bool:
        return not self.wire.isascii()


@pytest.mark.parametrize("pipelining", [True, False])
async def test_raw_bytes_go_out_as_they_are_and_the_null_sender_too(pipelining: bool) -> None:
    wire = b"Subject: \xff\r\n\r\n.\r\n..\r\n\xe4\xf6\xfc\0\r\n.end\r\n"
    async with Peer(offers=PIPELINING) as peer:
        out = mail(peer.settings(pipelining=pipelining))
        assert only(await out.send(Raw(wire), [mailbox("a@x.example")], None)).phase == "final"
        assert peer.received[0].wire == wire
        assert f"MAIL FROM:<> SIZE={len(wire)} BODY=8BITMIME" in peer.commands
        await out.close()


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_no_line_of_a_message_ends_it_early(line_end: bytes) -> None:
    wire = line_end.join([b"Subject: x", b"", b".", b"MAIL FROM:<evil@x.example>", b".", b""])
    assert dotted(wire).count(line_end + b".." + line_end) == 2
    assert dotted(wire).endswith(b"\r\n.\r\n")
    assert dotted(b".") == b"..\r\n.\r\n"


async def test_what_has_8_bits_is_offered_only_to_a_relay_that_takes_them() -> None:
    async with Peer(offers=["SMTPUTF8"]) as peer:
        out = mail(peer.settings())
        report = await out.send(Raw(b"\r\n\xe4\r\n"), [mailbox("a@x.example")], None)
        assert (only(report).fault, judge(only(report)).result) == ("8bit", "hard")
        assert peer.count("MAIL") == 0
        assert only(await send(out)).phase == "final"
        await out.close()


async def test_an_unknown_relay_is_an_error_of_the_caller() -> None:
    out = mail(RelaySettings(host="127.0.0.1"))
    one = message()
    with pytest.raises(UnknownRelay, match="'other'"):
        await out.send(one, one.recipients, one.sender, "other")
