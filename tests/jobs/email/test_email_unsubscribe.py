"""Leaving a list: the headers of RFC 8058, and what the link does."""

from __future__ import annotations

import email
import email.policy
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import msgspec
import pytest

from jobs.context import Context, Tools
from jobs.email.relay import Mail
from jobs.email.settings import EmailSettings
from jobs.email.tokens import Subscription, Tokens
from jobs.email.unsubscribe import email_unsubscribe
from jobs.model import Dead, Done, Job, Outcome
from jobs.registry import KINDS
from jobs.templates import Templates
from jobs.values import Secret
from tests.jobs.email.mail import SENDER
from tests.jobs.email.peer import Peer
from tests.jobs.email.row import OnlyTools, Row, Silent, no_progress

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

SECRET = "a secret of our own"
URL = "https://shop.example/unsubscribe"
JANE = "jane@x.example"


def settings(relay: Any = None) -> EmailSettings:
    relays = {"main": relay} if relay else {}
    return EmailSettings(from_=SENDER, unsubscribe_url=URL, token_secrets=(Secret(SECRET),), relays=relays)


async def mailed(pool: Pool, *rows: dict[str, Any], org_id: str | None = "acme") -> tuple[list[Any], list[Outcome]]:
    """What arrived, and what the rows came to."""
    templates = Templates()
    async with Peer() as peer:
        out = Mail(settings(peer.settings()), OnlyTools(cast(Mail, None)).secrets)
        tools = OnlyTools(out, pool, templates)
        outcomes = [await Row(out, pool, org_id=org_id, tools=tools, **given).run() for given in rows]
        await out.close()
    await templates.close()
    return [email.message_from_bytes(r.wire, policy=email.policy.default) for r in peer.received], outcomes


async def clicked(pool: Pool, token: str, org_id: str | None = None) -> tuple[Outcome, Silent]:
    text = msgspec.json.encode({"token": token}).decode()
    job = Job(9, 1, "email_unsubscribe", "default", 2, 1, text, run_at=0.0, org_id=org_id)
    log = Silent()
    context = Context(
        job, cast(Tools, OnlyTools(Mail(settings(), OnlyTools(cast(Mail, None)).secrets))), log, no_progress
    )
    async with pool.acquire() as conn, conn.transaction():
        context.lend(cast(asyncpg.Connection, conn))
        outcome = await email_unsubscribe(KINDS["email_unsubscribe"].decode(text), context)
    return outcome, log


@pytest.mark.req("BJ-21")
async def test_one_click_leaves_this_list_of_this_organisation_and_no_other(pool: Pool) -> None:
    news, offers = {"to": "Jane <Jane@X.example>", "list": "news"}, {"to": JANE, "list": "offers"}
    [first], _ = await mailed(pool, news)
    assert first["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = first["List-Unsubscribe"]
    assert link.startswith(f"<{URL}?token=")
    token = link.removeprefix(f"<{URL}?token=").removesuffix(">")
    assert Tokens([SECRET]).subscription(token) == Subscription("acme", "news", JANE)
    for _ in range(2):
        outcome, _log = await clicked(pool, token)
        assert isinstance(outcome, Done)
        assert outcome.result == {"recipient": JANE, "list": "news", "org_id": "acme"}
    rows = await pool.fetch("select org_id, recipient, list, reason, expires_at from email_suppressions")
    assert [tuple(row) for row in rows] == [("acme", JANE, "news", "unsubscribed", None)]
    arrived, outcomes = await mailed(pool, news, offers, {"to": JANE})
    assert [type(outcome) for outcome in outcomes] == [Done, Done, Done]
    assert isinstance(outcomes[0], Done)
    assert outcomes[0].result == {"recipients": {"Jane@X.example": "unsubscribed"}}
    assert len(arrived) == 2
    assert (await mailed(pool, news, org_id="globex"))[0]


async def test_a_template_can_show_the_link(pool: Pool) -> None:
    await pool.execute(
        """insert into email_templates (name, subject, text, html)
           values ('n', 's', 'Leave: {{ unsubscribe_url }}', '<a href="{{ unsubscribe_url }}">leave</a>')"""
    )
    data = {"unsubscribe_url": "https://evil.example/"}
    [message], _ = await mailed(pool, {"template": "n", "list": "news", "data": data})
    link = message["List-Unsubscribe"].strip("<>")
    for kind in ("plain", "html"):
        assert link in message.get_body([kind]).get_content().replace("=\n", "")


async def test_mail_of_no_list_has_no_link_and_a_rows_own_stays(pool: Pool) -> None:
    own = {"List-Unsubscribe": "<https://own.example/leave>"}
    [plain, theirs], _ = await mailed(pool, {}, {"list": "news", "headers": own})
    assert plain["List-Unsubscribe"] is None
    assert theirs["List-Unsubscribe"] == own["List-Unsubscribe"]
    assert theirs["List-Unsubscribe-Post"] is None


async def test_a_link_is_one_persons_so_a_mail_of_a_list_has_one(pool: Pool) -> None:
    _, outcomes = await mailed(pool, {"list": "news", "to": [JANE, "bob@x.example"]}, {"list": "news", "bcc": JANE})
    assert [(type(o), getattr(o, "code", "")) for o in outcomes] == [(Dead, "unsendable")] * 2


async def test_the_longest_names_still_make_a_header(pool: Pool) -> None:
    long = f"{'j' * 64}@{'x' * 60}.{'y' * 60}.example"
    [message], _ = await mailed(pool, {"list": "n" * 64, "to": long}, org_id="o" * 128)
    assert Tokens([SECRET]).subscription(message["List-Unsubscribe"].partition("token=")[2].rstrip(">")) is not None


async def test_a_token_of_strangers_changes_nothing_and_says_so(pool: Pool) -> None:
    forged = Tokens(["a secret of strangers"]).unsubscribe(Subscription("acme", "news", JANE))
    real = Tokens([SECRET]).unsubscribe(Subscription("acme", "news", JANE))
    for token, org_id in ((forged, None), ("", None), (real, "globex")):
        outcome, log = await clicked(pool, token, org_id)
        assert isinstance(outcome, Done)
        assert outcome.result == {"ignored": "the token is none of ours"}
        assert [event for event, _ in log.events] == ["email_unsubscribe_ignored"]
    assert await pool.fetchval("select count(*) from email_suppressions") == 0


@pytest.mark.parametrize(
    "given",
    [
        {"unsubscribe_url": "http://shop.example/"},
        {"unsubscribe_url": "https://shop.example/?a=b"},
        {"unsubscribe_url": "https://shop.example/>\r\nBcc: x"},
        {"unsubscribe_url": URL, "token_secrets": ()},
        {"bounce_domain": "no domain"},
        {"bounce_domain": "shop.example", "token_secrets": ()},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unsubscribe_url|bounce_domain"):
        EmailSettings(**{"token_secrets": (Secret(SECRET),)} | given)
