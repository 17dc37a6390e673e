"""`forward_retry` on somebody's own table."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.catalogue.house import at_once, killed_everywhere, rehearsed, unlocked, whole, zoo

SCHEMA = """
create schema zoo;
create type zoo.fate as enum ('sent', 'lost');
create table zoo.letters (
    id uuid primary key default gen_random_uuid(), n int, house text, teller text, sender text not null, "to" text[],
    raw bytea, failed_at timestamptz not null, forward bigint, over_at timestamptz, fate zoo.fate, why text
);
create index on zoo.letters (failed_at);
"""
LETTERS = """
[jobs.letters]
verb = "forward_retry"
table = "zoo.letters"
sender_column = "sender"
recipient_column = "to"
raw_column = "raw"
failed_at_column = "failed_at"
forward_column = "forward"
ended_column = "over_at"
outcome_column = "fate"
delivered = "sent"
failed = "lost"
reason_column = "why"
empty_raw = true
org_column = "house"
notify_column = "teller"
batch = 4
pause = "0"
"""
BYTES = b"From: jane@x.example\r\nSubject: \xff\x00 bytes\r\n\r\nHello.\n"
SAID = "select email_forwards_said($1::text::jsonb)"


async def ran(queue: Queue) -> Any:
    await queue.enqueue("letters")
    one = (await queue.drain(raise_errors=True)).one()
    assert one.outcome == "done", one
    return one.result


async def letters(queue: Queue, count: int, hours: float, **columns: Any) -> None:
    """So many that failed so many hours ago."""
    known = {"sender": "jane@x.example", "to": ["joe@y.example"], "raw": BYTES, "house": "acme", **columns}
    names = ", ".join(f'"{name}"' for name in known)
    places = ", ".join(f"${n}" for n in range(3, 3 + len(known)))
    await queue.pool.execute(
        f"insert into zoo.letters (n, failed_at, {names}) select n, now() - $1::float8 * interval '1 hour', {places} "
        "from generate_series(1, $2::int) as n",
        hours,
        count,
        *known.values(),
    )


@pytest.mark.req("BJ-03")
async def test_what_failed_an_hour_ago_is_handed_over_once_with_its_bytes_and_its_age() -> None:
    async with zoo(LETTERS, SCHEMA) as queue:
        await letters(queue, 6, 2, teller="ann@z.example")
        await letters(queue, 2, 0.9)
        await letters(queue, 1, 5, over_at=queue.clock.now)
        said = await rehearsed(queue, LETTERS, "letters")
        assert isinstance(said, Done)
        assert said.result["would_hand_over"] == 6
        assert await ran(queue) == {"handed": 6, "refused": 0, "delivered": 0, "failed": 0}
        rows = await queue.pool.fetch(
            "select f.*, l.failed_at from email_forwards f join zoo.letters l on l.forward = f.id"
        )
        assert len(rows) == 6
        assert {(r["org_id"], r["sender"], r["notify"], bytes(r["raw"])) for r in rows} == {
            ("acme", "jane@x.example", "ann@z.example", BYTES)
        }
        assert {row["first_failed_at"] - row["failed_at"] for row in rows} == {timedelta()}
        made = await queue.pool.fetch("select (args ->> 'forward')::bigint from jobs where kind = 'email_forward'")
        assert {row[0] for row in made} == {row["id"] for row in rows}
        before = await whole(queue.pool)
        assert await ran(queue) == {"handed": 0, "refused": 0, "delivered": 0, "failed": 0}
        after = await whole(queue.pool)
        assert (after["zoo.letters"], after["email_forwards"]) == (before["zoo.letters"], before["email_forwards"])
        await queue.clock.advance("10m")
        assert (await ran(queue))["handed"] == 2


@pytest.mark.req("BJ-03")
async def test_rows_are_told_what_became_of_their_forwards() -> None:
    async with zoo(LETTERS, SCHEMA) as queue:
        await letters(queue, 3, 2)
        await ran(queue)
        ids = [row[0] for row in await queue.pool.fetch("select forward from zoo.letters order by n")]
        await queue.pool.execute(SAID, f'[{{"forward_id": {ids[0]}, "word": "delivered"}}]')
        await queue.pool.execute(
            SAID, f'[{{"forward_id": {ids[1]}, "word": "failed", "code": "smtp_550", "reason": "No such mailbox."}}]'
        )
        assert await ran(queue) == {"handed": 0, "refused": 0, "delivered": 1, "failed": 1}
        rows = await queue.pool.fetch(
            "select fate::text, why, over_at is not null, raw is null from zoo.letters order by n"
        )
        assert [tuple(row) for row in rows] == [
            ("sent", None, True, True),
            ("lost", "No such mailbox.", True, True),
            (None, None, False, False),
        ]


RECIPIENTS = "a recipient is no address, or there are none or more than 100"
BYTES_MISSING = "there are no bytes, or more than 50 MiB"
NEVER: tuple[tuple[dict[str, Any], str], ...] = (
    ({"sender": "no address"}, "the sender is no address"),
    ({"sender": "@"}, "the sender is no address"),
    ({"to": []}, RECIPIENTS),
    ({"to": None}, RECIPIENTS),
    ({"to": ["joe@y.example", None]}, RECIPIENTS),
    ({"to": [f"a{n}@y.example" for n in range(101)]}, RECIPIENTS),
    ({"to": [f"{'a' * 250}{n}@y.example" for n in range(100)]}, RECIPIENTS),
    ({"raw": b""}, BYTES_MISSING),
    ({"raw": None}, BYTES_MISSING),
    ({"house": "a\x01b"}, "the organisation has no known name"),
    ({"teller": "ann"}, "who should be told is no address"),
    ({"teller": "JOE@y.example"}, "who should be told is a recipient"),
)


@pytest.mark.req("BJ-03")
async def test_what_can_never_be_sent_is_over_and_says_why() -> None:
    async with zoo(LETTERS, SCHEMA) as queue:
        for hours, (columns, _why) in enumerate(NEVER, 2):
            await letters(queue, 1, hours, **columns)
        await letters(queue, 1, 70 * 365 * 24)
        await letters(queue, 1, 90, why="the line was busy")
        assert await ran(queue) == {"handed": 1, "refused": len(NEVER) + 1, "delivered": 0, "failed": 0}
        assert await queue.pool.fetchval("select why from zoo.letters where over_at is null") == "the line was busy"
        rows = await queue.pool.fetch(
            "select fate::text, why, over_at, forward from zoo.letters "
            "where over_at is not null order by failed_at desc"
        )
        reasons = [*(why for _columns, why in NEVER), "its first failure has no possible time"]
        assert [tuple(row) for row in rows] == [("lost", why, queue.clock.now, None) for why in reasons]
        assert (await ran(queue))["refused"] == 0


@pytest.mark.req("BJ-03")
@pytest.mark.req("BJ-27")
async def test_killed_anywhere_each_is_handed_over_once() -> None:
    async with zoo(LETTERS, SCHEMA) as queue:

        async def seed() -> None:
            await queue.pool.execute("delete from jobs; delete from email_forwards; delete from zoo.letters")
            await letters(queue, 9, 2)
            await letters(queue, 2, 3, sender="nobody")

        async def state() -> Any:
            return (
                await queue.pool.fetch(
                    "select n, fate::text, why, forward is null from zoo.letters order by failed_at, n"
                ),
                await queue.pool.fetchval("select count(*) from email_forwards"),
                await queue.pool.fetchval("select count(*) from jobs where kind = 'email_forward'"),
            )

        assert await killed_everywhere(queue, "letters", seed, state, step=3) >= 4


async def handed(queue: Queue) -> Any:
    """Each row with the forward that it has, and how many forwards and jobs there are."""
    rows = (
        "select n, sender, (select count(*) from email_forwards f where f.id = l.forward) from zoo.letters l order by n"
    )
    counts = "select (select count(*) from email_forwards), (select count(*) from jobs where kind = 'email_forward')"
    return await queue.pool.fetch(rows), await queue.pool.fetchrow(counts)


@pytest.mark.req("BJ-03")
@pytest.mark.req("BJ-27")
async def test_run_twice_and_beside_itself_it_comes_to_the_same() -> None:
    async with zoo(LETTERS, SCHEMA) as queue:
        await letters(queue, 6, 2)
        assert (await queue.check_idempotent("letters", state=lambda: handed(queue), points=2)).pauses == 2


@pytest.mark.req("BJ-03")
@pytest.mark.req("BJ-27")
async def test_three_at_once_that_no_lock_keeps_apart_hand_over_and_tell_each_once() -> None:
    async with zoo(LETTERS, SCHEMA) as queue:
        await letters(queue, 40, 2)
        said = await at_once(queue, LETTERS, "letters", "insert on email_forwards")
        assert sum(one["handed"] for one in said) == 40
        rows, counts = await handed(queue)
        assert {row[2] for row in rows} == {1}
        assert counts is not None
        assert tuple(counts) == (40, 40)
        words = "select email_forwards_said(jsonb_agg(jsonb_build_object('forward_id', id, 'word', 'delivered'))) "
        await queue.pool.execute(words + "from email_forwards")
        said = await asyncio.gather(*(unlocked(queue, LETTERS, "letters") for _ in range(3)))
        assert sum(one["delivered"] for one in said) == 40
        assert await queue.pool.fetchval("select count(*) from zoo.letters where over_at is not null") == 40
