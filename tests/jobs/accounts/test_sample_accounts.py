"""Both verbs on the sample application, filled: all that an account has, then nothing of it."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import asyncpg
import pytest

from daemon.sample import Filling, fill, install
from jobs.testing import queue
from tests.jobs.accounts.people import traces
from tests.sql.sampled import NOW

CONFIG = """
[storage]
public_url = "https://shop.example"
link_secrets = ["a secret that is long enough"]

[jobs.account_export]
verb = "export_account"
table = "app.accounts"
deleted_column = "deleted_at"
address_column = "email"
org_column = "org_id"
requests = "app.exports"
mail_from = "Sample <data@mail.example>"
leave_out = ["app.sessions.token_hash", "app.magic_links.token_hash", "app.destination_tokens.token_hash"]

[jobs.account_erasure]
verb = "erase_account"
table = "app.accounts"
deleted_column = "deleted_at"
revoke = ["app.sessions", "app.magic_links"]
blank = { "app.audit_log" = ["account_id", "subject", "detail"] }
files = ["app.exports.location"]
requests = "app.deletion_requests"
"""

BUSIEST = """
select a.id::text as id, a.email from app.accounts a
where a.deleted_at is null
order by (select count(*) from app.messages m where m.account_id = a.id) desc, a.id limit 1"""


async def others(pool: asyncpg.Pool, account: str) -> dict[str, Any]:
    """A digest of the rows of each table that have no word of this account in them."""
    tables = await pool.fetch(
        "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'app'::regnamespace"
    )
    return {
        name: await pool.fetchval(
            f"select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) "
            f"from {name} t where to_jsonb(t) ->> 'account_id' is distinct from $1",
            account,
        )
        for (name,) in tables
        if name not in ("app.audit_log", "app.deletion_requests", "app.exports", "app.accounts")
    }


@pytest.mark.req("BJ-17")
@pytest.mark.req("BJ-18")
async def test_an_account_of_the_sample_is_exported_and_then_erased() -> None:
    async with queue(config=CONFIG, handlers=[]) as made:
        async with made.pool.acquire() as conn:
            await install(conn)
            await fill(conn, Filling(6_000, now=NOW))
        ((account, email),) = await made.pool.fetch(BUSIEST)
        messages = await made.pool.fetchval("select count(*) from app.messages where account_id = $1::uuid", account)
        await made.pool.execute(
            "update app.exports set state = 'expired' where state in ('wanted', 'running', 'ready')"
        )
        await made.pool.execute("insert into app.exports (account_id) values ($1::uuid)", account)
        await made.enqueue("account_export")
        ran = (await made.drain(raise_errors=True)).of("account_export").one()
        assert ran.outcome == "done", ran
        (path,) = [stored.path async for stored in made.storage.list("exports/")]
        file = zipfile.ZipFile(io.BytesIO(await made.storage.get(path, most=1 << 26)))
        assert len(json.loads(file.read("json/app.messages.json"))) == messages > 10
        assert b"token_hash" not in b"".join(file.read(name) for name in file.namelist())
        indirect = len(json.loads(file.read("json/app.header_snapshots.json")))
        assert indirect == await made.pool.fetchval(
            "select count(*) from app.header_snapshots h join app.messages m on m.id = h.message_id "
            "where m.account_id = $1::uuid",
            account,
        )

        await made.pool.execute("update app.accounts set deleted_at = now() where id = $1::uuid", account)
        await made.pool.execute("update app.accounts set deleted_at = null where id <> $1::uuid", account)
        await made.pool.execute(
            "insert into app.deletion_requests (account_id, org_id) "
            "select id, org_id from app.accounts where id = $1::uuid on conflict do nothing",
            account,
        )
        before = await others(made.pool, account)
        await made.enqueue("account_erasure")
        ran = (await made.drain(raise_errors=True)).of("account_erasure").one()
        assert ran.outcome == "done", ran
        assert ran.result["failed"] == 0
        assert ran.result["deleted"] > messages
        assert await traces(made.pool, "app", account, email) == []
        assert [stored async for stored in made.storage.list("exports/")] == []
        after = await others(made.pool, account)
        assert {name for name in after if after[name] != before[name]} <= {
            "app.header_snapshots", "app.destination_tokens", "app.alias_destinations",
        }, "rows without an account of their own, which hang on those that went"  # fmt: skip
        done = await made.pool.fetchval(
            "select count(*) from app.deletion_requests where completed_at >= $1", made.clock.now
        )
        assert done >= 1
