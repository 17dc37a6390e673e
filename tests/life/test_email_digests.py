"""Digests: what comes in a window is one mail, whoever inserts it, and nothing is lost or told twice."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sql import load
from tests.jobs.email.peer import HANG, Peer
from tests.life.fleet import Fleet, fleet_on, until_sql
from tests.sql.logins import as_login, roles_in

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

CONFIG = """
[email]
from = "Shop <no-reply@shop.example>"
[email.relays.main]
host = "127.0.0.1"
port = {port}
tls = "none"
[kinds.email]
retry = ["1s", "1s", "1s"]
"""
TEMPLATE = "{% for i in items %}{{ i.n }} {% endfor %}"
PUT = """insert into email_digest_items (org_id, key, email, item, gather, most)
         values ($1, $2, $3::text::jsonb, $4::text::jsonb, $5::text::interval, $6) returning id"""


@pytest.fixture
async def fleet(database: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_on(database, tmp_path) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
async def template(pool: Pool) -> None:
    await pool.execute(
        "insert into email_templates (name, subject, text) values ('d', '{{ items | length }}', $1)", TEMPLATE
    )


async def put(
    conn: Any,
    n: int,
    *,
    to: str = "jane@x.example",
    org: str | None = None,
    key: str = "",
    gather: str = "1 hour",
    most: int = 100,
) -> int:
    mail = json.dumps({"to": to, "template": "d"})
    return int(await conn.fetchval(PUT, org, key, mail, json.dumps({"n": n}), gather, most))


def told(peer: Peer) -> list[list[int]]:
    """What each mail that arrived tells of."""
    messages = [email.message_from_bytes(r.wire, policy=email.policy.default) for r in peer.received]
    return [[int(n) for n in m.get_body(["plain"]).get_content().split()] for m in messages]  # type: ignore[union-attr]


async def jobs(pool: Pool) -> list[tuple[str | None, bool]]:
    """The jobs that wait: what follows their digest in their key, and whether they are due."""
    rows = await pool.fetch(
        """select split_part(unique_key, ':', 3) as part, run_at <= now() as due from jobs
           where kind = 'email' order by id"""
    )
    return [(row["part"], row["due"]) for row in rows]


async def close_windows(pool: Pool) -> None:
    await pool.execute("update jobs set run_at = now(), gate = '' where gate = 'later'")
    await pool.execute("select pg_notify('jobsd:public', '')")


@pytest.mark.req("BJ-21")
async def test_the_first_opens_a_window_and_later_ones_are_in_the_same_mail(pool: Pool, fleet: Fleet) -> None:
    async with Peer() as peer:
        await fleet.start(config=CONFIG.format(port=peer.port))
        for n in range(5):
            await put(pool, n)
        await put(pool, 10, to="bob@x.example")
        await put(pool, 20, key="other")
        await put(pool, 30, org="acme")
        assert await jobs(pool) == [("", False)] * 4
        await close_windows(pool)
        await peer.until(lambda: len(peer.received) == 4)
        assert sorted(told(peer)) == [[0, 1, 2, 3, 4], [10], [20], [30]]
        await until_sql(pool, "select count(*) = 0 from email_digest_items")
        await put(pool, 6, gather="0 s")
        await peer.until(lambda: len(peer.received) == 5)
        assert told(peer)[-1] == [6]


async def test_what_is_rolled_back_was_never_told(pool: Pool) -> None:
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await put(conn, 1)
        await transaction.rollback()
    assert await jobs(pool) == []
    assert await pool.fetchval("select count(*) from email_digest_items") == 0


@pytest.mark.req("BJ-21")
async def test_twenty_sessions_lose_nothing_and_nothing_is_told_twice(pool: Pool, database: str, fleet: Fleet) -> None:
    """Twenty at a time into one digest, each with windows that end while others insert, and transactions that last."""
    async with Peer() as peer:
        await fleet.start(config=CONFIG.format(port=peer.port))
        await fleet.start(config=CONFIG.format(port=peer.port))

        async def session(s: int) -> None:
            conn = await asyncpg.connect(database)
            for i in range(10):
                async with conn.transaction():
                    await put(conn, s * 100 + i, gather="50 ms", most=30)
                    if i % 3 == 0:
                        await conn.execute("select pg_sleep(0.02)")
            await conn.close()

        await asyncio.gather(*(session(s) for s in range(20)))
        await until_sql(pool, "select count(*) = 0 from email_digest_items")
        await until_sql(pool, "select count(*) = 0 from jobs")
        counts = Counter(n for mail in told(peer) for n in mail)
        assert counts == Counter(s * 100 + i for s in range(20) for i in range(10))
        assert max(map(len, told(peer))) <= 30


async def test_a_digest_that_is_full_goes_at_once_and_the_rest_with_its_window(pool: Pool, fleet: Fleet) -> None:
    async with Peer() as peer:
        await fleet.start(config=CONFIG.format(port=peer.port))
        mail = json.dumps({"to": "jane@x.example", "template": "d"})
        await pool.execute(
            """insert into email_digest_items (email, item, gather, most)
               select $1::text::jsonb, jsonb_build_object('n', n), '1 hour', 10 from generate_series(1, 25) as n""",
            mail,
        )
        await peer.until(lambda: len(peer.received) == 2)
        assert sorted(n for mail in told(peer) for n in mail) == list(range(1, 21))
        await until_sql(pool, "select count(*) = 5 from email_digest_items")
        assert await jobs(pool) == [("", False)]
        await close_windows(pool)
        await peer.until(lambda: len(peer.received) == 3)
        assert told(peer)[-1] == [21, 22, 23, 24, 25]


async def test_what_does_not_fit_into_a_mail_is_in_the_next_one(pool: Pool, fleet: Fleet) -> None:
    """The window's own mail is full too, and nothing else would send the rest."""
    async with Peer() as peer:
        await pool.execute(
            """insert into email_digest_items (email, item, gather, most)
               select '{"to": "jane@x.example", "template": "d"}',
                      jsonb_build_object('n', n, 'pad', repeat('x', 16000)), '0 s', 1000
               from generate_series(1, 100) as n"""
        )
        await fleet.start(config=CONFIG.format(port=peer.port))
        await peer.until(lambda: sum(map(len, told(peer))) == 100)
        assert sorted(n for mail in told(peer) for n in mail) == list(range(1, 101))
        assert len(told(peer)) >= 3


