"""Mails by a template: whose it is, what it may say, and what becomes of a row whose template is broken."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import random
import re
from collections.abc import AsyncIterator
from email.message import EmailMessage
from email.utils import getaddresses
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import pytest

from jobs.email.draft import filled_in
from jobs.email.message import EmailArgs, Message, Unsendable, compose
from jobs.email.template import STALE_S, Key, Template, open_templates
from jobs.model import Dead, Done, Snooze
from jobs.templates import BadTemplate, Templates, TemplatesAway
from tests.examples import LONG
from tests.jobs.email.mail import NOW, SETTINGS, args, mail
from tests.jobs.email.peer import Peer
from tests.jobs.email.row import Row
from tests.jobs.email.test_email_messages import CUTS, generated_text

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

USUAL = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
SPINS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
async def templates() -> AsyncIterator[Templates]:
    opened = Templates()
    yield opened
    await opened.close()


async def put(pool: Pool, org_id: str | None = None, name: str = "welcome", **columns: Any) -> None:
    row = {"subject": "Hello {{ name }}", "text": "Dear {{ name }}\n", "html": None, "sender": None, "reply_to": None}
    row |= columns
    await pool.execute(
        """insert into email_templates (org_id, name, subject, text, html, sender, reply_to)
           values ($1, $2, $3, $4, $5, $6, $7)""",
        org_id, name, *(row[column] for column in ("subject", "text", "html", "sender", "reply_to")),
    )  # fmt: skip


def read(wire: bytes) -> EmailMessage:
    found = email.message_from_bytes(wire, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def words(message: EmailMessage, kind: str) -> str:
    part = message.get_body([kind])
    assert part is not None
    text: str = part.get_content()
    return text.replace("\r\n", "\n")


@pytest.mark.req("OR-01", "BJ-21")
async def test_a_row_names_a_template_and_brings_its_data(pool: Pool, templates: Templates) -> None:
    await put(pool, html="<p>Dear {{ name }}</p>\n", sender="News <news@shop.example>", reply_to="help@shop.example")
    async with Peer() as peer:
        out = mail(peer.settings())
        row = Row(out, pool, templates=templates, template="welcome", data={"name": "Ann & <b>Bob</b>"})
        assert isinstance(await row.run(), Done)
        [received] = peer.received
        await out.close()
    found = read(received.wire)
    assert received.sender == "news@shop.example"
    assert (found["From"], found["Reply-To"]) == ("News <news@shop.example>", "help@shop.example")
    assert found["Subject"] == "Hello Ann & <b>Bob</b>"
    assert words(found, "plain") == "Dear Ann & <b>Bob</b>\n"
    assert words(found, "html") == "<p>Dear Ann &amp; &lt;b&gt;Bob&lt;/b&gt;</p>\n"


async def test_what_the_row_says_of_sender_and_answers_comes_before_the_template(
    pool: Pool, templates: Templates
) -> None:
    await put(pool, sender="news@shop.example", reply_to="help@shop.example")
    async with Peer() as peer:
        out = mail(peer.settings())
        given: dict[str, Any] = {"from": "ann@shop.example", "reply_to": "bob@shop.example"}
        row = Row(out, pool, templates=templates, template="welcome", data={"name": "x"}, **given)
        assert isinstance(await row.run(), Done)
        await out.close()
    found = read(peer.received[0].wire)
    assert (found["From"], found["Reply-To"]) == ("ann@shop.example", "bob@shop.example")


@pytest.mark.req("OR-01")
async def test_an_organisations_own_template_comes_before_the_one_for_all(pool: Pool, templates: Templates) -> None:
    await put(pool, subject="for all")
    await put(pool, "acme", subject="of acme")
    await put(pool, "globex", "other", subject="of globex")
    async with Peer() as peer:
        out = mail(peer.settings())
        for org_id in ("acme", "globex", None):
            row = Row(out, pool, org_id=org_id, templates=templates, template="welcome", data={"name": "x"})
            assert isinstance(await row.run(), Done)
        stranger = Row(out, pool, org_id="acme", templates=templates, template="other")
        outcome = await stranger.run()
        await out.close()
    assert [read(received.wire)["Subject"] for received in peer.received] == ["of acme", "for all", "for all"]
    assert isinstance(outcome, Dead)
    assert (outcome.code, outcome.reason) == (
        "template_unknown",
        "there is no template 'other' of organisation acme, nor for all",
    )


async def test_a_template_that_came_with_the_row_is_found_though_it_was_missed_before(
    pool: Pool, templates: Templates
) -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        row = Row(out, pool, templates=templates, template="welcome", data={"name": "x"})
        assert isinstance(await row.run(), Dead)
        await put(pool)
        assert isinstance(await row.run(), Done)
        await out.close()


async def test_a_change_counts_within_two_seconds_and_many_rows_are_one_question(pool: Pool) -> None:
    assert STALE_S == 2.0
    await put(pool)
    asked = 0

    class Counting:
        async def fetch(self, *given: Any) -> list[asyncpg.Record]:
            nonlocal asked
            asked += 1
            return await pool.fetch(*given)

    loads = open_templates(Counting())  # type: ignore[arg-type]
    found = await asyncio.gather(*(loads.get(Key(f"o{n % 50}", "welcome")) for n in range(100)))
    assert {template.name for template in found if template} == {"welcome"}
    assert asked == 1
    assert await loads.get(Key("o7", "welcome")) is not None
    assert asked == 1
    loads.close()


@pytest.mark.parametrize(
    ("columns", "data", "code", "reason"),
    [
        ({"text": "a\n{% if %}"}, {}, "template_error", "template 'welcome' for all: text: line 2: "),
        ({"html": "{{ nobody }}"}, {}, "template_error", "html: line 1: 'nobody' is undefined"),
        ({"subject": "{{ 1 / 0 }}"}, {}, "template_error", "subject: line 1: division by zero"),
        ({"text": SPINS}, {}, "template_timeout", "text: the template takes more than 30 ms"),
        ({"subject": SPINS}, {}, "template_timeout", "subject: "),
        ({"html": "{{ 'x' * 70000 }}"}, {}, "template_too_large", "html: "),
        ({"subject": "{{ 'x' * 3000 }}"}, {}, "template_too_large", "subject: has 3000 characters"),
        ({}, {"name": "x" * 1_100_000}, "template_too_large", "data is more than 1048576 bytes"),
        ({"subject": "{{ name }}"}, {"name": "a\0b"}, "unsendable", "U+0000"),
    ],
)
async def test_a_broken_template_is_a_dead_letter_with_a_reason_for_its_author(
    columns: dict[str, Any], data: dict[str, Any], code: str, reason: str, templates: Templates
) -> None:
    row = {"subject": "s", "text": "t", "html": None} | columns
    template = Template(None, "welcome", sender=None, reply_to=None, **row)
    wanted = args(subject=None, text=None, template="welcome", data=data)
    with pytest.raises((BadTemplate, Unsendable)) as refused:
        await _composed(wanted, template, templates)
    assert getattr(refused.value, "code", "unsendable") == code
    assert reason in str(refused.value)


async def _composed(wanted: EmailArgs, template: Template, templates: Templates) -> Message:
    return compose(await filled_in(wanted, template, {}, templates, 65536), SETTINGS, identity="x", now=NOW)


async def test_three_parts_have_the_time_of_one(templates: Templates) -> None:
    """Each spins for less than the limit, together they do not."""
    spins = "{% for i in range(50000) %}{% endfor %}"
    with pytest.raises(BadTemplate) as refused:
        await templates.render_all([(spins, False)] * 100, b"{}")
    assert (refused.value.code, refused.value.part > 0) == ("template_timeout", True)


async def test_a_row_with_a_broken_template_dies_and_nothing_is_sent(pool: Pool, templates: Templates) -> None:
    await put(pool, text="{{ nobody }}")
    async with Peer() as peer:
        row = Row(mail(peer.settings()), pool, templates=templates, template="welcome", data={"name": "x"})
        outcome = await row.run()
        assert isinstance(outcome, Dead)
        assert (outcome.code, row.records, peer.connections) == ("template_error", [], 0)
        dry = await row.run(dry_run=True)
        assert isinstance(dry, Dead)


async def test_what_is_our_own_trouble_costs_no_attempt(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(pool)
    async with Peer() as peer:
        out = mail(peer.settings())
        away = Templates()
        monkeypatch.setattr(away, "_ask", _is_away)
        row = Row(out, pool, templates=away, template="welcome", data={"name": "x"})
        outcome = await row.run()
        assert isinstance(outcome, Snooze)
        assert outcome.code == "templates_away"
        await pool.execute("drop table email_templates")
        outcome = await Row(out, pool, templates=away, template="welcome").run()
        assert isinstance(outcome, Snooze)
        assert (outcome.code, peer.connections) == ("database_away", 0)


async def _is_away(question: bytes) -> None:
    raise TemplatesAway


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"text": "x"}, "no `subject`, and no `template`"),
        ({"subject": "s", "text": "t", "data": {"a": 1}}, "`data` is for a `template`"),
        ({"template": "t", "subject": "s"}, "gives either it or them"),
        ({"template": "t", "html": "x"}, "gives either it or them"),
        ({"template": "t", "data": []}, "Expected `object`"),
    ],
)
def test_a_row_says_it_all_itself_or_names_a_template(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(reason)):
        msgspec.convert({"to": "jane@x.example"} | given, EmailArgs)


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"subject": "a\nBcc: x@y.example"}, "email_templates_subject_is_one_line"),
        ({"subject": ""}, "email_templates_subject_is_one_line"),
        ({"text": None}, "email_templates_have_text_or_html"),
        ({"text": "x" * 65537}, "email_templates_at_most_64_kib"),
        ({"sender": "a@b.example\r\nBcc: x@y.example"}, "email_templates_sender_is_a_mailbox"),
        ({"reply_to": "nobody"}, "email_templates_reply_to_is_a_mailbox"),
        ({"name": "a b"}, "email_templates_name_has_known_characters"),
    ],
)
async def test_what_can_be_no_template_is_refused_where_it_is_written(
    columns: dict[str, Any], constraint: str, pool: Pool
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await put(pool, **columns)
    assert refused.value.constraint_name == constraint


async def test_a_line_end_in_data_makes_no_second_line_of_a_subject(templates: Templates) -> None:
    template = Template(None, "t", "News: {{ title }}", "x", None, None, None)
    wanted = args(subject=None, text=None, template="t", data={"title": "one\r\nBcc: evil@x.example\n\ttwo"})
    filled = await filled_in(wanted, template, {}, templates, SETTINGS.max_size)
    assert filled.subject == "News: one Bcc: evil@x.example two"


@pytest.mark.req("BJ-21")
async def test_ten_thousand_generated_texts_add_no_header_and_change_no_recipient(templates: Templates) -> None:
    """Three in each message, in its subject, text and HTML; some 5 s, since ten thousand is what is promised."""
    dice, sent = random.Random(23), 0
    template = Template(None, "t", "{{ a }} of {{ b }}", "{{ a }}\n{{ c }}\n", "<p>{{ b }}</p>", None, None)

    async def one() -> bool:
        given = {name: generated_text(dice) + dice.choice(["", *CUTS]) for name in "abc"}
        if any("\ud800" <= char <= "\udfff" or char == "\0" for text in given.values() for char in text):
            return False  # no JSON of Postgres has them
        wanted = EmailArgs(to="jane@x.example", template="t", data=json.loads(json.dumps(given)))
        filled = await filled_in(wanted, template, {}, templates, SETTINGS.max_size)
        try:
            made = compose(filled, SETTINGS, identity="x", now=NOW)
        except Unsendable:
            return False
        block = made.wire.split(b"\r\n\r\n", 1)[0].decode()
        lines = [line for line in block.split("\r\n") if line[0] not in " \t"]
        assert [line.partition(":")[0] for line in lines] == [*USUAL, "Content-Type", "MIME-Version"]
        assert [r.wire for r in made.recipients] == ["jane@x.example"]
        assert [a for _, a in getaddresses([line[3:] for line in lines if line.startswith("To:")])] == [
            "jane@x.example"
        ]
        return True

    while 3 * sent < (10_000 if LONG else 3_000):
        sent += sum(await asyncio.gather(*(one() for _ in range(500))))
