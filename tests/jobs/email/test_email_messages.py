"""Messages as receivers read them.  The reader here is the standard library's, which shares no code with our writer."""

from __future__ import annotations

import base64
import email
import email.policy
import os
import random
import re
from collections.abc import Sequence
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

import msgspec
import pytest

from jobs.email.message import EmailArgs, Unsendable
from jobs.email.safety import Unsafe, verify
from jobs.email.settings import EmailSettings
from jobs.values import size
from tests.jobs.email.mail import SETTINGS, args, message

USUAL = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
PARAGRAPH = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
INJECTION = "=?utf-8?q?x=0D=0ABcc:_evil@x?="
CORPUS = [
    INJECTION,
    "=?utf-8?b?eA0KQmNjOiBldmlsQHg=?=",
    "=?us-ascii?q?a=0Ab?= =?utf-8?q?=0D=0A=0D=0Abody?=",
    "=?utf-8?q?" + "=0D=0AX-Evil:_1" * 40 + "?=",
    "a =?utf-8?q?=20?= b",
    "=?", "?=", "=?x?q?=?=", "=?utf-8?q?caf=C3=A9?=",
    "x" * 2000,
    "word " * 390 + "end",
    "Zażółć gęślą jaźń " * 40,
    "👨‍👩‍👧‍👦 family " * 20,
    "\u202egnirts", "e\u0301", "\ufeffbom", "日本語の件名" * 50,
    "", " ", "  two  spaces  ", " leading", "trailing ",
    "Subject: x", "a:b", "--=_alternative_x", ".", "..", "From me",
    "; , : \" \\ ( ) < > [ ] @",
    "tab? no: a\\tb", "%0d%0aBcc: evil@x", "&#13;&#10;", "\\r\\nBcc: evil@x",
]  # fmt: skip
CONTROLS = ["a\r\nBcc: evil@x", "a\nb", "a\rb", "a\0b", "a\tb", "a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", "a\u2028b",
            "a\u2029b", "a\x7fb", "a\ud800b", "\r\n\r\nbody", "a\r\n b"]  # fmt: skip


def headers(wire: bytes) -> list[tuple[str, str]]:
    """The header block, unfolded and undecoded, by the plainest of readers."""
    block = wire.split(b"\r\n\r\n", 1)[0].decode()
    pairs = (line.split(":", 1) for line in re.sub(r"\r\n(?=[ \t])", "", block).split("\r\n"))
    return [(name, value.removeprefix(" ")) for name, value in pairs]


def as_read(value: str) -> str:
    return str(make_header(decode_header(value))) if "=?" in value else value


def parsed(wire: bytes) -> EmailMessage:
    found = email.message_from_bytes(wire, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def check(wire: bytes, extra: Sequence[str], subject: str, to: Sequence[str]) -> None:
    found = headers(wire)
    assert [name for name, _ in found] == [*USUAL, *extra, *PARAGRAPH]
    fields = dict(found)
    assert as_read(fields["Subject"]) == subject
    assert [address for _, address in getaddresses([fields["To"]])] == list(to)
    assert max(map(len, wire.split(b"\r\n"))) <= 998
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire)


@pytest.mark.parametrize("text", CORPUS)
def test_a_subject_arrives_as_it_was_stored_and_adds_no_header(text: str) -> None:
    check(message(subject=text).wire, [], text, ["jane@x.example"])