@pytest.mark.req("BJ-21")
async def test_a_daemon_that_is_killed_half_way_leaves_the_same_mail_to_another(pool: Pool, fleet: Fleet) -> None:
    async with Peer({"DATA": [HANG], "DOT": []}) as peer:
        first = await fleet.start(config=CONFIG.format(port=peer.port))
        for n in range(3):
            await put(pool, n, gather="0 s" if n == 0 else "1 hour")
        await peer.until(lambda: peer.count("DATA") == 1)
        await first.perish(pool)
        await put(pool, 3)
        await fleet.start(config=CONFIG.format(port=peer.port))
        await peer.until(lambda: len(peer.received) == 1)
        await until_sql(pool, "select count(*) = count(*) filter (where job_id is null) from email_digest_items")
        await close_windows(pool)
        await until_sql(pool, "select count(*) = 0 from email_digest_items")
        assert Counter(n for mail in told(peer) for n in mail) == Counter(range(4))


async def test_a_job_does_not_begin_while_somebody_is_adding_to_it(pool: Pool, fleet: Fleet) -> None:
    async with Peer() as peer:
        await put(pool, 1, gather="0 s")
        async with pool.acquire() as conn, conn.transaction():
            await put(conn, 2)
            await fleet.start(config=CONFIG.format(port=peer.port))
            await pool.execute("insert into jobs (kind) values ('heartbeat')")
            await until_sql(pool, "select count(*) = 1 from job_history where kind = 'heartbeat'")
            assert peer.received == []
        await peer.until(lambda: len(peer.received) == 1)
        assert told(peer) == [[1, 2]]


