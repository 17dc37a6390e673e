"""Who registers domains sees and changes his own organisation's, and cannot say what a check has to say."""

from __future__ import annotations

import asyncpg
import pytest

from tests.sql.domains import PLAN, SAID, TURN, said
from tests.sql.logins import connections
from tests.sql.rows import Pool

pytestmark = pytest.mark.req("BJ-20", "OR-13")

INSERT = "insert into domains (org_id, domain) values ($1, 'example.com') returning token"


async def test_each_login_may_do_what_it_is_for_and_no_more(database: str, pool: Pool) -> None:
    logins = ("acme_app", "globex_app", "jobsd_serve", "jobsd_ann", "jobsd_bob")
    async with connections(database, *logins) as (acme, globex, daemon, operator, reader):
        token = await acme.fetchval(INSERT, "acme")
        for org in ("globex", None):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await acme.fetchval(INSERT, org)
        assert [tuple(row) for row in await pool.fetch("select kind, org_id from jobs")] == [("domain_check", "acme")]

        # another organisation sees and touches nothing of it, and may have the same domain
        assert await globex.fetch("select token from domains") == []
        assert await globex.execute("update domains set expect = '[]'") == "UPDATE 0"
        assert await globex.execute("delete from domains") == "DELETE 0"
        assert await globex.fetchval(INSERT, "globex") != token

        for statement in (
            "update domains set state = 'verified'",
            "update domains set token = 'abcdefghijklmnopqrstuvwxyz'",
            "insert into domains (org_id, domain, state) values ('acme', 'b.example', 'verified')",
            f"insert into domains (org_id, domain, token) values ('acme', 'b.example', '{token}')",
            "insert into domain_checks (job_id, attempt, domain, verdict, records) values (1, 1, 'b', 'match', '[]')",
            "select domains_said('[]')",
            "update domain_plan set planned_at = now()",
        ):
            for login in (acme, reader):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await login.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await operator.execute("select domains_said('[]')")

        [row] = await daemon.fetch(TURN, "acme", "example.com", None, 1, 10.0, 150.0)
        assert row["token"] == token
        await daemon.execute(SAID, said(row, "good"))
        await daemon.execute("update domains set next_check_at = now()")
        await pool.execute("delete from jobs where kind = 'domain_check'")
        await pool.execute("update domain_plan set planned_at = now() - interval '1 h'")
        assert await daemon.fetchval(PLAN, 1000) == 2
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await daemon.execute("update domains set state = 'verified'")

        assert await acme.fetchval("select state from domains") == "verified"
        assert await acme.fetchval("select state_after from domain_checks") == "verified"
        assert await globex.fetch("select state_after from domain_checks") == []
        assert await reader.fetchval("select count(*) from domains") == 2
        assert await acme.execute("delete from domains") == "DELETE 1"
        assert await operator.execute("delete from domains") == "DELETE 1"
