"""Who inserts forwards sees what became of his own, and nobody but the daemon reads people's mail."""

from __future__ import annotations

import asyncpg
import pytest

import sql
from tests.sql.logins import connections
from tests.sql.rows import Pool

pytestmark = pytest.mark.req("BJ-03", "OR-13")

INSERT = """insert into email_forwards (org_id, sender, recipients, raw)
            values ($1, '', '{a@b.example}', 'x') returning id"""
SAID = '[{"forward_id": %d, "word": "failed", "code": "policy", "reason": "550 no"}]'


async def test_each_login_may_do_what_it_is_for_and_no_more(database: str, pool: Pool) -> None:
    logins = ("acme_app", "globex_app", "jobsd_serve", "jobsd_ann", "jobsd_bob")
    async with connections(database, *logins) as (acme, globex, daemon, operator, reader):
        forward = await acme.fetchval(INSERT, "acme")
        assert [tuple(row) for row in await pool.fetch("select kind, org_id, lane from jobs")] == [
            ("email_forward", "acme", "main")
        ]
        for org in ("globex", None):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await acme.fetchval(INSERT, org)
        for statement in (
            "select raw from email_forwards",
            "delete from email_forwards",
            "update email_forwards set state = 'failed'",
            f"select email_forwards_said('{SAID % forward}')",
            "insert into email_forwards (sender, recipients, raw, state) values ('', '{a@b}', 'x', 'delivered')",
        ):
            for login in (acme, operator, reader):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await login.execute(statement)
        assert await acme.fetchval("select state from email_forwards") == "waiting"
        assert await globex.fetch("select id from email_forwards") == []
        assert await reader.fetchval("select sender from email_forwards where id = $1", forward) == ""

        assert await daemon.fetchval(sql.load("forwards.sql")["forward_raw"], forward) == b"x"
        await daemon.execute(sql.load("ledgers.sql")["email_forwards"], SAID % forward)
        assert tuple(*await daemon.fetch(sql.load("forwards.sql")["adrift"], 0, 10, 60)) == (None, 0, 0)
        assert (
            await acme.fetchval("select (state, code, reason)::text from email_forwards") == '(failed,policy,"550 no")'
        )
        await pool.execute("update email_forwards set created_at = '2001-01-01'")
        assert len(await daemon.fetch(sql.load("forwards.sql")["forget_forwards"], 60, 10)) == 1