async def test_a_dead_letter_keeps_what_it_was_to_tell_of(pool: Pool, fleet: Fleet) -> None:
    async with Peer({"RCPT": ["554 5.7.1 no"]}) as peer:
        await fleet.start(config=CONFIG.format(port=peer.port))
        await put(pool, 1, gather="0 s")
        await until_sql(pool, "select count(*) = 1 from job_history where state = 'dead'")
        assert await pool.fetchval("select count(*) from email_digest_items where job_id is not null") == 1
        await put(pool, 2, gather="0 s")
        await peer.until(lambda: len(peer.received) == 1)
        assert told(peer) == [[2]]


async def test_a_late_attempt_takes_nothing(pool: Pool) -> None:
    await put(pool, 1)
    job = await pool.fetchval("update jobs set state = 'running', fence = 2, worker_id = 5, gate = '' returning id")
    digest = await pool.fetchval("select digest from email_digest_items")
    take = load("email.sql")["digest_take"]
    late = await pool.fetch(take, job, digest, None, 100, 1000, 1, 5)
    assert [row["id"] for row in late] == [None]
    for _ in range(2):
        ours = await pool.fetch(take, job, digest, None, 100, 1000, 2, 5)
        assert [json.loads(row["item"]) for row in ours] == [{"n": 1}]
    assert await pool.fetch(take, job, digest, "acme", 100, 1000, 2, 5)  # its own, whoever asks
    await pool.execute("update email_digest_items set job_id = null")
    assert await pool.fetch(take, job, digest, "acme", 100, 1000, 2, 5) == []


async def test_a_producer_adds_for_its_own_organisation_only(pool: Pool, database: str) -> None:
    async with roles_in(database):
        app = await asyncpg.connect(as_login(database, "acme_app"))
        assert await put(app, 1, org="acme")
        for org in ("globex", None):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await put(app, 1, org=org)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetch("select item from email_digest_items")
        await app.close()
        assert await pool.fetchval("select org_id from jobs") == "acme"


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"email": '{"to": "a@x.example"}'}, "email_digest_items_email_is_of_a_template"),
        ({"email": '{"template": "d"}'}, "email_digest_items_email_is_of_a_template"),
        ({"email": '{"to": "a", "template": "d", "digest": {}}'}, "email_digest_items_email_is_of_a_template"),
        ({"email": "[]"}, "email_digest_items_email_is_of_a_template"),
        ({"gather": "8 days"}, "email_digest_items_gather_up_to_7_days"),
        ({"gather": "-1 s"}, "email_digest_items_gather_up_to_7_days"),
        ({"most": 0}, "email_digest_items_most_1_to_1000"),
        ({"item": '"' + "x" * 17000 + '"'}, "email_digest_items_item_at_most_16_kib"),
    ],
)
async def test_what_cannot_be_told_is_refused_where_it_is_inserted(
    columns: dict[str, Any], constraint: str, pool: Pool
) -> None:
    row = {"email": '{"to": "a@x.example", "template": "d"}', "item": "{}", "gather": "5 min", "most": 100} | columns
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await pool.execute(
            """insert into email_digest_items (email, item, gather, most)
               values ($1::text::jsonb, $2::text::jsonb, $3::text::interval, $4)""",
            *(row[name] for name in ("email", "item", "gather", "most")),
        )
    assert refused.value.constraint_name == constraint


async def test_what_no_job_will_tell_of_is_forgotten_and_the_rest_is_not(pool: Pool) -> None:
    ids = [await put(pool, n, key=str(n)) for n in range(4)]
    await pool.execute("update email_digest_items set created_at = now() - interval '31 days'")
    await pool.execute("update email_digest_items set job_id = 12345 where id = $1", ids[0])
    await pool.execute(
        "delete from jobs where unique_key = (select 'digest:' || digest from email_digest_items where id = $1)", ids[1]
    )
    await pool.execute(
        """update email_digest_items as i set job_id = j.id from jobs j
           where j.unique_key = 'digest:' || i.digest and i.id = $1""",
        ids[2],
    )
    await pool.execute(load("email.sql")["forget_digest_items"], 30 * 86400.0, 100)
    assert [row[0] for row in await pool.fetch("select id from email_digest_items order by id")] == ids[2:]
