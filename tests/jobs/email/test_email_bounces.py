"""Mail that comes back: whose it is, by a signature; what it says; and that it is noted once."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import msgspec
import pytest

from jobs.context import Context, Tools
from jobs.email.bounce import EmailBounceArgs, email_bounce
from jobs.email.report import NoReport, read
from jobs.email.settings import EmailSettings
from jobs.email.tokens import Subscription, Tokens
from jobs.model import Dead, Done, Job, Outcome, Retry
from jobs.registry import KINDS
from jobs.secrets import Secrets
from jobs.values import Secret
from tests.jobs.email.mail import SENDER, SETTINGS
from tests.jobs.email.peer import Peer
from tests.jobs.email.row import OnlyTools, Row, Silent, no_progress

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

from jobs.email.relay import Mail

OLD, NEW = "an old secret of ours", "a new secret of ours"
SECRETS = Secrets(env={"JOBSD_SECRET_TOKENS": NEW, "JOBSD_SECRET_BEFORE": OLD})
JANE, BOB = "jane@x.example", "bob@x.example"

REPORT = """\
From: MAILER-DAEMON@mx.example\r
To: {to}\r
Subject: Undelivered Mail Returned to Sender\r
Auto-Submitted: auto-replied\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r
\r
This is a MIME-encapsulated message.\r
--b\r
Content-Type: text/plain\r
\r
I am sorry to inform you.\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; mx.example\r
Arrival-Date: Sun, 1 Mar 2026 12:00:00 +0000\r
\r
{groups}\r
--b\r
Content-Type: message/rfc822\r
\r
From: shop@shop.example\r
To: somebody@else.example\r
Status: 5.1.1\r
\r
Hello\r
--b--\r
"""


def group(recipient: str, status: str = "5.1.1", said: str = "550 5.1.1 no such user", action: str = "failed") -> str:
    return (
        f"Final-Recipient: rfc822; {recipient}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; {said}\r\n"
    )


def settings(relay: Any = None, *secrets: str) -> EmailSettings:
    return EmailSettings(
        from_=SENDER,
        bounce_domain="bounces.shop.example",
        token_secrets=tuple(map(Secret, secrets or ("secret://tokens", "secret://before"))),
        relays={"main": relay} if relay else {},
    )


async def sent(pool: Pool, *to: str, org_id: str | None = None, job_id: int = 7) -> str:
    """A mail that a relay took; its envelope's sender."""
    async with Peer() as peer:
        out = Mail(settings(peer.settings()), SECRETS)
        tools = OnlyTools(out, pool)
        tools.secrets = SECRETS
        row = Row(out, pool, org_id=org_id, tools=tools, to=list(to or (JANE,)))
        row.id = job_id
        assert isinstance(await row.run(), Done)
        await out.close()
        return peer.received[0].sender


async def come_back(
    pool: Pool, *, org_id: str | None = None, attempt: int = 1, known: EmailSettings | None = None, **args: Any
) -> tuple[Outcome, Silent]:
    """A row of kind email_bounce, as the daemon runs it: in a transaction that is committed with its end."""
    if "message" in args:
        args["message"] = base64.b64encode(args["message"].encode()).decode()
    text = msgspec.json.encode(args).decode()
    job = Job(9, 1, "email_bounce", "default", 2, attempt, text, run_at=0.0, org_id=org_id)
    log = Silent()
    tools = OnlyTools(Mail(known or settings(), SECRETS), pool)
    tools.secrets = SECRETS
    context = Context(job, cast(Tools, tools), log, no_progress)
    async with pool.acquire() as conn, conn.transaction():
        context.lend(cast(asyncpg.Connection, conn))
        outcome = await email_bounce(KINDS["email_bounce"].decode(text), context)
    return outcome, log


async def suppressed(pool: Pool) -> list[tuple[Any, ...]]:
    rows = await pool.fetch("select org_id, recipient, reason, cardinality(bounces) from email_suppressions order by 2")
    return [tuple(row) for row in rows]


@pytest.mark.req("BJ-21")
async def test_the_envelope_is_ours_the_header_is_not_changed_and_a_bounce_is_noted_once(pool: Pool) -> None:
    sender = await sent(pool, org_id="acme")
    assert sender == f"{Tokens([NEW]).bounce_name(7)}@bounces.shop.example"
    report = REPORT.format(to=sender.upper(), groups=group(JANE))
    outcome, _ = await come_back(pool, message=report)
    assert isinstance(outcome, Done)
    assert outcome.result == {"job": 7, "recipients": {JANE: "bad_recipient"}}
    row = await pool.fetchrow(
        "select outcome, code, enhanced, reply, bounced_at is not null as at from email_deliveries"
    )
    assert tuple(row or ()) == ("bounced", "bad_recipient", "5.1.1", "550 5.1.1 no such user", True)
    assert await suppressed(pool) == [("acme", JANE, "bounce", 1)]
    again, _ = await come_back(pool, message=report)
    assert isinstance(again, Done)
    assert again.result["recipients"] == {JANE: "known before"}
    assert await suppressed(pool) == [("acme", JANE, "bounce", 1)]


