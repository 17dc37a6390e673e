"""Somebody's own calls and sums, and a plain model of what they come to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg

from jobs.testing import Queue, queue

TABLES = """
create schema shop;
create table shop.calls (
    id bigint generated always as identity primary key,
    customer text, region int, ms int, at timestamptz, came timestamptz default now()
);
create index on shop.calls (came, id);
create index on shop.calls (customer, at);
create table shop.daily (
    customer text, region int, day date, ms bigint not null, calls int not null, changed timestamptz,
    primary key (customer, region, day)
);
create table shop.weekly (customer text, week date, ms numeric not null, primary key (customer, week));
create index on shop.daily (changed, customer, region, day);
create index on shop.daily (day);
"""
DAILY = """
[jobs.daily]
verb = "rollup"
source = "shop.calls"
into = "shop.daily"
by = ["customer", "region"]
time_column = "at"
arrived_column = "came"
bucket_column = "day"
sums = { ms = "ms" }
count_column = "calls"
"""
WEEKLY = """
[jobs.weekly]
verb = "rollup"
source = "shop.daily"
into = "shop.weekly"
by = ["customer"]
time_column = "day"
arrived_column = "changed"
bucket = "week"
bucket_column = "week"
sums = { ms = "ms" }
"""
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)

Call = tuple[str | None, int, int, datetime]
"""Customer, region, milliseconds, when."""


@asynccontextmanager
async def shop(config: str = DAILY) -> AsyncIterator[Queue]:
    async with queue(schema=TABLES, config=config, handlers=[], start=NOW) as made:
        yield made


async def call(conn: Any, calls: Sequence[Call]) -> None:
    """Rows that came now, whenever they happened."""
    await conn.executemany("insert into shop.calls (customer, region, ms, at) values ($1, $2, $3, $4)", calls)


async def run(queue: Queue, name: str = "daily", args: dict[str, Any] | None = None) -> Any:
    await queue.enqueue(name, args)
    ran = (await queue.drain(raise_errors=True)).one()
    assert ran.outcome == "done", ran
    return ran.result


async def daily(pool: asyncpg.Pool) -> dict[tuple[str, int, date], tuple[int, int]]:
    rows = await pool.fetch("select customer, region, day, ms, calls from shop.daily")
    return {(row[0], row[1], row[2]): (row[3], row[4]) for row in rows}


def model(calls: Sequence[Call], zone: str = "UTC") -> dict[tuple[str, int, date], tuple[int, int]]:
    """What they come to."""
    ms: Counter[tuple[str, int, date]] = Counter()
    count: Counter[tuple[str, int, date]] = Counter()
    for customer, region, took, at in calls:
        if customer is not None:
            bucket = customer, region, at.astimezone(ZoneInfo(zone)).date()
            ms[bucket] += took
            count[bucket] += 1
    return {bucket: (ms[bucket], count[bucket]) for bucket in count}


def weeks(days: dict[tuple[str, int, date], tuple[int, int]]) -> dict[tuple[str, date], int]:
    found: defaultdict[tuple[str, date], int] = defaultdict(int)
    for (customer, _region, day), (ms, _count) in days.items():
        found[customer, day - timedelta(days=day.weekday())] += ms
    return dict(found)
