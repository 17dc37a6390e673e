"""A relay that fails at every step: nothing is lost, nothing leaks, and each fault is known for what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jobs.email.judge import judge
from jobs.email.reply import DeliveryReport
from jobs.email.settings import RelaySettings
from tests.jobs.email.certificate import Certificate
from tests.jobs.email.mail import PASSWORD, Clock, mail, only, send, send_large
from tests.jobs.email.peer import DROP, HANG, RESET, STALL, Peer

QUICK = {"connect_timeout": 1.0, "command_timeout": 1.0, "data_timeout": 1.0, "final_timeout": 1.0}
"""Soon enough to be waited for, and late enough for a busy machine to answer in time what it is to answer."""


async def one_try(script: dict[str, list[str]]) -> tuple[str, str, str]:
    """(phase, result, code) of a message to a relay that does this once; afterwards it takes the same message."""
    clock = Clock()
    async with Peer(script) as peer:
        out = mail(peer.settings(**QUICK if [HANG] in script.values() else {}), clock=clock)
        answer = only(await send(out))
        verdict = judge(answer)
        clock.now += 1000
        assert only(await send(out)).phase == "final"
        await out.close()
        await peer.until(lambda: peer.open == 0)
        return answer.phase, verdict.result, verdict.code


@pytest.mark.parametrize(
    ("step", "phase"),
    [
        ("GREETING", "connect"),
        ("EHLO", "hello"),
        ("MAIL", "mail"),
        ("RCPT", "rcpt"),
        ("DATA", "data"),
        ("DOT", "final"),
    ],
)
async def test_a_421_at_any_step_is_the_relays_fault_and_ends_the_connection(step: str, phase: str) -> None:
    clock = Clock()
    async with Peer({step: ["421 4.3.2 closing down"]}) as peer:
        out = mail(peer.settings(), clock=clock)
        report = await send(out)
        assert (only(report).phase, judge(only(report)).result, report.after_s) == (phase, "deferred", 10.0)
        await peer.closed_by_client()
        clock.now += 10
        assert only(await send(out)).phase == "final"
        await out.close()


@pytest.mark.parametrize(
    ("step", "phase", "result"),
    [
        ("GREETING", "connect", "deferred"),
        ("EHLO", "hello", "deferred"),
        ("MAIL", "mail", "deferred"),
        ("RCPT", "rcpt", "soft"),
        ("DATA", "data", "soft"),
        ("DOT", "final", "unknown"),
    ],
)
@pytest.mark.parametrize("fault", [DROP, RESET, HANG, "gibberish", "25x what", "250-" + "x" * 9000, "250-a\r\n" * 200])
async def test_no_reply_at_any_step_is_known_for_what_it_is(step: str, phase: str, result: str, fault: str) -> None:
    found = await one_try({step: [fault]})
    assert found[:2] == (phase, result)


@pytest.mark.parametrize(("code", "result"), [("451 4.3.0 later", "soft"), ("550 5.7.1 never", "hard")])
@pytest.mark.parametrize(("step", "phase"), [("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), ("DOT", "final")])
async def test_a_refusal_at_any_step_leaves_the_connection_usable(
    step: str, phase: str, code: str, result: str
) -> None:
    async with Peer({step: [code]}) as peer:
        out = mail(peer.settings())
        answer = only(await send(out))
        assert (answer.phase, judge(answer).result) == (phase, result)
        assert only(await send(out)).phase == "final"
        assert (peer.connections, peer.count("RSET")) == (1, int(step != "DOT"))  # the dot ends it by itself
        await out.close()


@pytest.mark.parametrize("fault", [DROP, RESET])
async def test_a_connection_lost_inside_a_large_message_is_surely_before_the_dot(fault: str) -> None:
    async with Peer({"BODY": [fault]}) as peer:
        out = mail(peer.settings())
        answer = only(await send_large(out))
        assert (answer.phase, answer.fault, judge(answer).result) == ("data", "lost", "soft")
        assert only(await send_large(out)).phase == "final"
        await out.close()


async def test_a_relay_that_stops_reading_is_given_up_before_the_dot() -> None:
    async with Peer({"BODY": [STALL]}) as peer:
        out = mail(peer.settings(data_timeout=0.2))
        answer = only(await send_large(out))
        assert (answer.phase, answer.fault) == ("data", "timeout")
        await out.close()


@pytest.mark.req("BJ-21")
async def test_one_refused_recipient_does_not_keep_the_others_from_their_mail() -> None:
    script = {
        "RCPT TO:<b@x.example>": ["550 5.1.1 no such user"],
        "RCPT TO:<c@x.example>": ["452 4.2.2 mailbox full"],
    }
    async with Peer(script) as peer:
        out = mail(peer.settings())
        report = await send(out, "a@x.example", "b@x.example", "c@x.example", "d@x.example")
        assert {a.recipient: judge(a).code for a in report.answers} == {
            "a@x.example": "delivered",
            "b@x.example": "bad_recipient",
            "c@x.example": "mailbox_full",
            "d@x.example": "delivered",
        }
        assert peer.received[0].recipients == ("a@x.example", "d@x.example")
        await out.close()


async def test_when_every_recipient_is_refused_no_message_is_sent() -> None:
    async with Peer({"RCPT": ["550 5.1.1 no", "550 5.1.1 no"]}) as peer:
        out = mail(peer.settings())
        report = await send(out, "a@x.example", "b@x.example")
        assert [a.phase for a in report.answers] == ["rcpt", "rcpt"]
        assert peer.count("DATA") == 0
        await out.close()


async def test_a_421_between_recipients_defers_those_who_were_taken_too() -> None:
    async with Peer({"RCPT TO:<b@x.example>": ["421 4.7.0 too many errors"]}) as peer:
        out = mail(peer.settings())
        report = await send(out, "a@x.example", "b@x.example", "c@x.example")
        assert [judge(a).result for a in report.answers] == ["deferred"] * 3
        assert not peer.received
        await out.close()


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_a_cancelled_message_leaks_no_connection(step: str) -> None:
    async with Peer({step: [HANG]}) as peer:
        out = mail(peer.settings(connections=1))
        sending = asyncio.ensure_future(send(out))
        if step == "GREETING":
            await peer.until(lambda: peer.connections == 1)
        elif step == "DOT":
            await peer.until(lambda: peer.count(".") == 1)
        else:
            await peer.until(lambda: peer.count(step) == 1)
        sending.cancel()
        if step == "DOT":  # the relay may have it: that is an answer
            assert (only(await sending).phase, only(await sending).fault) == ("final", "stopped")
        else:
            with pytest.raises(asyncio.CancelledError):
                await sending
        await peer.closed_by_client()
        assert only(await send(out)).phase == "final"
        await out.close()


async def test_a_relay_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    clock = Clock()
    async with Peer() as peer:
        settings = peer.settings()
    out = mail(settings, clock=clock)
    report = await send(out)
    assert (only(report).phase, judge(only(report)).result, report.after_s) == ("connect", "deferred", 10.0)
    clock.now += 4
    report = await send(out)
    assert (only(report).phase, only(report).fault, report.after_s) == ("queue", "resting", 6.0)
    clock.now += 6
    assert (await send(out)).after_s == 20.0
    await out.close()


async def test_a_relay_that_works_again_is_forgiven() -> None:
    clock = Clock()
    async with Peer({"GREETING": ["421 busy", "421 busy", "220 hello", "421 busy"]}) as peer:
        out = mail(peer.settings(messages_per_connection=1), clock=clock)
        rests = []
        for _ in range(4):
            rests.append((await send(out)).after_s)
            clock.now += 100
        assert rests == [10, 20, 0, 10]
        await out.close()


@pytest.mark.parametrize(
    ("script", "fault"),
    [({"STARTTLS": ["454 4.7.0 TLS not available"]}, "refused"), ({"STARTTLS": [DROP]}, "lost"), ({}, "tls")],
)
async def test_tls_that_is_refused_never_becomes_plain_text(
    script: dict[str, list[str]], fault: str, certificate: Certificate
) -> None:
    async with Peer(script, tls=certificate.server if script else None) as peer:
        out = mail(peer.settings(tls="required", username="shop", password=PASSWORD))
        answer = only(await send(out))
        assert (answer.phase, judge(answer).result) == ("tls", "deferred")
        assert fault in (answer.fault, "refused")
        assert peer.count("AUTH") == peer.count("MAIL") == 0
        await out.close()


async def refused_certificate(settings: RelaySettings) -> DeliveryReport:
    out = mail(settings)
    report = await send(out)
    await out.close()
    return report


@pytest.mark.parametrize("tls", ["required", "implicit"])
async def test_a_wrong_certificate_is_refused(
    tls: str, certificate: Certificate, certificate_for: Callable[[str], Certificate]
) -> None:
    """Neither one that nobody vouches for, nor a trusted one for another host."""
    other = certificate_for("127.0.0.2")
    for shown, trusted in ((certificate, None), (certificate, other.file), (other, other.file)):
        async with Peer(tls=shown.server, implicit=tls == "implicit") as peer:
            report = await refused_certificate(peer.settings(tls=tls, ca_file=trusted))
            assert (only(report).phase, only(report).fault) == ("tls", "tls")
            assert "certificate" in only(report).note.lower()
            assert peer.count("MAIL") == 0


@pytest.mark.parametrize("tls", ["required", "implicit"])
async def test_tls_works_both_ways_and_unverified_only_when_told_so(tls: str, certificate: Certificate) -> None:
    async with Peer(tls=certificate.server, implicit=tls == "implicit") as peer:
        for trust in ({"ca_file": certificate.file}, {"verify_certificate": False}):
            out = mail(peer.settings(tls=tls, **trust))
            assert only(await send(out)).phase == "final"
            await out.close()
        assert peer.connections == 2


async def test_a_refused_login_leaves_the_message_untouched_and_the_account_alone() -> None:
    clock = Clock()
    wrong = ["535 5.7.8 wrong"] * 2
    async with Peer({"AUTH": wrong}, offers=["AUTH PLAIN LOGIN"]) as peer:
        out = mail(peer.settings(username="shop", password=PASSWORD), clock=clock)
        report = await send(out)
        assert (only(report).phase, judge(only(report)).code, report.after_s) == ("auth", "relay_auth", 300.0)
        attempts = peer.count("AUTH")
        clock.now += 299
        assert only(await send(out)).fault == "resting"
        assert peer.count("AUTH") == attempts
        clock.now += 2
        assert only(await send(out)).phase == "final"
        await out.close()


@pytest.mark.parametrize(
    "settings",
    [{"username": "u", "password": "secret://missing"}, {"username": "u", "password_file": "/nowhere/password"}],
)
async def test_a_missing_password_is_the_relays_fault(settings: dict[str, str]) -> None:
    async with Peer(offers=["AUTH PLAIN"]) as peer:
        out = mail(peer.settings(**settings))
        answer = only(await send(out))
        assert (answer.phase, judge(answer).result) == ("auth", "deferred")
        assert "missing" in answer.note or "nowhere" in answer.note
        await out.close()


async def test_what_a_relay_says_is_kept_without_what_cannot_be_stored() -> None:
    async with Peer({"RCPT": ["550 5.1.1 no\0 such \udcff user " + "x" * 3000]}) as peer:
        out = mail(peer.settings())
        reply = only(await send(out)).reply
        assert reply is not None
        assert reply.enhanced == "5.1.1"
        assert "\0" not in reply.words
        assert len(reply.words.encode()) <= 1024
        await out.close()
