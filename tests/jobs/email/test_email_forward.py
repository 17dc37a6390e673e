"""A forward from its insert to its end: delivered once, or given up and told once, and kept no longer than that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest

import sql
from jobs import testing
from jobs.context import Context, Tools
from jobs.email.forward import ForwardArgs, by_age, email_forward
from jobs.email.forward_settings import ForwardSettings
from jobs.email.relay import Mail
from jobs.email.room import Room
from jobs.email.settings import EmailSettings
from jobs.model import Dead, Done, Job, Outcome, Retry, Snooze
from jobs.secrets import Secrets
from jobs.testing.queue import Queue
from jobs.values import Secret, duration
from tests.jobs.email.peer import DROP, Peer
from tests.jobs.email.row import OnlyTools, Silent, no_progress

pytestmark = pytest.mark.req("BJ-03")

FORWARD = ForwardSettings(domain="ours.example", srs_secrets=(Secret("s1"),))
RAW = b"From: jane@x.example\r\nSubject: Gr\xfc\xdfe\r\nMessage-ID: <1@x.example>\r\n\r\nHello.\r\n"
DAY_S = 86_400


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[tuple[Queue, Peer, Mail]]:
    """A queue whose mail goes to a relay on loopback."""
    async with Peer() as peer:
        out = Mail(EmailSettings(forward=FORWARD, relays={"main": peer.settings()}), Secrets())
        async with testing.queue(handlers=["jobs.email.forward"], tools={"mail": out}) as queue:
            yield queue, peer, out
        await out.close()


@pytest.fixture
async def queue(world: tuple[Queue, Peer, Mail]) -> AsyncIterator[Queue]:
    queue, peer, _ = world
    peer.script.clear()
    peer.received.clear()
    peer.commands.clear()
    async with queue.beginning() as again:
        await again()
        yield queue


@pytest.fixture
def peer(world: tuple[Queue, Peer, Mail]) -> Peer:
    return world[1]


async def insert(db: Any, **given: Any) -> int:
    row = {"sender": "jane@x.example", "recipients": ["joe@mailbox.example"], "raw": RAW, **given}
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    found: int = await db.fetchval(
        f"insert into email_forwards ({', '.join(row)}) values ({places}) returning id", *row.values()
    )
    return found


async def state(queue: Queue, forward: int) -> tuple[str, bool, str | None]:
    row = await queue.pool.fetchrow("select state, raw is null, code from email_forwards where id = $1", forward)
    assert row is not None
    return tuple(row)


async def events(queue: Queue) -> list[dict[str, Any]]:
    rows = await queue.pool.fetch("select payload from webhook_events where event = 'jobsd.forward_failed' order by id")
    return [json.loads(row[0]) for row in rows]


async def mails(queue: Queue) -> list[dict[str, Any]]:
    return [
        json.loads(row[0]) for row in await queue.pool.fetch("select args from jobs where kind = 'email' order by id")
    ]


async def test_a_forward_is_delivered_logged_and_its_bytes_are_gone(queue: Queue, peer: Peer) -> None:
    forward = await insert(queue.pool, org_id="acme")
    assert (await queue.drain()).outcomes == [("email_forward", "done")]
    [got] = peer.received
    assert got.wire.endswith(b"\r\n" + RAW)
    assert got.sender.startswith("SRS0=")
    assert got.sender.endswith("=x.example=jane@ours.example")
    assert await state(queue, forward) == ("delivered", True, None)
    log = await queue.pool.fetchrow("select recipient, outcome, message_id, org_id from email_deliveries")
    assert log is not None
    assert tuple(log) == ("joe@mailbox.example", "delivered", "<1@x.example>", "acme")
    assert await events(queue) == []


async def test_a_greylisted_forward_comes_again_soon_and_a_refused_one_by_its_ages(queue: Queue, peer: Peer) -> None:
    peer.script["RCPT"] = ["450 4.7.1 greylisted", "450 4.7.1 greylisted", *["451 4.3.0 later"] * 3]
    forward = await insert(queue.pool)
    began = await queue.pool.fetchval("select now()")
    ran = await queue.drain_all()
    assert ran.outcomes == [("email_forward", "retry")] * 5 + [("email_forward", "done")]
    ages = [row[0] for row in await queue.pool.fetch(
        "select date_part('epoch', ended_at - $1) from email_deliveries order by ended_at", began)]  # fmt: skip
    meant = [0, 300, 900, 3600, 6 * 3600, DAY_S]
    assert all(age <= found <= age * 1.06 + 5 for age, found in zip(meant, ages, strict=True)), ages
    assert await state(queue, forward) == ("delivered", True, None)


async def test_what_is_given_up_is_told_once_by_another_way(queue: Queue, peer: Peer) -> None:
    peer.script["RCPT"] = ["451 4.3.0 later"] * 5
    forward = await insert(queue.pool, org_id="acme", notify="joe@other.example")
    began = await queue.pool.fetchval("select now()")
    ran = await queue.drain_all()
    assert ran.outcomes == [("email_forward", "retry")] * 4 + [("email_forward", "dead")]
    took_s = (await queue.pool.fetchval("select now()") - began).total_seconds()
    assert 2 * DAY_S <= took_s <= 2.06 * DAY_S
    assert await state(queue, forward) == ("failed", True, "smtp_451")
    own, of_all = await events(queue)
    assert own == of_all
    assert (own["forward"], own["failed"], own["code"], own["automatic"]) == (
        forward, ["joe@mailbox.example"], "smtp_451", False)  # fmt: skip
    [mail] = await mails(queue)
    assert mail["to"] == "joe@other.example"
    assert "451 4.3.0 later" in mail["text"]

    peer.script["RCPT"] = ["550 5.1.1 no such user"] * 2  # the same day, the same mailbox
    for recipients in (["joe@mailbox.example"], ["JOE@mailbox.example"]):
        await insert(queue.pool, org_id="acme", notify="joe@other.example", recipients=recipients)
    await queue.drain()
    assert (len(await events(queue)), len(await mails(queue))) == (6, 1)

    await queue.clock.advance("1d")
    peer.script["RCPT"] = ["550 5.1.1 no such user"]
    await insert(queue.pool, org_id="acme", notify="joe@other.example")
    await queue.drain()
    assert len(await mails(queue)) == 2


@pytest.mark.parametrize(
    "machine",
    [b"Auto-Submitted: auto-replied", b"auto-submitted:\r\n auto-generated", b"List-Id: <l.x.example>",
     b"PRECEDENCE: Bulk", b"Precedence: list", b"Precedence: junk"],
)  # fmt: skip
async def test_of_what_a_machine_sent_nobody_is_mailed(machine: bytes, queue: Queue) -> None:
    for raw in (
        b"From: a@b\r\n" + machine + b"\r\n\r\nx\ry",
        (b"From: a@b\r\n" + machine + b"\r\n\r\nx").replace(b"\r\n", b"\n") + b"\r",
    ):
        assert await queue.pool.fetchval("select email_is_automatic('jane@x.example', $1)", raw)
        await insert(queue.pool, raw=raw, notify="joe@other.example")
    await queue.drain()
    assert [(event["automatic"], event["code"]) for event in await events(queue)] == [(True, "bare_cr")] * 2
    assert await mails(queue) == []


async def test_people_are_told_from_machines_by_the_head_alone(queue: Queue) -> None:
    for raw in (RAW, b"Auto-Submitted: no\r\n\r\n", b"Auto-Submitted: No (really)\r\n\r\n",
                b"A: 1\r\n\r\nList-Id: x\r\n", b"Precedence: first-class\r\n\r\n",
                b"X: \x00\xff\r\n\r\n", b"X-List-Id: x\r\n\r\n"):  # fmt: skip
        assert not await queue.pool.fetchval("select email_is_automatic('jane@x.example', $1)", raw)
    assert await queue.pool.fetchval("select email_is_automatic('', $1)", RAW)


async def test_one_refused_recipient_does_not_keep_the_others_waiting(queue: Queue, peer: Peer) -> None:
    peer.script["RCPT TO:<b@mailbox.example>"] = ["550 5.1.1 no such user"]
    peer.script["RCPT TO:<c@mailbox.example>"] = ["450 4.7.1 greylisted"]
    forward = await insert(
        queue.pool, recipients=[f"{name}@mailbox.example" for name in "abc"], notify="x@other.example"
    )
    assert (await queue.drain_all()).outcomes == [("email_forward", "retry"), ("email_forward", "dead")]
    assert [got.recipients for got in peer.received] == [("a@mailbox.example",), ("c@mailbox.example",)]
    assert await state(queue, forward) == ("failed", True, "refused_before")
    [event] = await events(queue)
    assert event["failed"] == ["b@mailbox.example"]
    assert len(await mails(queue)) == 1


async def test_faults_of_the_relay_cost_nothing_and_begin_no_age(queue: Queue, peer: Peer) -> None:
    peer.script["GREETING"] = ["421 4.3.2 closing", DROP]
    forward = await insert(queue.pool)
    assert [outcome for _, outcome in (await queue.drain_all()).outcomes][-1] == "done"
    assert {row[0] for row in await queue.pool.fetch("select attempt from job_history")} == {1}
    row = await queue.pool.fetchrow("select state, first_failed_at from email_forwards where id = $1", forward)
    assert row is not None
    assert tuple(row) == ("delivered", None)


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"a: b\r\n\r\nx\ry", "bare_cr"), (b"Received: x\r\n" * 31 + b"\r\n", "mail_loop")],
)  # fmt: skip
async def test_what_can_never_go_is_given_up_at_once(raw: bytes, code: str, queue: Queue, peer: Peer) -> None:
    forward = await insert(queue.pool, raw=raw, notify="x@other.example")
    assert (await queue.drain()).outcomes == [("email_forward", "dead")]
    assert await state(queue, forward) == ("failed", True, code)
    assert (len(await events(queue)), len(await mails(queue)), peer.received) == (1, 1, [])


async def test_our_own_forward_that_comes_back_goes_in_a_circle(queue: Queue, peer: Peer) -> None:
    await insert(queue.pool)
    await queue.drain()
    came_back = peer.received[0].wire
    other = await insert(queue.pool, raw=came_back, recipients=["ann@mailbox.example"])
    forward = await insert(queue.pool, raw=came_back)
    await queue.drain()
    assert (await state(queue, other))[0] == "delivered"
    assert await state(queue, forward) == ("failed", True, "mail_loop")


async def test_it_is_delivered_and_told_once_wherever_it_is_killed(queue: Queue, peer: Peer) -> None:
    """The bytes are at the relay twice at most where the answer to the dot was lost; the row ends once."""
    for pause in (1, 2, 3):
        await insert(queue.pool, notify="x@other.example")
        queue.crash_next("email_forward", at=pause)
        await queue.drain_all()
    queue.duplicate("email_forward")
    await insert(queue.pool)
    await queue.drain_all()
    states = await queue.pool.fetch("select state, raw is null from email_forwards")
    assert [tuple(row) for row in states] == [("delivered", True)] * 4
    assert (await events(queue), await mails(queue)) == ([], [])
    peer.script["RCPT"] = ["550 5.1.1 no such user"] * 2
    await insert(queue.pool, notify="x@other.example")
    queue.duplicate("email_forward")
    await queue.drain_all()
    assert (len(await events(queue)), len(await mails(queue))) == (1, 1)


async def test_a_forward_without_a_job_or_too_old_is_given_up_by_upkeep(queue: Queue) -> None:
    lost, old = await insert(queue.pool, notify="x@other.example"), await insert(queue.pool)
    await queue.pool.execute("delete from jobs where args ->> 'forward' = $1", str(lost))
    adrift = sql.load("forwards.sql")["adrift"]
    assert tuple(*await queue.pool.fetch(adrift, 0, 100, 7 * DAY_S)) == (old, 2, 0)  # a minute's time
    await queue.clock.advance("2m")
    assert tuple(*await queue.pool.fetch(adrift, 0, 100, 7 * DAY_S)) == (old, 2, 1)
    assert await state(queue, lost) == ("failed", True, "job_ended")
    await queue.clock.advance("7d")
    assert tuple(*await queue.pool.fetch(adrift, 0, 100, 7 * DAY_S)) == (old, 1, 1)
    assert await state(queue, old) == ("failed", True, "expired")
    assert (len(await events(queue)), len(await mails(queue))) == (2, 1)
    assert (await queue.drain()).outcomes[-1] == (
        "email_forward",
        "dead",
    )  # the old one's job finds nothing, and says no more
    assert len(await events(queue)) == 2
    forget = sql.load("forwards.sql")["forget_forwards"]
    assert len(await queue.pool.fetch(forget, 7 * DAY_S, 100)) == 2


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"sender": "jane"}, "sender_is_an_address"),
        ({"sender": "jane@x.example>\r\nRCPT TO:<all@x.example"}, "sender_is_an_address"),
        ({"recipients": []}, "recipients_are_addresses"),
        ({"recipients": ["a@b", "c"]}, "recipients_are_addresses"),
        ({"recipients": ["a@b c@d"]}, "recipients_are_addresses"),
        ({"recipients": ["a@b.example"], "notify": "A@b.example"}, "notify_is_no_recipient"),
        ({"raw": b""}, "raw_at_most_50_mib"),
        ({"raw": None}, "raw_is_there"),
        ({"relay": "endpoint:7"}, "relay_is_a_name"),
    ],
)
async def test_what_could_never_be_sent_is_refused_at_the_insert(
    given: dict[str, Any], names: str, queue: Queue
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=names):
        await insert(queue.pool, **given)


async def test_a_rehearsal_sends_and_changes_nothing(queue: Queue, peer: Peer, world: tuple[Queue, Peer, Mail]) -> None:
    forward = await insert(queue.pool)
    tools = cast(Tools, OnlyTools(world[2], queue.pool))
    job = Job(1, 1, "email_forward", "default", 2, 1, "{}", run_at=0.0)
    context = Context(job, tools, Silent(), no_progress, dry_run=True)
    outcome = await email_forward(ForwardArgs(forward=forward), context)
    assert isinstance(outcome, Done)
    assert outcome.result["from"].endswith("=x.example=jane@ours.example")
    assert (outcome.result["recipients"], outcome.result["relay"]) == (["joe@mailbox.example"], "main")
    assert (context.records, peer.commands) == ([], [])
    assert await state(queue, forward) == ("waiting", False, None)
    bad = await insert(queue.pool, raw=b"x\ry")
    assert isinstance(await email_forward(ForwardArgs(forward=bad), context), Dead)
    assert context.records == []


async def test_forwards_wait_for_settings_that_are_missing(queue: Queue) -> None:
    forward = await insert(queue.pool)
    job = Job(1, 1, "email_forward", "default", 2, 1, "{}", run_at=0.0)
    for settings in (ForwardSettings(), ForwardSettings(domain="ours.example"),
                     ForwardSettings(domain="ours.example", srs_secrets=(Secret("secret://nowhere"),))):  # fmt: skip
        out = Mail(EmailSettings(forward=settings), Secrets((), {}))
        context = Context(job, cast(Tools, OnlyTools(out, queue.pool)), Silent(), no_progress)
        outcome = await email_forward(ForwardArgs(forward=forward), context)
        assert isinstance(outcome, Snooze)
        assert (outcome.code, context.records) == ("forward_not_set_up", [])


async def test_messages_share_their_memory_in_order_of_coming() -> None:
    room, order = Room(10), list[str]()
    go, stay, second = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(name: str, size: int, until: asyncio.Event) -> None:
        async with room.place(size):
            order.append(name)
            if len(order) == 2:
                second.set()
            await until.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(hold("a", 6, go))
        group.create_task(hold("b", 100, stay))  # more than there is: the whole room
        group.create_task(hold("c", 1, stay))  # would fit, and does not pass b
        given_up = group.create_task(hold("d", 1, stay))
        await asyncio.sleep(0)
        assert order == ["a"]
        given_up.cancel()
        go.set()
        await second.wait()
        assert order == ["a", "b"]
        stay.set()
    assert order == ["a", "b", "c"]
    async with asyncio.timeout(60), room.place(10):
        pass


def ages(outcome: Outcome, failing_s: float) -> float | str:
    found = by_age(outcome, failing_s, FORWARD)
    if isinstance(found, Retry):
        return float(found.after_s or 0)
    return type(found).__name__


def test_ages_count_from_the_first_failure_however_late_an_attempt_was() -> None:
    later, grey = Retry("x", code="smtp_451"), Retry("x", code="greylisted")
    at = (0, 3600, 5 * 3600, 6 * 3600, DAY_S, 2 * DAY_S)
    assert [ages(later, s) for s in at] == [3600, 5 * 3600, 3600, 18 * 3600, DAY_S, "Dead"]
    assert [ages(grey, s) for s in (0, 300, 900, 3590, 2 * DAY_S - 60)] == [300, 600, 2700, 6 * 3600 - 3590, "Dead"]
    assert [ages(o, 3 * DAY_S) for o in (Done(), Snooze(after=1), Dead("x"))] == ["Done", "Snooze", "Dead"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"domain": "a b"}, "domain"),
        ({"srs_secrets": (Secret(""),)}, "srs_secrets"),
        ({"ages": ()}, "ages"),
        ({"ages": (duration("2h"), duration("1h"))}, "ages"),
        ({"greylist_ages": (duration("0"),)}, "greylist_ages"),
    ],
)
def test_a_wrong_section_is_refused_by_the_name_of_its_field(given: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=f"^{names}: "):
        ForwardSettings(**given)
