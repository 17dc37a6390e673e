"""Forwarded bytes are the received bytes; signatures on them hold; nothing goes in circles."""

from __future__ import annotations

import base64
import random
import re
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from jobs.email.address import mailbox
from jobs.email.forward_wire import (
    Forwarded,
    Unforwardable,
    head_of,
    message_id_of,
    refuse_loops,
    smtp_form,
    trace,
)
from tests.jobs.email.mail import mail, only
from tests.jobs.email.peer import Peer

pytestmark = pytest.mark.req("BJ-03")

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JOE = mailbox("joe@mailbox.example")
BEFORE = trace("ours.example", 7, ["TOKEN"], [JOE], AT)

_KEY = ed25519.Ed25519PrivateKey.generate()
_RAW, _NONE = serialization.Encoding.Raw, serialization.NoEncryption()
SEED = base64.b64encode(_KEY.private_bytes(_RAW, serialization.PrivateFormat.Raw, _NONE))
PUBLIC = base64.b64encode(_KEY.public_key().public_bytes(_RAW, serialization.PublicFormat.Raw))
RECORD = b"v=DKIM1; k=ed25519; p=" + PUBLIC

_LINES = (
    b"Hello", b"", b".", b"..", b".x", b"\xff\xfe\x80", "Grüße 日本".encode(), b"nul \x00 here", b"x" * 1500,
    b"a  b\t ", b"From me", b"=?utf-8?q?x?=", b" folded", b"--b", b"\x01\x7f", b"QUIT", b"RSET",
)  # fmt: skip
_ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n")
_FIELDS = (
    b"Subject: Gr\xfc\xdfe", "Subject: Grüße 日本".encode(), b"To: joe@x.example,\r\n\tjane@x.example", b"X-Empty:",
    b"X-Dup: 1", b"X-Dup: 2", b"Received: from a by b; Sun, 1 Mar 2026 12:00:00 +0000", b"X-Long: " + b"y" * 1200,
    b"Message-ID: <1@x.example>",
)  # fmt: skip


def generated(dice: random.Random) -> bytes:
    """A message as the world sends it: signed, 8-bit, with long lines, NULs and lone line feeds."""
    head = b"From: jane@x.example\r\n" + b"".join(
        field + b"\r\n" for field in dice.sample(_FIELDS, k=dice.randrange(6))
    )
    body = b"".join(dice.choice(_LINES) + dice.choice(_ENDS) for _ in range(dice.randrange(12)))
    if dice.random() < 0.2:
        body += b"no end of line"
    raw = head + (b"" if dice.random() < 0.05 else b"\r\n" + body)
    if dice.random() < 0.1:
        raw = raw.replace(b"\r\n", b"\n")
    relaxed = dice.choice([(b"simple", b"simple"), (b"relaxed", b"relaxed"), (b"relaxed", b"simple")])
    signature: bytes = dkim.sign(
        raw, b"s1", b"x.example", SEED, canonicalize=relaxed, include_headers=[b"From", b"Subject", b"To"],
        signature_algorithm=b"ed25519-sha256",
    )  # fmt: skip
    return signature + raw


def forwarded(raw: bytes) -> Forwarded:
    return Forwarded(BEFORE + smtp_form(raw), message_id_of(raw), None, (JOE,), False)


def as_smtp_has_it(raw: bytes) -> bytes:
    """What SMTP can carry of it: the bytes themselves, but for the ends of lines."""
    lines = re.sub(rb"(?<!\r)\n", b"\r\n", raw)
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"


async def test_a_thousand_forwards_are_the_received_bytes_behind_two_lines_and_their_signatures_hold() -> None:
    dice, untouched = random.Random(4), 0
    async with Peer() as peer:
        out = mail(peer.settings())
        for _ in range(1000):
            raw = generated(dice)
            message = forwarded(raw)
            report = await out.send(message, message.recipients, message.sender)
            assert only(report).phase == "final"
            got = peer.received.pop().wire
            assert got.startswith(BEFORE)
            assert got[len(BEFORE) :] == as_smtp_has_it(raw)
            untouched += got[len(BEFORE) :] == raw
            assert dkim.verify(got, dnsfunc=lambda name, timeout=5: RECORD)
        await out.close()
    assert untouched > 150  # most others have a lone LF somewhere


