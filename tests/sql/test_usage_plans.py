"""What roll-ups and thresholds ask of large tables: what is new, and the rows of a bucket or a period, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from daemon.config import parse
from daemon.embedded import Embedded
from daemon.sample import Filling, fill
from jobs.catalogue.ground import survey
from jobs.catalogue.kinds import CAREFUL
from jobs.catalogue.pages import Page, Pages
from jobs.catalogue.skeleton import Parameters, Sql
from jobs.catalogue.verb import Work
from jobs.usage.rollup import sums_of
from jobs.usage.threshold import Look
from tests.sql.plans import explained, pages
from tests.sql.sampled import NOW, sampled

ROWS = 60_000
CONFIG = """
[jobs.daily]
verb = "rollup"
source = "app.bandwidth"
into = "app.bandwidth_daily"
by = ["account_id"]
time_column = "happened_at"
arrived_column = "recorded_at"
bucket_column = "day"
sums = { bytes_used = "bytes", emails = "emails" }
[jobs.weekly]
verb = "rollup"
source = "app.bandwidth_daily"
into = "app.bandwidth_weekly"
by = ["account_id"]
time_column = "day"
arrived_column = "computed_at"
bucket = "week"
bucket_column = "week"
sums = { bytes_used = "bytes_used", emails = "emails" }
[jobs.usage]
verb = "threshold"
cycles = "app.usage_cycles"
allowed_column = "bytes"
usage = "app.bandwidth"
by = "account_id"
time_column = "happened_at"
used_column = "bytes"
events = "app.usage_events"
event_columns = { cycle_id = "id", account_id = "account_id", threshold = "@threshold", used = "@used", allowed = "=1" }
email_column = "email"
email_from = "usage@shop.example"
[jobs.usage_by_day]
verb = "threshold"
cycles = "app.usage_cycles"
allowed_column = "bytes"
usage = "app.bandwidth_daily"
by = "account_id"
time_column = "day"
used_column = "bytes_used"
events = "app.usage_events"
event_columns = { cycle_id = "id", account_id = "account_id", threshold = "@threshold", used = "@used", allowed = "=1" }
"""
DAYS = """
insert into app.bandwidth_daily (account_id, day, bytes_used, emails, computed_at)
select id, '{day}'::date - n, 1000 + n, 7, '{day}'::date - n + interval '1 day'
from generate_series(1, 90) as n, app.accounts"""
NEARLY_THE_LAST = """
select ends_at::text, id::text from app.billing_cycles where ends_at > $1
order by ends_at desc, id desc offset 60 limit 1"""
# in the order of days, so that the index by day is the smaller one
A_DAY_EACH = """
insert into app.bandwidth_daily (account_id, day, bytes_used, emails, computed_at)
select md5(n::text)::uuid, '{day}'::date - 27 + n / 2000, 1000, 7, '{day}'::date - 26 + n / 2000
from generate_series(0, 53999) as n"""


@pytest.fixture(scope="module")
async def filled(embedded_server: Embedded, template: str) -> AsyncIterator[asyncpg.Connection]:
    async with sampled(embedded_server, template, "usage_plans") as conn:
        await fill(conn, Filling(ROWS, now=NOW))
        await conn.execute(CAREFUL, "100ms")
        yield conn


async def work(conn: asyncpg.Connection, name: str) -> Work[Any]:
    settings: Any = parse(CONFIG).jobs[name]
    names = (
        [settings.source, settings.into]
        if settings.verb == "rollup"
        else [settings.cycles, settings.usage, settings.events]
    )  # fmt: skip
    return Work(
        name=name, settings=settings, args=None, ctx=None, conn=conn, tables=await survey(conn, names), now=NOW  # type: ignore[arg-type]
    )  # fmt: skip


async def test_what_has_come_is_read_by_the_index_of_arrivals(filled: asyncpg.Connection) -> None:
    wanted = await work(filled, "daily")
    sums = sums_of(wanted)
    age = sums.source.columns["recorded_at"]
    pages = Pages(wanted, sums.source, age, since=NOW - timedelta(days=1), more=sums.lands)
    asked: list[Page] = []

    def noted(page: Page) -> Sql:
        asked.append(page)
        return sums.touched(NOW - timedelta(days=400))(page)

    text = noted(pages.page(100))
    plan = await explained(filled, str(text), asked[0].parameters.values)
    assert not plan.scanned("bandwidth")
    assert plan.indexes == {"bandwidth_recorded"}
    assert plan.buffers < 100 * 3


async def test_a_bucket_costs_its_rows(filled: asyncpg.Connection) -> None:
    sums = sums_of(await work(filled, "daily"))
    rows = await filled.fetch("select account_id::text, happened_at::date::text from app.bandwidth limit 50")
    parameters = Parameters(NOW)
    text = sums.write([(row[0], row[1]) for row in rows], parameters)
    plan = await explained(filled, str(text), parameters.values)
    assert not plan.scanned("bandwidth")
    assert "bandwidth_account" in plan.indexes
    assert "bandwidth_daily_pkey" in plan.indexes or not plan.scanned("bandwidth_daily")
    assert plan.buffers < 50 * 100


async def test_a_page_of_periods_costs_their_usage(filled: asyncpg.Connection) -> None:
    look = Look(await work(filled, "usage"))
    parameters = Parameters(NOW)
    text = look.emit(50, parameters)
    plan = await explained(filled, str(text), parameters.values)
    assert not plan.scanned("bandwidth")
    assert not plan.scanned("billing_cycles")
    assert not plan.scanned("usage_events"), "whether a higher threshold was told of"
    assert {"billing_cycles_ends", "bandwidth_account"} <= plan.indexes


async def test_the_last_page_of_periods_reads_none_of_those_before(filled: asyncpg.Connection) -> None:
    look = Look(await work(filled, "usage"))
    row = await filled.fetchrow(NEARLY_THE_LAST, NOW)
    assert row is not None
    look.last = list(row)
    parameters = Parameters(NOW)
    plan = await explained(filled, str(look.emit(50, parameters)), parameters.values)
    (read,) = (pages(node) for node in plan.nodes if node.get("Index Name") == "billing_cycles_ends")
    assert read <= 3, "the root, a leaf, and where the rows lie"


async def test_what_stands_is_read_by_its_key(filled: asyncpg.Connection) -> None:
    wanted = await work(filled, "daily")
    sums = sums_of(wanted)
    asked: list[Page] = []

    def noted(page: Page) -> Sql:
        asked.append(page)
        return sums.touched(NOW - timedelta(days=400))(page)

    text = noted(Pages(wanted, sums.into, more=sums.stands).page(100))
    plan = await explained(filled, str(text), asked[0].parameters.values)
    assert plan.indexes == {"bandwidth_daily_pkey"}


async def test_days_of_a_period_are_found_by_its_owner_and_not_one_by_one(filled: asyncpg.Connection) -> None:
    """An index by day and owner, which old days are purged by, would be asked for each of thirty days; whether an owner
    has ninety days, or one of these as in a young table."""
    await filled.execute("set session_replication_role = replica")  # owners that are nobody's accounts will do
    for days in (DAYS, A_DAY_EACH):
        await filled.execute("truncate app.bandwidth_daily")
        await filled.execute(days.format(day=NOW.date()))
        await filled.execute("analyze app.bandwidth_daily")
        parameters = Parameters(NOW)
        text = Look(await work(filled, "usage_by_day")).emit(200, parameters)
        plan = await explained(filled, str(text), parameters.values)
        assert "bandwidth_daily_pkey" in plan.indexes
        assert "bandwidth_daily_day" not in plan.indexes
        weeks = await filled.fetch(
            "select account_id::text, date_trunc('week', day)::date::text from app.bandwidth_daily limit 200"
        )
        parameters = Parameters(NOW)
        text = sums_of(await work(filled, "weekly")).write([(row[0], row[1]) for row in weeks], parameters)
        plan = await explained(filled, str(text), parameters.values)
        assert "bandwidth_daily_pkey" in plan.indexes
        assert "bandwidth_daily_day" not in plan.indexes
    await filled.execute("reset session_replication_role")
