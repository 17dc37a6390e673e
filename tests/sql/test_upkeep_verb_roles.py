"""Verbs that write to tables of ours may do so with the daemon's role, and nobody else's may do what they do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from daemon.config import parse
from jobs.catalogue.kinds import look
from jobs.catalogue.verb import Bounds, Work
from jobs.catalogue.verbs import VERBS
from tests.sql.logins import as_login, roles_in
from tests.sql.rows import Pool
from tests.sql.test_upkeep_verb_plans import LETTERS, SITES

pytestmark = [pytest.mark.req("AS-09"), pytest.mark.req("BJ-20"), pytest.mark.req("BJ-03")]

TABLES = """
create schema zoo;
create table zoo.sites (id bigint generated always as identity primary key, house text, host text, dns text);
create table zoo.letters (
    id bigint generated always as identity primary key, sender text, "to" text, raw bytea, failed_at timestamptz,
    forward bigint, over_at timestamptz
);
insert into zoo.sites (house, host) values ('acme', 'a.example'), ('globex', 'a.example');
insert into domains (org_id, domain, registered_by, registered_key) values ('acme', 'old.example', 'x', '{77}');
insert into zoo.letters (sender, "to", raw, failed_at) values ('', 'j@y.example', 'x', now() - interval '2 h');
grant usage on schema zoo to jobsd_daemon;
grant select, update on all tables in schema zoo to jobsd_daemon;
"""


@pytest.fixture
async def roles(database: str) -> AsyncIterator[str]:
    async with roles_in(database):
        yield database


async def run(conn: asyncpg.Connection, config: str) -> Any:
    """The job as the daemon would run it on this connection."""
    settings: Any = parse(config).jobs["x"]
    found = await look(conn, settings)
    assert found.reason is None, found.reason

    async def progress(_percent: float, **_fields: Any) -> None:
        pass

    ctx: Any = SimpleNamespace(progress=progress)
    now = await conn.fetchval("select now()")
    work: Work[Any] = Work(
        name="x", settings=settings, args=Bounds(), ctx=ctx, conn=conn, tables=found.tables, now=now + timedelta()
    )
    return await VERBS[settings.verb].run(work)


async def test_the_daemons_role_may_do_what_they_do(roles: str, pool: Pool) -> None:
    await pool.execute(TABLES)
    daemon = await asyncpg.connect(as_login(roles, "jobsd_serve"))
    said = await run(daemon, SITES)
    assert (said["registered"], said["removed"], said["told"]) == (2, 1, 2)
    assert (await run(daemon, LETTERS))["handed"] == 1
    await daemon.close()
    for login in ("acme_app", "jobsd_ann", "jobsd_bob"):
        other = await asyncpg.connect(as_login(roles, login))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await other.fetchval("select email_forward_number()")
        await other.close()