async def test_the_null_path_and_eight_bits_are_said_to_the_relay() -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        message = forwarded(b"Subject: \xff\r\n\r\n")
        await out.send(message, message.recipients, message.sender)
        [said] = [command for command in peer.commands if command.startswith("MAIL")]
        assert said.startswith("MAIL FROM:<> ")
        assert "BODY=8BITMIME" in said
        assert "SMTPUTF8" not in said
        await out.close()


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\n"])
async def test_no_end_of_a_message_can_be_smuggled(end: bytes) -> None:
    evil = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<all@x.example>\r\nDATA\r\nFrom: boss@x.example\r\n\r\nPay.\r\n"
    raw = b"Subject: hi\r\n\r\nHello" + end + evil
    async with Peer() as peer:
        out = mail(peer.settings())
        message = forwarded(raw)
        await out.send(message, message.recipients, message.sender)
        [got] = peer.received
        assert got.wire == BEFORE + as_smtp_has_it(raw)
        assert peer.count("MAIL") == 1
        await out.close()


@pytest.mark.parametrize("raw", [b"a: b\r\n\r\nx\ry\r\n", b"a: b\r\n\r\nx\r\r\n", b"\r", b"a: b\r\n\r\nx\r"])
def test_a_lone_cr_is_not_sent_and_its_line_is_named(raw: bytes) -> None:
    with pytest.raises(Unforwardable, match=r"line [123] has a CR without its LF") as refused:
        smtp_form(raw)
    assert refused.value.code == "bare_cr"


def test_a_message_that_was_here_on_the_same_way_goes_in_a_circle() -> None:
    once = BEFORE + b"Subject: x\r\n\r\nX-Jobsd-Loop: BODY\r\n"
    loops = ["TOKEN", "OLD"]
    with pytest.raises(Unforwardable, match="in a circle") as refused:
        refuse_loops(once, loops, 30)
    assert refused.value.code == "mail_loop"
    refuse_loops(once, ["OTHER", "BODY"], 30)  # another recipient; and what a body says is no matter
    two = trace("ours.example", 7, ["A", "OLD"], [JOE, JOE], AT) + b"Subject: x\r\n\r\n"
    with pytest.raises(Unforwardable):
        refuse_loops(two.replace(b"X-Jobsd-Loop", b"x-JOBSD-loop"), loops, 30)


def test_thirty_servers_are_a_long_way_and_one_more_is_a_circle() -> None:
    hops = b"Received: from a by b\r\n" * 30 + b"Subject: x\r\n\r\nReceived: from a by b\r\n"
    refuse_loops(hops, [], 30)
    with pytest.raises(Unforwardable, match="31 Received headers"):
        refuse_loops(b"RECEIVED : from a by b\r\n" + hops, [], 30)


@pytest.mark.parametrize(
    ("raw", "head", "message_id"),
    [
        (b"Message-ID: <a@b>\r\n\r\nx", b"Message-ID: <a@b>\r\n", "<a@b>"),
        (b"A: 1\nMessage-Id:\n <a@b>\n\nx", b"A: 1\nMessage-Id:\n <a@b>\n", "<a@b>"),
        (b"A: 1\r\n\r\nMessage-ID: <a@b>\r\n", b"A: 1\r\n", ""),
        (b"A: 1\r\nMessage-ID: <\x00@b>\r\n", b"A: 1\r\nMessage-ID: <\x00@b>\r\n", ""),
        (b"\r\nbody\r\n\r\n", b"\r", ""),
        (b"", b"", ""),
    ],
)
def test_the_head_ends_at_the_first_empty_line(raw: bytes, head: bytes, message_id: str) -> None:
    assert head_of(raw) == head
    assert message_id_of(raw) == message_id
