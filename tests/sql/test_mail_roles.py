"""Who keeps the mail of an organisation sees and changes what is that one's; the daemon does what it has to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

import sql
from daemon.embedded import Embedded
from tests.sql.logins import as_login, template_with_roles
from tests.sql.rows import Pool

pytestmark = pytest.mark.req("OR-01", "OR-13")

TEMPLATE = "insert into email_templates (org_id, name, subject, text) values ($1, 'welcome', $1, 't')"
SUPPRESSION = "insert into email_suppressions (org_id, recipient) values ($1, 'jane@x.example')"


@pytest.fixture(scope="module")
async def template(embedded_server: Embedded, admin: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The databases of this module have the roles, which are made once."""
    async with template_with_roles(embedded_server, admin, template) as name:
        yield name


@pytest.fixture
async def roles(database: str, pool: Pool) -> str:
    for org in (None, "acme", "globex"):
        await pool.execute(TEMPLATE.replace("$1, 't'", "'s', 't'"), org)
        await pool.execute(SUPPRESSION, org)
    return database


async def test_an_organisations_page_has_its_own_templates_and_suppressions_only(roles: str) -> None:
    acme = await asyncpg.connect(as_login(roles, "acme_mail"))
    for table in ("email_templates", "email_suppressions"):
        assert [row[0] for row in await acme.fetch(f"select org_id from {table}")] == ["acme"]
        assert await acme.execute(f"delete from {table} where org_id is distinct from 'acme'") == "DELETE 0"
        for org in (None, "globex"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await acme.execute(
                    f"insert into {table} (org_id, {_COLUMNS[table]}) values ($1, {_VALUES[table]})", org
                )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await acme.execute(f"update {table} set org_id = 'globex'")
        await acme.execute(f"delete from {table}")
        await acme.execute(f"insert into {table} (org_id, {_COLUMNS[table]}) values ('acme', {_VALUES[table]})")
    assert await acme.fetchval("select count(*) from email_deliveries") == 0
    for table in ("jobs", "webhook_endpoints", "webhook_secrets"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await acme.fetchval(f"select count(*) from {table}")
    await acme.close()


async def test_a_producer_sees_neither(roles: str) -> None:
    app = await asyncpg.connect(as_login(roles, "acme_app"))
    for table in ("email_templates", "email_suppressions", "email_deliveries"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetchval(f"select count(*) from {table}")
    await app.close()


async def test_the_daemon_may_run_its_statements(roles: str, pool: Pool) -> None:
    daemon = await asyncpg.connect(as_login(roles, "jobsd_serve"))
    statements = sql.load("email.sql")
    assert len(await daemon.fetch(statements["templates"], ["acme", "globex", ""], ["welcome"] * 3)) == 3
    assert len(await daemon.fetch(statements["suppressed"], ["acme", ""], ["jane@x.example"] * 2, [""] * 2)) == 2
    said = [{"org_id": "acme", "recipient": "bob@x.example", "said": "bounced"}]
    await daemon.execute(sql.load("ledgers.sql")["email_suppressions"], msgspec.json.encode(said).decode())
    await daemon.execute(statements["unsubscribe"], "acme", "ann@x.example", "news")
    await daemon.execute(
        "insert into email_deliveries (job_id, attempt, recipient, outcome) values (7, 1, 'a@x.example', 'delivered')"
    )
    given = (7, ["a@x.example"], ["bad_recipient"], ["5.1.1"], ["no"])
    assert len(await daemon.fetch(statements["bounced"], *given)) == 1
    await daemon.execute(statements["forget_suppressions"], 0.0, 10)
    await pool.execute(
        """insert into email_digest_items (org_id, email, item)
           select 'acme', '{"to": "a@x.example", "template": "welcome"}', to_jsonb(n) from generate_series(1, 3) as n;
           update jobs set state = 'running', gate = '', fence = 1, worker_id = 5, unique_key = null"""
    )
    job = await pool.fetchval("select id from jobs")
    digest = await pool.fetchval("select digest from email_digest_items limit 1")
    assert len(await daemon.fetch(statements["digest_take"], job, digest, "acme", 2, 1000, 1, 5)) == 2
    await daemon.execute(statements["digest_rest"], digest, 2)
    assert await pool.fetchval("select split_part(unique_key, ':', 3) from jobs where state = 'ready'") == "rest"
    await daemon.execute(sql.load("ledgers.sql")["email_digest_items"], '[{"ids": [1, 2]}]')
    await daemon.execute(statements["forget_digest_items"], 0.0, 10)
    assert await pool.fetchval("select count(*) from email_digest_items") == 1
    await daemon.close()


async def test_a_login_that_writes_templates_is_left_with_an_organisation(roles: str, pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("delete from job_org_members where role = 'acme_mail'::regrole")


_COLUMNS = {"email_templates": "name, subject, text", "email_suppressions": "recipient"}
_VALUES = {"email_templates": "'other', 's', 't'", "email_suppressions": "'ann@x.example'"}
