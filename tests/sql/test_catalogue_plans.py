"""What jobs of the config ask of large tables: a page costs a page, whatever there is beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from daemon.config import parse
from daemon.embedded import Embedded
from jobs.catalogue.ground import survey
from jobs.catalogue.kinds import CAREFUL
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.skeleton import Sql
from jobs.catalogue.verb import Bounds, Work
from jobs.cleanup.purge import passes, statement
from tests.sql.plans import Plan, explained, scratch

ROWS = 100_000
TABLES = f"""
create schema zoo;
create table zoo.visits (
    id bigint generated always as identity primary key, at timestamptz, mood text, kept boolean, org_id int
);
insert into zoo.visits (at, mood, kept)
select now() - n * interval '1 min', case n % 5 when 0 then 'cross' else 'calm' end, n % 7 = 0
from generate_series(1, {ROWS}) as n;
create index visits_at on zoo.visits (at);
create table zoo.heap (id uuid primary key default gen_random_uuid(), at timestamptz);
insert into zoo.heap (at) select at from zoo.visits;
"""
CONFIG = """
[jobs.x]
verb = "purge"
table = "zoo.{table}"
age_column = "at"
retention = "30d"
{more}
"""


@pytest.fixture(scope="module")
async def zoo(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    async with scratch(embedded_server, template, "catalogue_plans") as conn:
        await conn.execute(TABLES)
        yield conn  # nothing was analyzed: as on the day after a large import


async def planned(conn: asyncpg.Connection, table: str, more: str = "", last: list[str] | None = None) -> Plan:
    """A page of 200 rows in the middle, as a run asks for it."""
    settings: Any = parse(CONFIG.format(table=table, more=more)).jobs["x"]
    tables = await survey(conn, [settings.table])
    now = datetime.now(UTC)
    work: Work[Any] = Work(
        name="x", settings=settings, args=Bounds(), ctx=None, conn=conn, tables=tables, now=now  # type: ignore[arg-type]
    )  # fmt: skip
    await conn.execute(CAREFUL, "100ms")
    one = passes(work)[0]
    pages = Pages(work, tables[settings.table], tables[settings.table].columns["at"], one.below)
    pages.last = last
    asked: list[Page] = []

    def noted(page: Page) -> Sql:
        asked.append(page)
        return statement(work, one, page)

    text = noted(pages.page(200))
    return await explained(conn, str(text), asked[0].parameters.values)


async def test_a_page_by_age_costs_a_page(zoo: asyncpg.Connection) -> None:
    middle = [str(datetime.now(UTC) - timedelta(days=50)), "70000"]
    for more in (
        "",
        'where = { mood = "cross", kept = false }',
        'longer_where = { kept = true }\nlonger_retention = "90d"',
    ):
        plan = await planned(zoo, "visits", more, middle)
        assert not plan.scanned("visits"), more
        assert {"visits_at", "visits_pkey"} <= plan.indexes
        assert plan.buffers < 200 * 12, f"{plan.buffers} pages of 8 KiB for 200 rows, each found, locked and deleted"


async def test_a_page_by_key_costs_a_page(zoo: asyncpg.Connection) -> None:
    plan = await planned(zoo, "heap", last=["80000000-0000-0000-0000-000000000000"])
    assert not plan.scanned("heap")
    assert plan.indexes == {"heap_pkey"}
    assert plan.buffers < 200 * 12
