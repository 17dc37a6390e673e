"""`expire` and `tokens` on somebody's own tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.catalogue.house import at_once, killed_everywhere, rehearsed, whole, zoo

SCHEMA = """
create schema zoo;
create type zoo.state as enum ('open', 'over', 'banned');
create table zoo.passes (
    id int generated always as identity primary key, holder text default 'ann', state zoo.state not null default 'open',
    active boolean not null default true, token bytea, ends_at timestamptz, ended_at timestamptz
);
create index on zoo.passes (ends_at, id);
create table zoo.events (id int generated always as identity, actor text, action text, subject text, detail jsonb);
create table zoo.tokens (
    hash bytea primary key default sha256(gen_random_uuid()::text::bytea), purpose text default 'login',
    expires_at timestamptz, used_at timestamptz
);
create index on zoo.tokens (expires_at);
create index on zoo.tokens (used_at);
create table zoo.uses (token bytea references zoo.tokens, n int);
"""
EXPIRE = """
[jobs.passes]
verb = "expire"
table = "zoo.passes"
expires_column = "ends_at"
set = { active = false, state = "over" }
clear = ["token"]
stamp_column = "ended_at"
where = { state = { not = "banned" } }
audit_table = "zoo.events"
audit_values = { actor = "job:{job}", action = "pass.over", subject = "pass {id}", detail = '{"holder": {holder}}' }
batch = 4
"""
TOKENS = """
[jobs.tokens]
verb = "tokens"
table = "zoo.tokens"
expires_column = "expires_at"
used_column = "used_at"
together = { "zoo.uses" = "token" }
"""


async def ran(queue: Queue, name: str) -> Any:
    await queue.enqueue(name)
    one = (await queue.drain(raise_errors=True)).one()
    assert one.outcome == "done", one
    return one.result


async def passes(queue: Queue, days: float | None, count: int, state: str = "open") -> None:
    await queue.pool.execute(
        "insert into zoo.passes (ends_at, state, token) "
        "select now() + $1::float8 * interval '1 day', $3::text::zoo.state, '\\x01' from generate_series(1, $2::int)",
        days,
        count,
        state,
    )


@pytest.mark.req("BJ-12")
@pytest.mark.req("OR-14")
async def test_what_is_over_is_switched_off_once_and_written_down() -> None:
    async with zoo(EXPIRE, SCHEMA) as queue:
        await passes(queue, -1, 9)
        await passes(queue, 1, 2)
        await passes(queue, None, 3)
        await passes(queue, -5, 2, "banned")
        said = await rehearsed(queue, EXPIRE, "passes")
        assert isinstance(said, Done)
        assert (said.result["would_expire"], said.result["sample"][0]["state"]) == (9, "open")
        assert await ran(queue, "passes") == {"expired": 9}
        rows = await queue.pool.fetch("select * from zoo.passes where id <= 9")
        assert {(row["active"], row["state"], row["token"], row["ended_at"]) for row in rows} == {
            (False, "over", None, queue.clock.now)
        }
        assert await queue.pool.fetchval("select count(*) from zoo.passes where active and token is not null") == 7
        events = await queue.pool.fetch("select distinct actor, action, detail->>'holder' from zoo.events")
        assert [tuple(event) for event in events] == [("job:passes", "pass.over", "ann")]
        assert await queue.pool.fetchval("select count(distinct subject) from zoo.events") == 9
        before = await whole(queue.pool)
        await queue.clock.advance("1h")
        assert await ran(queue, "passes") == {"expired": 0}, "twice is once"
        after = await whole(queue.pool)
        assert {name: rows for name, rows in after.items() if name.startswith("zoo.")} == {
            name: rows for name, rows in before.items() if name.startswith("zoo.")
        }


@pytest.mark.req("BJ-12")
@pytest.mark.req("BJ-27")
async def test_a_killed_expiry_comes_to_the_same_and_writes_each_event_once() -> None:
    async with zoo(EXPIRE, SCHEMA) as queue:

        async def seed() -> None:
            await queue.pool.execute("truncate zoo.passes, zoo.events restart identity")
            await passes(queue, -1, 9)
            await passes(queue, 1, 2)

        async def state() -> Any:
            return (
                await queue.pool.fetch("select id, active, state::text from zoo.passes order by id"),
                await queue.pool.fetch("select subject from zoo.events order by subject"),
            )

        assert await killed_everywhere(queue, "passes", seed, state, step=3) >= 4


@pytest.mark.req("BJ-12")
@pytest.mark.req("BJ-27")
async def test_three_at_once_that_no_lock_keeps_apart_change_each_row_and_write_its_event_once() -> None:
    async with zoo(EXPIRE, SCHEMA) as queue:
        await passes(queue, -1, 20)
        said = await at_once(queue, EXPIRE, "passes", "update on zoo.passes")
        assert sum(one["expired"] for one in said) == 20
        assert await queue.pool.fetchval("select count(*) from zoo.events") == 20
        assert await ran(queue, "passes") == {"expired": 0}


@pytest.mark.req("BJ-13")
@pytest.mark.req("BJ-14")
@pytest.mark.req("JD-01")
async def test_tokens_that_expired_or_were_used_go_and_live_ones_stay() -> None:
    async with zoo(TOKENS, SCHEMA) as queue:
        now = queue.clock.now
        for expires, used in (
            (now - timedelta(seconds=1), None),
            (now - timedelta(days=9), now - timedelta(days=9)),
            (now + timedelta(days=1), now - timedelta(hours=1)),
            (now + timedelta(seconds=1), None),
            (None, None),
        ):
            await queue.pool.execute("insert into zoo.tokens (expires_at, used_at) values ($1, $2)", expires, used)
        await queue.pool.execute("insert into zoo.uses select hash, 1 from zoo.tokens where used_at is not null")
        said = await rehearsed(queue, TOKENS, "tokens")
        assert isinstance(said, Done)
        assert said.result["would_delete"] == 3
        assert await ran(queue, "tokens") == {"deleted": 3, "zoo.uses": 2}
        rows = await queue.pool.fetch("select expires_at from zoo.tokens order by 1")
        assert [row[0] for row in rows] == [now + timedelta(seconds=1), None]
        assert await ran(queue, "tokens") == {"deleted": 0, "zoo.uses": 0}
