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
from jobs.catalogue.needs import tables_of
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.skeleton import Sql
from jobs.catalogue.verb import Bounds, Work
from jobs.cleanup.doom import passes
from jobs.cleanup.purge import statement
from jobs.cleanup.purge_settings import needs
from tests.sql.plans import Plan, explained, scratch

ROWS = 100_000
TABLES = f"""
create schema zoo;
create table zoo.visits (
    id bigint generated always as identity primary key, at timestamptz, mood text, kept boolean, org_id int
);
insert into zoo.visits (at, mood, kept, org_id)
select now() - n * interval '1 min', case n % 5 when 0 then 'cross' else 'calm' end, n % 7 = 0, 1 + n % 5000
from generate_series(1, {ROWS}) as n;
create index visits_at on zoo.visits (at);
create table zoo.keepers (id int primary key, email text, keep interval);
insert into zoo.keepers
select n, 'k' || n, case when n % 20 = 0 then interval '60 days' end from generate_series(1, 5000) as n;
create table zoo.details (visit bigint primary key, what text);
insert into zoo.details select id, 'x' from zoo.visits where id % 3 = 0;
create table zoo.sums (org_id int, day date, n bigint, primary key (org_id, day));
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
    tables = await survey(conn, tables_of(needs(settings)))
    now = datetime.now(UTC)
    work: Work[Any] = Work(
        name="x", settings=settings, args=Bounds(), ctx=None, conn=conn, tables=tables, now=now  # type: ignore[arg-type]
    )  # fmt: skip
    await conn.execute(CAREFUL, "100ms")
    one = (await passes(work))[0]
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


OWNED = 'owner_column = "org_id"\nowner_table = "zoo.keepers"\nowner_retention = "keep"\n'
SUMS = 'totals_table = "zoo.sums"\ntotals_by = { org_id = "org_id", day = "day:at" }\ntotals_count = "n"\n'


@pytest.mark.parametrize(
    ("more", "indexes"),
    [
        (OWNED, {"keepers_pkey"}),
        ('together = { "zoo.details" = "visit" }\n', {"details_pkey"}),
        (OWNED + SUMS, {"keepers_pkey"}),
        ('parent_table = "zoo.keepers"\nparent_column = "org_id"\n', {"keepers_pkey"}),
    ],
)
async def test_what_goes_with_a_page_is_found_by_its_indexes(
    zoo: asyncpg.Connection, more: str, indexes: set[str]
) -> None:
    plan = await planned(zoo, "visits", more, [str(datetime.now(UTC) - timedelta(days=50)), "70000"])
    assert not any(plan.scanned(table) for table in ("visits", "keepers", "details"))
    assert indexes <= plan.indexes
    assert plan.buffers < 200 * 25