async def test_twenty_at_once_are_one(pool: Pool) -> None:
    sender = await sent(pool)
    told: dict[str, Any] = {"to": sender, "recipients": [{"recipient": JANE, "status": "5.1.1"}]}
    await asyncio.gather(*(come_back(pool, **told) for _ in range(20)))
    assert await suppressed(pool) == [(None, JANE, "bounce", 1)]


@pytest.mark.parametrize(
    ("status", "said", "action", "code", "reason"),
    [
        ("5.1.1", "550 5.1.1 no such user", "failed", "bad_recipient", "bounce"),
        ("5.0.0", "550 no such user", "failed", "bad_recipient", "bounce"),
        ("5.2.2", "552 5.2.2 mailbox full", "failed", "mailbox_full", "mailbox_full"),
        ("4.2.2", "452 4.2.2 mailbox full", "failed", "mailbox_full", "mailbox_full"),
        ("5.7.1", "550 5.7.1 this is spam", "failed", "policy", None),
        ("4.4.7", "delivery time expired", "failed", "smtp_450", None),
        ("garbage", "no", "failed", "smtp_550", None),
        ("4.4.1", "no answer yet", "delayed", "delayed", None),
        ("2.0.0", "250 ok", "delivered", "delivered", None),
    ],
)
async def test_what_a_status_means_is_what_a_relays_reply_means(
    status: str, said: str, action: str, code: str, reason: str | None, pool: Pool
) -> None:
    sender = await sent(pool)
    message = REPORT.format(to=sender, groups=group(JANE, status, said, action))
    outcome, _ = await come_back(pool, message=message)
    assert isinstance(outcome, Done)
    assert outcome.result["recipients"] == {JANE: code}
    assert [row[2] for row in await suppressed(pool)] == ([reason] if reason else [])
    came_back = await pool.fetchval("select outcome = 'bounced' from email_deliveries")
    assert came_back is (action == "failed")


async def test_each_recipient_has_his_own_and_strangers_have_none(pool: Pool) -> None:
    sender = await sent(pool, JANE, BOB)
    groups = group(BOB.upper()) + "\r\n" + group("else@where.example")
    outcome, _ = await come_back(pool, message=REPORT.format(to=sender, groups=groups))
    assert isinstance(outcome, Done)
    assert outcome.result["recipients"] == {BOB: "bad_recipient", "else@where.example": "no recipient of this mail"}
    assert [row[1] for row in await suppressed(pool)] == [BOB]


async def test_who_has_it_and_bounced_is_not_tried_again_with_the_others(pool: Pool) -> None:
    async with Peer({"RCPT TO:<bob@x.example>": ["451 later"]}) as peer:
        out = Mail(settings(peer.settings()), SECRETS)
        tools = OnlyTools(out, pool)
        tools.secrets = SECRETS
        row = Row(out, pool, tools=tools, to=[JANE, BOB])
        assert isinstance(await row.run(), Retry)
        await come_back(pool, to=peer.received[0].sender, recipients=[{"recipient": JANE, "status": "5.1.1"}])
        assert isinstance(await row.run(), Dead)
        assert [received.recipients for received in peer.received] == [(JANE,), (BOB,)]
        await out.close()


@pytest.mark.parametrize(
    "to",
    [
        "bounce+7-00000000000000000000@bounces.shop.example",
        f"{Tokens(['a secret of strangers']).bounce_name(7)}@bounces.shop.example",
        f"{Tokens([NEW]).bounce_name(8).replace('+8-', '+7-')}@bounces.shop.example",
        "jane@x.example",
        "",
    ],
)
async def test_what_is_forged_changes_nothing_and_says_so(to: str, pool: Pool) -> None:
    await sent(pool)
    outcome, log = await come_back(pool, message=REPORT.format(to=to, groups=group(JANE)))
    assert isinstance(outcome, Done)
    assert outcome.result == {"ignored": "it came to no address that we have signed"}
    assert [event for event, _ in log.events] == ["email_bounce_ignored"]
    assert await suppressed(pool) == []
    assert await pool.fetchval("select outcome from email_deliveries") == "delivered"


