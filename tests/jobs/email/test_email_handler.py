"""The kind as the daemon runs it: a row's args in, an outcome and rows for the log out."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from jobs.email.past import Past, delivered
from jobs.model import Dead, Done, Retry, Snooze
from jobs.registry import KINDS
from sql import load
from tests.jobs.email.mail import Clock, mail
from tests.jobs.email.peer import DROP, HANG, Peer
from tests.jobs.email.row import Row

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

COLUMNS = ["recipient", "relay", "message_id", "outcome", "code", "smtp_code", "enhanced", "reply", "phase",
           "duration_ms", "possible_duplicate"]  # fmt: skip


@pytest.mark.req("BJ-21")
async def test_a_row_becomes_a_mail_and_a_line_in_the_log(pool: Pool) -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        row = Row(out, pool, html="<p>Hello</p>", cc=["Bob <bob@x.example>"], headers={"X-Shop": "1"})
        assert isinstance(await row.run(), Done)
        assert [sorted(r) for r in row.records] == [sorted(COLUMNS)] * 2
        [received] = peer.received
        assert received.recipients == ("jane@x.example", "bob@x.example")
        first = row.records[0]
        assert first["message_id"].encode() in received.wire
        assert {k: first[k] for k in COLUMNS if k not in ("message_id", "duration_ms")} == {
            "recipient": "jane@x.example",
            "relay": "main",
            "outcome": "delivered",
            "code": "delivered",
            "smtp_code": 250,
            "enhanced": "2.0.0",
            "reply": "2.0.0 taken",
            "phase": "final",
            "possible_duplicate": False,
        }
        await out.close()


async def test_each_attempt_sends_the_same_message_id_and_another_row_another(pool: Pool) -> None:
    async with Peer({"DOT": ["451 later"]}) as peer:
        out = mail(peer.settings())
        row, other = Row(out, pool), Row(out, pool, text="Something else.\n")
        assert isinstance(await row.run(), Retry)
        first = row.records[0]["message_id"]
        assert isinstance(await row.run(), Done)
        assert row.records[0]["message_id"] == first
        await other.run()
        assert other.records[0]["message_id"] != first
        await out.close()


@pytest.mark.parametrize(
    ("args", "code"),
    [({"to": "nobody"}, "unsendable"), ({"text": None}, "unsendable"), ({"headers": {"Bcc": "evil@x"}}, "unsendable")],
)
async def test_a_row_that_is_no_message_is_dead_at_once(args: dict[str, Any], code: str) -> None:
    async with Peer() as peer:
        row = Row(mail(peer.settings()), **args)
        outcome = await row.run()
        assert isinstance(outcome, Dead)
        assert (outcome.code, row.records, peer.connections) == (code, [], 0)


async def test_a_row_for_a_relay_that_nobody_configured_is_tried_again() -> None:
    async with Peer() as peer:
        outcome = await Row(mail(peer.settings()), relay="other").run()
        assert isinstance(outcome, Retry)
        assert outcome.code == "relay_unknown"
        assert "'other'" in outcome.reason


async def test_the_lane_is_the_relay() -> None:
    lane, decode = KINDS["email"].lane, KINDS["email"].decode
    assert lane is not None
    assert lane(decode('{"to": "a@x", "subject": "s", "relay": "bulk"}')) == "bulk"
    assert lane(decode('{"to": "a@x", "subject": "s"}')) == "main"


async def test_a_dry_run_builds_and_checks_and_sends_nothing() -> None:
    async with Peer() as peer:
        row = Row(mail(peer.settings()), to=["a@x.example", "b@x.example"])
        outcome = await row.run(dry_run=True)
        assert isinstance(outcome, Done)
        assert outcome.result["recipients"] == ["a@x.example", "b@x.example"]
        assert (row.records, peer.connections) == ([], 0)
        assert isinstance(await Row(mail(peer.settings()), to="nobody").run(dry_run=True), Dead)


async def test_a_cancelled_row_ends_as_cancelled() -> None:
    async with Peer({"DATA": [HANG]}) as peer:
        out = mail(peer.settings())
        running = asyncio.ensure_future(Row(out).run())
        await peer.until(lambda: peer.count("DATA") == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await out.close()


async def test_a_row_stopped_after_its_dot_has_had_its_attempt(pool: Pool) -> None:
    """Handed back as if nothing had happened, it would come twice and nobody would know."""
    async with Peer({"DOT": [HANG]}) as peer:
        out = mail(peer.settings(recipients_per_message=1))
        row = Row(out, pool, to=["a@x.example", "b@x.example"])
        running = asyncio.ensure_future(row.run())
        await peer.until(lambda: peer.count(".") == 1)
        running.cancel()
        outcome = await running
        assert isinstance(outcome, Retry)
        assert outcome.detail is not None
        assert outcome.detail["possible_duplicate"] == {"a@x.example": "stopped_after_dot"}
        assert [record["recipient"] for record in row.records] == ["a@x.example"]
        assert peer.count("MAIL") == 1  # to b nothing more is begun
        first = row.records[0]["message_id"]
        assert isinstance(await row.run(), Done)
        told = {r["recipient"]: (r["possible_duplicate"], r["message_id"]) for r in row.records}
        assert told == {"a@x.example": (True, first), "b@x.example": (False, first)}
        await out.close()


async def test_a_relay_that_is_down_costs_no_attempt_and_waiting_for_it_no_row() -> None:
    clock = Clock()
    async with Peer() as peer:
        settings = peer.settings()
    out = mail(settings, clock=clock)
    row = Row(out)
    outcome = await row.run()
    assert isinstance(outcome, Snooze)
    assert outcome.code == "relay_connect"
    assert 10 <= outcome.after_s <= 12
    assert [(r["outcome"], r["phase"], r["smtp_code"]) for r in row.records] == [("deferred", "connect", None)]
    assert isinstance(await row.run(), Snooze)
    assert row.records == []


async def test_after_a_crash_a_mail_is_marked_as_a_possible_duplicate() -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        row = Row(out)
        row.crashes = 1
        await row.run()
        assert row.records[0]["possible_duplicate"] is True
        assert row.log.events[0][0] == "email_possible_duplicate"
        await out.close()


async def test_a_retry_goes_only_to_those_who_have_nothing_yet(pool: Pool) -> None:
    script = {
        "RCPT TO:<b@x.example>": ["451 4.3.0 later", "451 4.3.0 later"],
        "RCPT TO:<c@x.example>": ["550 5.1.1 no such user"],
    }
    async with Peer(script) as peer:
        out = mail(peer.settings())
        row = Row(out, pool, to=["a@x.example", "b@x.example", "c@x.example"])
        assert isinstance(await row.run(), Retry)
        assert isinstance(await row.run(), Retry)
        outcome = await row.run()
        assert isinstance(outcome, Dead)
        assert outcome.result == {
            "recipients": {"a@x.example": "delivered", "b@x.example": "delivered", "c@x.example": "refused_before"}
        }
        assert [received.recipients for received in peer.received] == [("a@x.example",), ("b@x.example",)]
        assert peer.count("RCPT") == 5
        await out.close()


async def test_a_snoozed_row_remembers_who_was_served(pool: Pool) -> None:
    clock = Clock()
    async with Peer({"RCPT TO:<u1@x.example>": ["421 4.3.2 closing"] * 2}) as peer:
        out = mail(peer.settings(recipients_per_message=1), clock=clock)
        row = Row(out, pool, to=["u0@x.example", "u1@x.example", "u2@x.example"])
        assert isinstance(await row.run(), Snooze)
        clock.now += 1000
        assert isinstance(await row.run(), Done)
        served = [r for received in peer.received for r in received.recipients]
        assert sorted(served) == ["u0@x.example", "u1@x.example", "u2@x.example"]
        await out.close()


async def test_an_unanswered_mail_is_sent_once_more_with_the_same_id_and_never_a_third_time(pool: Pool) -> None:
    async with Peer({"DOT": [DROP, DROP]}) as peer:
        out = mail(peer.settings())
        row = Row(out, pool)
        outcome = await row.run()
        assert isinstance(outcome, Retry)
        assert outcome.detail is not None
        assert outcome.detail["possible_duplicate"] == {"jane@x.example": "lost_after_dot"}
        first = row.records[0]
        assert (first["outcome"], first["possible_duplicate"]) == ("unknown", False)
        outcome = await row.run()
        assert isinstance(outcome, Dead)
        assert outcome.code == "lost_after_dot"
        assert row.records[0]["possible_duplicate"] is True
        assert row.records[0]["message_id"] == first["message_id"]
        assert peer.count("DATA") == 2
        await out.close()


async def test_who_may_have_the_mail_twice_gets_it_no_third_time_while_others_wait(pool: Pool) -> None:
    script = {"DOT": [DROP, DROP], "RCPT TO:<b@x.example>": ["451 4.3.0 later"] * 2}
    async with Peer(script) as peer:
        out = mail(peer.settings(recipients_per_message=1))
        row = Row(out, pool, to=["a@x.example", "b@x.example"])
        assert [type(await row.run()) for _ in range(2)] == [Retry, Retry]
        outcome = await row.run()
        assert isinstance(outcome, Dead)
        assert outcome.code == "unknown_before"
        assert [received.recipients for received in peer.received] == [("b@x.example",)]
        assert peer.count("DATA") == 3
        await out.close()


async def test_a_dead_letter_that_somebody_retries_goes_to_those_who_were_refused(pool: Pool) -> None:
    async with Peer({"RCPT TO:<b@x.example>": ["550 5.1.1 no such user"]}) as peer:
        out = mail(peer.settings())
        row = Row(out, pool, to=["a@x.example", "b@x.example"])
        assert isinstance(await row.run(), Dead)
        await pool.execute("delete from email_suppressions")
        assert isinstance(await row.run(), Done)
        assert [received.recipients for received in peer.received] == [("a@x.example",), ("b@x.example",)]
        await out.close()


async def test_a_row_run_twice_sends_once(pool: Pool) -> None:
    async with Peer() as peer:
        out = mail(peer.settings())
        row = Row(out, pool)
        assert isinstance(await row.run(), Done)
        assert isinstance(await row.run(), Done)
        assert len(peer.received) == 1
        await out.close()


async def test_the_past_of_a_job_is_its_own_and_found_by_its_index(pool: Pool) -> None:
    await pool.execute(
        "insert into email_deliveries (job_id, attempt, recipient, outcome) "
        "select n % 5000, 1, 'r' || n || '@x.example', 'delivered' from generate_series(1, 20000) as n"
    )
    await pool.execute("analyze email_deliveries")
    past = await delivered(pool, 42)
    assert past == Past(delivered=frozenset(f"r{n}@x.example" for n in (42, 5042, 10042, 15042)))
    statement = load("email.sql")["delivered"]
    async with pool.acquire() as connection:
        await connection.execute("set plan_cache_mode = force_generic_plan")
        await connection.execute(f"prepare past as {statement}")
        plan = "\n".join(row[0] for row in await connection.fetch("explain execute past(42)"))
    today = await pool.fetchval("select tableoid::regclass::text from email_deliveries limit 1")
    assert re.search(rf"Index Scan on {today}_job_id_idx|Index Scan using {today}_job_id_idx", plan)
    assert f"Seq Scan on {today}" not in plan  # the other days are empty
