"""Who is not written to: how one gets there, how one comes back, and what becomes of rows meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import pytest

from jobs.model import Dead, Done, Retry, Snooze
from sql import load
from tests.jobs.email.mail import mail
from tests.jobs.email.peer import Peer
from tests.jobs.email.row import Row

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

JANE, BOB = "jane@x.example", "bob@x.example"
NO_SUCH_USER = "550 5.1.1 no such user"


async def suppress(pool: Pool, recipient: str = JANE, **columns: Any) -> None:
    given = {"recipient": recipient, "reason": "manual"} | columns
    names = ", ".join(given)
    places = ", ".join(f"${n}" for n in range(1, len(given) + 1))
    await pool.execute(f"insert into email_suppressions ({names}) values ({places})", *given.values())


async def known(pool: Pool) -> list[tuple[Any, ...]]:
    """Recipient, reason, how many bounces, and hours until it ends (None: until it is lifted)."""
    rows = await pool.fetch(
        """select recipient, reason, cardinality(bounces) as n,
                  round(extract(epoch from expires_at - now()) / 3600)::int as h
           from email_suppressions order by recipient, list nulls first"""
    )
    return [tuple(row) for row in rows]


async def said(pool: Pool, *rows: Mapping[str, Any]) -> None:
    await pool.execute(load("ledgers.sql")["email_suppressions"], msgspec.json.encode(rows).decode())


async def logged(pool: Pool) -> list[tuple[str, str, str]]:
    rows = await pool.fetch("select recipient, outcome, code from email_deliveries order by ended_at, recipient")
    return [tuple(row) for row in rows]


@pytest.mark.req("BJ-21")
async def test_a_hard_bounce_suppresses_for_a_day_and_the_next_row_costs_no_hand_over(pool: Pool) -> None:
    async with Peer({"RCPT": [NO_SUCH_USER]}) as peer:
        out = mail(peer.settings())
        assert isinstance(await Row(out, pool).run(), Dead)
        assert await known(pool) == [(JANE, "bounce", 1, 24)]
        asked = len(peer.commands)
        outcome = await Row(out, pool).run()
        assert isinstance(outcome, Dead)
        assert (outcome.code, outcome.reason) == ("suppressed", "not written to: he is not written to: bounce")
        assert len(peer.commands) == asked
        await out.close()
    assert await logged(pool) == [(JANE, "hard", "bad_recipient"), (JANE, "suppressed", "suppressed")]


async def test_the_third_bounce_in_thirty_days_holds_until_it_is_lifted(pool: Pool) -> None:
    bounced = {"recipient": JANE, "said": "bounced", "detail": "no such user"}
    for n, hours in ((1, 24), (2, 24), (3, None), (3, None)):
        await said(pool, bounced)
        assert await known(pool) == [(JANE, "bounce", n, hours)]
        await pool.execute(
            "update email_suppressions set bounces = array(select b - interval '1 day' from unnest(bounces) b)"
        )


async def test_bounces_of_long_ago_no_longer_count(pool: Pool) -> None:
    now = datetime.now(UTC)
    old = [now - timedelta(days=40), now - timedelta(days=31)]
    await suppress(pool, reason="bounce", bounces=old, expires_at=now - timedelta(days=30))
    await said(pool, {"recipient": JANE, "said": "bounced"})
    assert await known(pool) == [(JANE, "bounce", 1, 24)]


@pytest.mark.parametrize(
    ("reply", "rows"),
    [
        ("552 5.2.2 mailbox full", []),
        ("550 no such user here", [(JANE, "bounce", 1, 24)]),
        ("554 5.7.1 spam", []),
        ("550 5.7.1 no such user in our good books", []),
        ("552 5.3.4 too large", []),
        ("452 4.2.2 mailbox full", []),
        ("451 4.7.1 greylisted", []),
    ],
)
async def test_what_is_said_of_the_message_says_nothing_of_the_recipient(
    reply: str, rows: list[tuple[Any, ...]], pool: Pool
) -> None:
    async with Peer({"RCPT": [reply]}) as peer:
        out = mail(peer.settings())
        await Row(out, pool).run()
        await out.close()
    assert await known(pool) == rows


async def test_a_full_mailbox_counts_when_nobody_tries_again(pool: Pool) -> None:
    full = {"recipient": JANE, "said": "full", "is_final": False}
    await said(pool, full | {"retry_in_s": 60})
    assert await known(pool) == []
    await said(pool, full | {"retry_in_s": None})
    assert await known(pool) == [(JANE, "mailbox_full", 0, 24)]


@pytest.mark.parametrize("security", [True, False])
async def test_mail_that_is_delivered_takes_a_bounce_back_and_nothing_else(security: bool, pool: Pool) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    expires = None if security else past
    await suppress(pool, reason="bounce", bounces=[past], expires_at=expires)
    await suppress(pool, BOB, reason="manual", expires_at=expires)
    async with Peer() as peer:
        out = mail(peer.settings())
        assert isinstance(await Row(out, pool, to=[JANE, BOB], security=security).run(), Done)
        await out.close()
    assert [row[:2] for row in await known(pool)] == [(BOB, "manual")]


async def test_a_bounce_leaves_alone_what_people_said_while_it_holds(pool: Pool) -> None:
    await suppress(pool, reason="complaint")
    await said(pool, {"recipient": JANE, "said": "bounced"}, {"recipient": BOB, "said": "bounced"})
    assert [row[:2] for row in await known(pool)] == [(BOB, "bounce"), (JANE, "complaint")]


async def test_others_get_the_mail_and_the_row_is_done(pool: Pool) -> None:
    await suppress(pool, "JANE@X.example".lower())
    async with Peer({"RCPT TO:<bob@x.example>": ["451 later"]}) as peer:
        out = mail(peer.settings())
        row = Row(out, pool, to=["Jane@X.example", BOB])
        assert isinstance(await row.run(), Retry)
        outcome = await row.run()
        await out.close()
    assert isinstance(outcome, Done)
    assert outcome.result == {"recipients": {"Jane@X.example": "suppressed", BOB: "delivered"}}
    assert [received.recipients for received in peer.received] == [(BOB,)]
    assert [row[0] for row in await logged(pool)].count("Jane@X.example") == 1


@pytest.mark.parametrize(
    ("columns", "given", "goes"),
    [
        ({"org_id": "acme"}, {"org_id": "acme"}, False),
        ({"org_id": "acme"}, {"org_id": "globex"}, True),
        ({"org_id": "acme"}, {}, True),
        ({}, {"org_id": "acme"}, True),
        ({"list": "news"}, {"list": "news"}, False),
        ({"list": "news"}, {"list": "offers"}, True),
        ({"list": "news"}, {}, True),
        ({}, {"list": "news"}, False),
        ({}, {"security": True}, True),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, {}, True),
    ],
)
async def test_it_is_of_an_organisation_and_of_a_list_or_of_all(
    columns: dict[str, Any], given: dict[str, Any], goes: bool, pool: Pool
) -> None:
    await suppress(pool, **columns)
    async with Peer() as peer:
        out = mail(peer.settings())
        outcome = await Row(out, pool, **given).run()
        await out.close()
    assert isinstance(outcome, Done if goes else Dead)
    assert len(peer.received) == goes


async def test_lifted_by_hand_the_dead_letter_goes_when_it_is_retried(pool: Pool) -> None:
    await suppress(pool)
    async with Peer() as peer:
        out = mail(peer.settings())
        row = Row(out, pool)
        assert isinstance(await row.run(), Dead)
        await pool.execute("delete from email_suppressions")
        assert isinstance(await row.run(), Done)
        await out.close()


async def test_when_it_cannot_be_looked_up_nothing_is_sent_and_nothing_charged(pool: Pool) -> None:
    await pool.execute("drop table email_suppressions")
    async with Peer() as peer:
        outcome = await Row(mail(peer.settings()), pool).run()
        assert isinstance(outcome, Snooze)
        assert (outcome.code, peer.connections) == ("database_away", 0)


async def test_what_the_hand_over_raises_is_charged_and_no_failed_lookup(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message may be with the relay already: it must not come again and again for nothing."""

    class Fault(OSError):
        pass

    async def send(*_args: Any) -> None:
        raise Fault

    out = mail(Peer.at(1))
    monkeypatch.setattr(out, "send", send)
    with pytest.raises(Fault):
        await Row(out, pool).run()


async def test_a_thousand_verdicts_at_once_from_two_daemons_do_not_deadlock(pool: Pool) -> None:
    def rows(order: Sequence[int]) -> list[dict[str, Any]]:
        return [{"recipient": f"r{n}@x.example", "said": ("bounced", "delivered")[n % 2]} for n in order]

    await asyncio.gather(said(pool, *rows(range(500))), said(pool, *rows(range(499, -1, -1))))
    assert {row[2] for row in await known(pool)} == {2}
    assert len(await known(pool)) == 250