@pytest.mark.parametrize("text", [t for t in CORPUS if len(t) <= 200])
def test_a_name_arrives_as_it_was_stored_and_changes_no_recipient(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    one = message(to=[f"{quoted} <jane@x.example>", "bob@x.example"])
    check(one.wire, [], "Hello", ["jane@x.example", "bob@x.example"])
    assert [r.wire for r in one.recipients] == ["jane@x.example", "bob@x.example"]


@pytest.mark.parametrize("text", CORPUS)
def test_a_custom_header_arrives_as_it_was_stored(text: str) -> None:
    wire = message(headers={"X-Note": text}).wire
    check(wire, ["X-Note"], "Hello", ["jane@x.example"])
    assert as_read(dict(headers(wire))["X-Note"]) == text


@pytest.mark.parametrize("text", CONTROLS)
@pytest.mark.parametrize("where", ["subject", "name", "header", "filename", "reply_to", "from"])
def test_a_control_character_is_refused_wherever_it_is(text: str, where: str) -> None:
    places: dict[str, dict[str, Any]] = {
        "subject": {"subject": text},
        "name": {"to": f'"{text}" <jane@x.example>'},
        "header": {"headers": {"X-Note": text}},
        "filename": {"attachments": [{"filename": text, "content": ""}]},
        "reply_to": {"reply_to": f"{text} <jane@x.example>"},
        "from": {"from": f"jane@x.example{text}"},
    }
    with pytest.raises(Unsendable):
        message(**places[where])


@pytest.mark.parametrize("text", [t for t in CORPUS if 0 < len(t) <= 60 and "\\" not in t])
def test_a_file_name_adds_no_header_to_its_part(text: str) -> None:
    wire = message(attachments=[{"filename": text, "content": base64.b64encode(b"%PDF").decode()}]).wire
    [part] = [p for p in parsed(wire).iter_parts() if p.get_content_disposition() == "attachment"]
    assert sorted(part.keys()) == ["Content-Disposition", "Content-Transfer-Encoding", "Content-Type"]
    assert part.get_content() == b"%PDF"
    if "=?" not in text:  # a reader that decodes these here breaks RFC 2231; ours in the tests does
        assert part.get_filename() == text.strip()  # the reader here trims; the bytes have %20


PIECES = ["=?utf-8?q?", "=?utf-8?b?", "?=", "=0D=0A", "Bcc:", "_evil@x", " ", "  ", "é", "日", "a" * 50, "=", "?", ",",
          ";", "<", ">", '"', "\\", "eA0K", ".", "\u202e", "\u200d", "=20", "_", ":", "@", "(", ")"]  # fmt: skip
CUTS = ["\r\n", "\n", "\r", "\x00", "\t", "\u2028", "\x85"]


def generated_text(dice: random.Random) -> str:
    """Mostly what encoded words are made of; now and then any character at all, or one that ends a line."""
    pieces = [dice.choice(PIECES) for _ in range(dice.randrange(15))]
    pieces += [chr(dice.randrange(0x20, 0x110000)) for _ in range(dice.randrange(4))]
    if dice.random() < 0.05:
        pieces.append(dice.choice(CUTS))
    dice.shuffle(pieces)
    return "".join(pieces)


@pytest.mark.parametrize("seed", range(4))
def test_generated_texts_add_no_header_and_change_no_recipient(seed: int) -> None:
    """With each of the four seeds 300 messages of three texts: 3,600 texts; with JOBSD_LONG=1 12,000."""
    dice, sent, count = random.Random(seed), 0, 1000 if os.environ.get("JOBSD_LONG") else 300
    for _ in range(count):
        subject, name, note = (generated_text(dice) for _ in range(3))
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        try:
            one = message(subject=subject, to=[f"{quoted} <jane@x.example>"], headers={"X-Note": note})
        except Unsendable:
            continue
        sent += 1
        check(one.wire, ["X-Note"], subject, ["jane@x.example"])
        assert as_read(dict(headers(one.wire))["X-Note"]) == note
        assert [r.wire for r in one.recipients] == ["jane@x.example"]
    assert sent > count / 2


def test_a_message_has_its_usual_headers_and_a_stable_id() -> None:
    first, again = (message(subject="x") for _ in range(2))
    fields = dict(headers(first.wire))
    assert fields["From"] == "Shop <no-reply@shop.example>"
    assert fields["Date"] == "Sun, 01 Mar 2026 12:00:00 +0000"
    assert fields["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<[0-9a-f-]{36}@shop\.example>", fields["Message-ID"])
    assert first.message_id == fields["Message-ID"] != again.message_id


def test_bcc_is_in_the_envelope_only() -> None:
    one = message(to=["a@x.example"], cc="b@x.example", bcc=["c@x.example", "a@X.example"])
    assert [r.wire for r in one.recipients] == ["a@x.example", "b@x.example", "c@x.example"]
    assert b"c@x.example" not in one.wire


def test_text_html_and_files_arrive_whole() -> None:
    text, html = "Zażółć\n.\n..dots\nFrom me\n" + "long " * 400 + "\n", "<p>日本語</p>\n" * 50
    file = bytes(range(256)) * 10
    attachment = {
        "filename": "fäktura.pdf",
        "content_type": "application/pdf",
        "content": base64.b64encode(file).decode(),
    }
    found = parsed(message(text=text, html=html, attachments=[attachment]).wire)
    assert found.get_content_type() == "multipart/mixed"
    plain, rich = found.get_body(["plain"]), found.get_body(["html"])
    assert plain is not None
    assert rich is not None
    assert plain.get_content().replace("\r\n", "\n") == text
    assert rich.get_content().replace("\r\n", "\n") == html
    [pdf] = found.iter_attachments()
    assert (pdf.get_filename(), pdf.get_content_type(), pdf.get_content()) == ("fäktura.pdf", "application/pdf", file)


@pytest.mark.parametrize(
    "text",
    [
        "a\rb\nc\r\nd",
        "\r\n.\r\nMAIL FROM:<evil@x>\r\n",
        "\n.\r\n",
        "\r.\r",
        "\0",
        "a\x85b",
        "日\r本\n語\r\nの",
        "a \r\n\t\n",
    ],
)
def test_a_body_cannot_end_itself(text: str) -> None:
    wire = message(text=text).wire
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire)
    assert b"\r\n.\r\n" not in wire
    meant = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n").encode()
    found = parsed(wire).get_payload(decode=True)
    assert found in (meant, meant + b"\r\n")  # what ends the last line may belong to the message


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"to": []}, "no recipient"),
        ({"to": "jane"}, "no mailbox"),
        ({"to": [f"u{n}@x.example" for n in range(501)]}, "501 recipients"),
        ({"text": None}, "nothing to say"),
        ({"headers": {"Bcc": "x"}}, "not for a row"),
        ({"headers": {"CONTENT-TYPE": "x"}}, "not for a row"),
        ({"headers": {"Resent-To": "x"}}, "not for a row"),
        ({"headers": {"DKIM-Signature": "x"}}, "not for a row"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "twice"),
        ({"headers": {"X A": "1"}}, "no header name"),
        ({"headers": {"X:A": "1"}}, "no header name"),
        ({"headers": {"": "1"}}, "no header name"),
        ({"headers": {f"X-{n}": "1" for n in range(65)}}, "65 headers"),
        ({"headers": {"X-A": "1" * 9000}}, "9000 characters"),
        ({"attachments": [{"filename": "../x", "content": ""}]}, "no file name"),
        ({"attachments": [{"filename": "x", "content": "", "content_type": "message/rfc822"}]}, "no content type"),
        ({"attachments": [{"filename": "x", "content": "", "content_type": "a/b\r\nX: y"}]}, "no content type"),
        ({"text": "\ud800"}, "surrogates"),
        ({"text": "x" * 3000, "html": "y" * 3000}, "at most 4096"),
    ],
)
def test_a_row_that_is_no_message_is_refused_with_a_reason(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unsendable, match=reason):
        message(EmailSettings(from_=SETTINGS.from_, max_size=size(4096)), **given)


