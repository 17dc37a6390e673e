"""What an erasure and an export ask: each statement of a whole run costs what it is about, however much there is beside
it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

import sql
from daemon.config import parse
from daemon.embedded import Embedded
from daemon.sample import TABLES, Filling, fill
from jobs.catalogue.kinds import CAREFUL, look
from jobs.catalogue.verb import Bounds, Work
from jobs.catalogue.verbs import VERBS
from jobs.secrets import Secrets
from jobs.storage.settings import StorageSettings
from jobs.storage.storage import Storage
from jobs.values import Secret
from tests.sql.plans import Plan, explained
from tests.sql.sampled import NOW, sampled

ROWS = 30_000
BESIDE = 10_000
"""Accounts and requests that no run is about."""

LINKED = StorageSettings(public_url="https://shop.example", link_secrets=(Secret("a secret that is long enough"),))
OTHERS = """
insert into app.accounts (id, org_id, email)
select gen_random_uuid(), (select min(id) from app.organisations), 'beside' || n || '@x.example'
from generate_series(1, $1::int) as n"""
REQUESTS = """
insert into app.exports (account_id, state) select id, 'failed' from app.accounts where email like 'beside%'"""
SESSIONS = """
insert into app.sessions (account_id, token_hash, expires_at, last_seen_at)
select id, sha256(id::text::bytea), now() + interval '1 day', now() from app.accounts where email like 'beside%'"""
MOST = """select account_id from app.messages as m join app.accounts as a on a.id = m.account_id
where a.deleted_at is null group by 1 order by count(*) desc limit 1"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement as it was asked, and what it came to."""

    text: str
    values: Sequence[Any]
    plan: Plan

    @property
    def rows(self) -> int:
        """That it was given, or has found or changed: of a page the limit is no more than a wish."""
        given = [len(value) for value in self.values if isinstance(value, list)]
        parts = [node for node in self.plan.nodes if node.get("Subplan Name", "").startswith("CTE ")]
        return max([*given, *(int(node["Actual Rows"]) for node in (self.plan.nodes[0], *parts))])


@dataclass(slots=True)
class Watched:
    """A connection that has each statement explained, and undone, before it is asked."""

    conn: asyncpg.Connection
    asked: list[Asked] = field(default_factory=list)

    async def _explained(self, text: str, values: Sequence[Any]) -> None:
        self.asked.append(Asked(text, values, await explained(self.conn, text, values)))

    async def fetch(self, text: str, *values: Any) -> Any:
        await self._explained(text, values)
        return await self.conn.fetch(text, *values)

    async def fetchrow(self, text: str, *values: Any) -> Any:
        await self._explained(text, values)
        return await self.conn.fetchrow(text, *values)

    async def fetchval(self, text: str, *values: Any) -> Any:
        await self._explained(text, values)
        return await self.conn.fetchval(text, *values)

    async def execute(self, text: str, *values: Any) -> Any:
        await self._explained(text, values)
        return await self.conn.execute(text, *values)

    async def cursor(self, text: str, *values: Any) -> Any:
        await self._explained(text, values)
        return await self.conn.cursor(text, *values)

    def transaction(self, **how: Any) -> Any:
        return self.conn.transaction(**how)


@pytest.fixture(scope="module")
async def filled(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    async with sampled(embedded_server, template, "accounts_plans") as conn:
        await fill(conn, Filling(ROWS, now=NOW))
        await conn.execute(OTHERS, BESIDE)
        await conn.execute(REQUESTS)
        await conn.execute(SESSIONS)
        await conn.execute("analyze app.accounts; analyze app.exports; analyze app.sessions")
        yield conn


async def ran(conn: asyncpg.Connection, name: str, storage: Path) -> list[Asked]:
    """Every statement of a run, but for what it asks of Postgres's own catalogue."""
    settings: Any = parse(sql.text("reference/jobs.toml")).jobs[name]
    found = await look(conn, settings)
    assert (found.reason, found.advice) == (None, ())
    await conn.execute(CAREFUL, "100ms")
    watched = Watched(conn)

    async def progress(_percent: float, **_fields: Any) -> None: ...

    ctx: Any = SimpleNamespace(progress=progress, storage=Storage(LINKED, storage, Secrets(())))
    conn_: Any = watched
    work: Work[Any] = Work(
        name=name, settings=settings, args=Bounds(), ctx=ctx, conn=conn_, tables=found.tables, now=NOW
    )
    await VERBS[settings.verb].run(work)
    return [one for one in watched.asked if not any(word in one.text for word in (" pg_", "set_config", "into jobs"))]


def dear(asked: Sequence[Asked], each: int) -> list[str]:
    """Statements that cost more than so many pages of 8 KiB for each row, or read a table through.  A hundred are free:
    rows that were deleted a moment ago are walked over."""
    return [
        f"{one.plan.buffers} pages for {one.rows} rows: {one.text}"
        for one in asked
        if one.plan.buffers > 100 + each * one.rows or any(one.plan.scanned(table) for table in TABLES)
    ]


async def test_an_export_reads_what_is_the_accounts(filled: asyncpg.Connection, tmp_path: Path) -> None:
    account = await filled.fetchval(MOST)
    await filled.execute("update app.exports set state = 'failed' where state in ('wanted', 'running')")
    await filled.execute("insert into app.exports (account_id) values ($1)", account)
    asked = await ran(filled, "account_export", tmp_path)
    assert len([one for one in asked if "row_to_json" in one.text]) > 15
    assert dear(asked, 8) == []


async def test_an_erasure_reads_what_is_deleted_and_no_more(filled: asyncpg.Connection, tmp_path: Path) -> None:
    account = await filled.fetchval(MOST)
    await filled.execute("update app.accounts set deleted_at = $2 where id = $1", account, NOW)
    await filled.execute("update app.exports set state = 'failed' where account_id = $1", account)
    asked = await ran(filled, "account_erasure", tmp_path)
    assert len([one for one in asked if "delete from" in one.text]) > 30
    assert dear(asked, 16) == []
