"""A forward with a real daemon and a real relay: greylisted and then delivered; and no less when a daemon is killed."""

from __future__ import annotations

import asyncpg
import pytest

from tests.jobs.email.peer import HANG, Peer
from tests.life.fleet import Fleet, until_sql

pytestmark = pytest.mark.req("BJ-03")

RAW = b"From: jane@x.example\r\nSubject: Gr\xfc\xdfe\r\n\r\n.\r\nHello.\r\n"
INSERT = """insert into email_forwards (org_id, sender, recipients, raw)
            values ('acme', 'jane@x.example', '{joe@mailbox.example}', $1) returning id"""
ENDED = "select state from email_forwards where id = $1 and state <> 'waiting'"


def config(peer: Peer) -> str:
    return f"""
    [email.forward]
    domain = "fwd.shop.example"
    srs_secrets = ["a secret"]
    greylist_ages = ["50ms"]
    [email.relays.main]
    host = "127.0.0.1"
    port = {peer.port}
    tls = "none"
    [kinds.email_forward]
    backoff = "fixed"
    delay = "10ms"
    """


async def test_a_greylisted_forward_is_delivered_byte_for_byte(fleet: Fleet, pool: asyncpg.Pool) -> None:
    async with Peer({"RCPT": ["450 4.7.1 greylisted, come again"]}) as peer:
        await fleet.start("a", config(peer))
        forward = await pool.fetchval(INSERT, RAW)
        assert await until_sql(pool, ENDED, forward) == "delivered"
        [got] = peer.received
        assert got.wire.endswith(b"+0000\r\n" + RAW)
        assert got.sender.endswith("=x.example=jane@fwd.shop.example")
        log = await pool.fetch("select outcome, code from email_deliveries where org_id = 'acme' order by attempt")
        assert [tuple(row) for row in log] == [("soft", "greylisted"), ("delivered", "delivered")]
        assert await pool.fetchval("select raw is null from email_forwards where id = $1", forward)


async def test_a_daemon_that_is_killed_half_way_loses_nothing(fleet: Fleet, pool: asyncpg.Pool) -> None:
    async with Peer({"DATA": [HANG]}) as peer:
        first = await fleet.start("a", config(peer))
        forward = await pool.fetchval(INSERT, RAW)
        await peer.until(lambda: "DATA" in peer.commands)
        await first.perish(pool)
        await fleet.start("b", config(peer))
        assert await until_sql(pool, ENDED, forward) == "delivered"
        assert [got.wire.endswith(RAW) for got in peer.received] == [True]
