"""What verbs ask that keep a table of somebody's in step with one of ours: a page costs a page on both sides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
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
from jobs.catalogue.verbs import VERBS
from jobs.upkeep import forward_retry, verify_domains
from tests.sql.plans import Plan, explained, scratch

ROWS = 40_000
PAGE = 200
TABLES = f"""
create schema zoo;
create table zoo.sites (id bigint generated always as identity primary key, house text, host text, dns text);
create table zoo.letters (
    id bigint generated always as identity primary key, sender text, "to" text, raw bytea, failed_at timestamptz,
    forward bigint, over_at timestamptz
);
insert into zoo.sites (house, host) select 'h' || n % 100, 's' || n || '.example' from generate_series(1, {ROWS}) as n;
alter table domains disable trigger domains_arrived;
insert into domains (org_id, domain, token, registered_by, registered_key)
select house, host, 'abcdefghijklmnopqrstuvwxyz', 'x', array[id::text] from zoo.sites;
alter table email_forwards disable trigger email_forwards_insert;
insert into email_forwards (sender, recipients, raw, state, ended_at)
select '', '{{j@y.example}}', 'x', 'failed', now() from generate_series(1, {ROWS});
insert into zoo.letters (sender, "to", raw, failed_at, forward)
select 'a@x.example', 'j@y.example', 'x', now() - n * interval '1 min', case when n % 2 = 0 then n end
from generate_series(1, {ROWS}) as n;
create index letters_failed_at on zoo.letters (failed_at);
"""
SITES = """
[jobs.x]
verb = "verify_domains"
table = "zoo.sites"
name_column = "host"
org_column = "house"
state_column = "dns"
"""
LETTERS = """
[jobs.x]
verb = "forward_retry"
table = "zoo.letters"
sender_column = "sender"
recipient_column = "to"
raw_column = "raw"
failed_at_column = "failed_at"
forward_column = "forward"
ended_column = "over_at"
"""


@pytest.fixture(scope="module")
async def zoo(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    async with scratch(embedded_server, template, "upkeep_verb_plans") as conn:
        await conn.execute(TABLES)
        yield conn  # nothing was analyzed: as on the day after a large import


async def planned(
    conn: asyncpg.Connection, config: str, about: str, part: Callable[[Work[Any], Page], Sql], last: list[str]
) -> Plan:
    """A page in the middle of the table `about`."""
    settings: Any = parse(config).jobs["x"]
    tables = await survey(conn, tables_of(VERBS[settings.verb].needs(settings)))
    work: Work[Any] = Work(
        name="x", settings=settings, args=Bounds(), ctx=None, conn=conn, tables=tables, now=datetime.now(UTC)  # type: ignore[arg-type]
    )  # fmt: skip
    await conn.execute(CAREFUL, "100ms")
    table = tables[about]
    by_age = len(last) > 1
    pages = Pages(work, table, table.columns["failed_at"] if by_age else None, work.now if by_age else None)
    pages.last = last
    page = pages.page(PAGE)
    return await explained(conn, str(partial(part, work)(page)), page.parameters.values)


@pytest.mark.parametrize(
    ("about", "part", "rows"),
    [
        ("zoo.sites", verify_domains._register, 25),
        ("domains", verify_domains._remove, 12),
        ("zoo.sites", verify_domains._tell, 25),
    ],
)
async def test_a_page_of_names_costs_a_page(zoo: asyncpg.Connection, about: str, part: Any, rows: int) -> None:
    plan = await planned(zoo, SITES, about, part, ["20000"])
    assert not any(plan.scanned(table) for table in ("sites", "domains"))
    assert plan.buffers < PAGE * rows


@pytest.mark.parametrize(("part", "rows"), [(forward_retry._hand_over, 25), (forward_retry._tell, 25)])
async def test_a_page_of_forwards_costs_a_page(zoo: asyncpg.Connection, part: Any, rows: int) -> None:
    middle = await zoo.fetchrow("select failed_at::text, id::text from zoo.letters where id = 20000")
    assert middle is not None
    plan = await planned(zoo, LETTERS, "zoo.letters", part, list(middle))
    assert not any(plan.scanned(table) for table in ("letters", "email_forwards"))
    assert plan.buffers < PAGE * rows