async def test_an_old_secret_is_believed_until_it_is_taken_away(pool: Pool) -> None:
    await sent(pool)
    told: dict[str, Any] = {
        "to": f"{Tokens([OLD]).bounce_name(7)}@bounces.shop.example",
        "recipients": [{"recipient": JANE, "status": "5.1.1"}],
    }
    outcome, _ = await come_back(pool, known=settings(None, "secret://tokens"), **told)
    assert isinstance(outcome, Done)
    assert "ignored" in outcome.result
    outcome, _ = await come_back(pool, **told)
    assert isinstance(outcome, Done)
    assert outcome.result["recipients"] == {JANE: "bad_recipient"}


@pytest.mark.parametrize(
    "message",
    [
        "",
        "\0\xff",
        "From: x\r\n\r\nI am out of office.",
        "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nno\r\n--b--\r\n",
        "Content-Type: multipart/report\r\n\r\nno boundary",
        "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\r\n--b",
        "Content-Type: multipart/report; boundary=b\r\n\r\n"
        + "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 50,
    ],
)
async def test_what_is_no_report_changes_nothing_and_says_so(message: str, pool: Pool) -> None:
    sender = await sent(pool)
    with pytest.raises(NoReport):
        read(message.encode())
    outcome, log = await come_back(pool, to=sender, message=message)
    assert isinstance(outcome, Done)
    assert outcome.result["ignored"].startswith("it ")
    assert [event for event, _ in log.events] == ["email_bounce_ignored"]
    assert await suppressed(pool) == []


def test_a_report_that_is_cut_off_is_read_as_far_as_it_goes() -> None:
    whole = REPORT.format(to="x", groups=group(JANE)).encode()
    cut = whole[: whole.index(b"message/rfc822") + 60]
    assert read(cut) == read(whole)
    for end in range(0, len(whole), 7):
        try:
            read(whole[:end])
        except NoReport:
            continue


async def test_a_bounce_that_outruns_the_log_waits_for_it_and_one_that_is_too_late_is_let_go(pool: Pool) -> None:
    told: dict[str, Any] = {
        "to": f"{Tokens([NEW]).bounce_name(7)}@x",
        "recipients": [{"recipient": JANE, "status": "5.1.1"}],
    }
    outcome, _ = await come_back(pool, **told)
    assert isinstance(outcome, Retry)
    assert outcome.code == "delivery_unknown"
    outcome, _ = await come_back(pool, attempt=4, **told)
    assert isinstance(outcome, Done)
    assert outcome.result == {"ignored": "the log has no mail of job 7"}


async def test_an_organisations_row_tells_of_its_own_mail_only(pool: Pool) -> None:
    sender = await sent(pool, org_id="acme")
    told: dict[str, Any] = {"to": sender, "recipients": [{"recipient": JANE, "status": "5.1.1"}]}
    outcome, _ = await come_back(pool, org_id="globex", **told)
    assert isinstance(outcome, Done)
    assert outcome.result == {"ignored": "it is about another organisation's mail"}
    outcome, _ = await come_back(pool, org_id="acme", **told)
    assert isinstance(outcome, Done)
    assert await suppressed(pool) == [("acme", JANE, "bounce", 1)]


async def test_a_secret_that_is_not_here_is_for_the_operator(pool: Pool) -> None:
    told: dict[str, Any] = {"to": "bounce+7-0@x", "recipients": [{"recipient": JANE}]}
    outcome, _ = await come_back(pool, known=settings(None, "secret://nowhere"), **told)
    assert isinstance(outcome, Retry)
    assert outcome.code == "secret_missing"
    outcome, _ = await come_back(pool, known=settings(None, "short"), **told)
    assert isinstance(outcome, Retry)
    assert outcome.code == "secret_invalid"
    outcome, _ = await come_back(pool, known=SETTINGS, **told)
    assert isinstance(outcome, Done)
    assert "no secret" in outcome.result["ignored"]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"to": "x"}, {"recipients": [{"recipient": "a"}]}, {"message": "eA==", "recipients": [{"recipient": "a"}]}],
)
def test_a_bounce_is_a_message_or_what_somebody_read_in_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, EmailBounceArgs)


def test_a_name_for_bounces_is_no_link_and_fits_an_address() -> None:
    tokens = Tokens([NEW])
    assert len(tokens.bounce_name(2**63 - 1)) <= 64
    assert tokens.job_of(tokens.bounce_name(12)) == 12
    subscription = Subscription("acme", "news", JANE)
    token = tokens.unsubscribe(subscription)
    assert tokens.subscription(token) == subscription
    assert Tokens([OLD]).subscription(token) is None
    for spoiled in (token[:-1], token[1:], "A" + token, token + "!", "é", "", "A" * 5000):
        assert tokens.subscription(spoiled) is None