def test_without_a_sender_there_is_no_message() -> None:
    with pytest.raises(Unsendable, match="no sender"):
        message(EmailSettings())


def test_args_that_nobody_knows_are_refused() -> None:
    for wrong in ({"too": "x"}, {"subject": None}, {"attachments": [{"filename": "x", "content": "%%%"}]}):
        with pytest.raises(msgspec.ValidationError):
            args(**wrong)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"subject": "x", "text": "y"}', type=EmailArgs)


GOOD = b"From: a@x\r\nSubject: s\r\nContent-Type: text/plain\r\nMIME-Version: 1.0\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Subject: s", b"Subject: s\r\nBcc: evil@x"),
        (b"Subject: s", b"Subject: s\r\nSubject: t"),
        (b"Subject: s\r\n", b""),
        (b"Subject: s", b"Subject: s\r\n\r\nearly body"),
        (b"Subject: s", b"Subject: s\nBcc: evil@x"),
        (b"Subject: s", b"Subject: s\rBcc: evil@x"),
        (b"Subject: s", b"Subject : s"),
        (b"Subject: s", b"Subject: s\r\n \r\n t"),
        (b"From: a@x", b"From: a@x, b@x"),
        (b"From: a@x", b"From: b@x"),
        (b"MIME-Version: 1.0", b"MIME-Version: 1.0\r\nX-Evil: 1"),
        (b"MIME-Version: 1.0", b"MIME-Version: 1.0\r\nMIME-Version: 1.0"),
        (b"From: a@x", b" folded\r\nFrom: a@x"),
        (b"body", b"--=_mixed_1\r\nContent-Type: text/plain\r\nX-Evil: 1\r\n\r\nbody"),
        (b"body", b"--=_mixed_1\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n\r\nbody"),
        (b"body", b"x" * 999),
        (b"\r\n\r\nbody\r\n", b""),
    ],
)
def test_bytes_that_say_something_else_are_refused(old: bytes, new: bytes) -> None:
    meant: tuple[list[str], dict[str, list[str]]] = (["From", "Subject"], {"From": ["a@x"]})
    verify(GOOD, *meant)
    with pytest.raises(Unsafe):
        verify(GOOD.replace(old, new), *meant)
