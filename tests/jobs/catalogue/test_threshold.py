"""`threshold`: who has used a good part of his plan is told once for each threshold and cycle, and nobody else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config import parse
from jobs.catalogue.ground import survey
from jobs.catalogue.kinds import look as advised
from jobs.catalogue.verb import Work
from jobs.model import Done
from jobs.testing import Queue, queue
from jobs.usage.threshold import Nothing
from jobs.usage.threshold import run as look
from tests.jobs.catalogue.house import killed_everywhere, rehearsed, whole

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
TABLES = """
create schema shop;
create table shop.cycles (
    id bigint generated always as identity primary key, customer text not null, quota bigint,
    starts_at timestamptz not null, ends_at timestamptz not null, email text, org text
);
create index on shop.cycles (ends_at, id);
create table shop.calls (customer text not null, ms bigint not null, at timestamptz not null);
create index on shop.calls (customer, at);
create table shop.alarms (
    id bigint generated always as identity primary key, cycle bigint not null references shop.cycles,
    percent smallint not null, used bigint, at timestamptz, unique (cycle, percent)
);
create table shop.bell (customer text not null, kind text not null, body jsonb not null, at timestamptz default now());
"""
CONFIG = """
[jobs.usage]
verb = "threshold"
cycles = "shop.cycles"
allowed_column = "quota"
usage = "shop.calls"
by = "customer"
time_column = "at"
used_column = "ms"
events = "shop.alarms"
event_columns = { cycle = "id", percent = "@threshold", used = "@used", at = "@now" }
"""
TELLING = """
notify = "shop.bell"
notify_columns = { customer = "customer", kind = "=usage", body = "@event" }
email_column = "email"
org_column = "org"
email_subject = "{threshold} % of your plan"
email_text = "You have used {used} of {allowed} ({percent} %)."
email_from = "Shop <usage@shop.example>"
"""


@dataclass(frozen=True)
class Cycle:
    customer: str
    quota: int | None
    starts: datetime
    ends: datetime


@asynccontextmanager
async def shop(config: str = CONFIG, start: datetime | None = NOW) -> AsyncIterator[Queue]:
    async with queue(schema=TABLES, config=config, handlers=["jobs.email.handler"], start=start) as made:
        yield made


async def cycle(queue: Queue, customer: str, *, quota: int | None = 1000, over: float = 0.5, **more: Any) -> int:
    """One of thirty days of which this share is over."""
    starts = queue.clock.now - timedelta(days=30 * over)
    found: int = await queue.pool.fetchval(
        "insert into shop.cycles (customer, quota, starts_at, ends_at, email, org) values ($1, $2, $3, $4, $5, $6) "
        "returning id",
        *(customer, quota, starts, starts + timedelta(days=30), more.get("email"), more.get("org")),
    )
    return found


async def use(queue: Queue, customer: str, ms: int, ago: timedelta = timedelta(hours=1)) -> None:
    await queue.pool.execute("insert into shop.calls values ($1, $2, $3)", customer, ms, queue.clock.now - ago)


async def run(queue: Queue) -> Any:
    job = await queue.enqueue("usage")
    ran = next(one for one in await queue.drain(raise_errors=True) if one.id == job)
    assert ran.outcome == "done", ran
    return ran.result


async def alarms(pool: asyncpg.Pool) -> list[tuple[int, int]]:
    return [(row[0], row[1]) for row in await pool.fetch("select cycle, percent from shop.alarms order by 1, 2")]


def crossed(
    cycle: Cycle,
    used: int,
    now: datetime,
    thresholds: Iterable[int] = (60, 70, 80, 100),
    start: Fraction = Fraction(1, 4),
) -> set[int]:
    """The plain model: what an honest man would work out on paper."""
    length = (cycle.ends - cycle.starts) / timedelta(microseconds=1)
    over = Fraction(int((min(now, cycle.ends) - cycle.starts) / timedelta(microseconds=1)), int(length))
    return {
        t
        for t in thresholds
        if cycle.quota is not None
        and used > 0
        and used >= cycle.quota * Fraction(t, 100) * (max(over, start) if t < 100 else 1)
    }


@pytest.mark.req("BJ-11")
async def test_thresholds_slide_with_the_cycle_and_the_last_does_not() -> None:
    async with shop() as queue:
        even, much, all_, over = [await cycle(queue, name) for name in ("even", "much", "all", "over")]
        unlimited = await cycle(queue, "unlimited", quota=None)
        early = await cycle(queue, "early", over=0.01)
        for name, ms in {"even": 299, "much": 350, "all": 400, "over": 1000, "unlimited": 10**15, "early": 149}.items():
            await use(queue, name, ms)
        assert (await run(queue))["events"] == 2 + 3 + 4
        found = await alarms(queue.pool)
        assert found == [
            (much, 60),
            (much, 70),
            *((all_, t) for t in (60, 70, 80)),
            *((over, t) for t in (60, 70, 80, 100)),
        ]
        assert {even, unlimited, early}.isdisjoint({one for one, _ in found})
        await use(queue, "early", 1)
        assert (await run(queue))["events"] == 1, "150 of 1000 is 60 % of a quarter"


async def test_without_sliding_it_is_the_whole_plan() -> None:
    async with shop(CONFIG + "sliding = false\nthresholds = [50, 200]\n") as queue:
        one = await cycle(queue, "ann", over=0.1)
        await use(queue, "ann", 499)
        assert (await run(queue))["events"] == 0
        await use(queue, "ann", 1501)
        await run(queue)
        assert await alarms(queue.pool) == [(one, 50), (one, 200)]


@pytest.mark.req("BJ-11")
async def test_an_event_is_told_in_the_bell_each_time_and_by_mail_of_the_highest() -> None:
    async with shop(CONFIG + TELLING) as queue:
        await cycle(queue, "ann", email="ann@shop.example", org="acme")
        await cycle(queue, "bob")
        await use(queue, "ann", 750)
        await use(queue, "bob", 2000)
        said = await run(queue)
        assert (said["events"], said["notified"], said["mailed"]) == (7, 7, 1)
        bell = await queue.pool.fetch("select customer, body ->> 'threshold' from shop.bell order by 1, 2::int")
        assert sum(row[0] == "ann" for row in bell) == 3
        (mail,) = queue.mail.outbox
        assert (mail.message["subject"], mail.recipients) == ("80 % of your plan", ("ann@shop.example",))
        assert mail.message["from"] == "Shop <usage@shop.example>"
        assert "You have used 750 of 1000 (75 %)." in mail.message.get_content()
        assert (await run(queue))["mailed"] == 0
        await use(queue, "ann", 250)
        assert (await run(queue))["mailed"] == 1
        assert queue.mail.outbox[-1].message["subject"] == "100 % of your plan"


@pytest.mark.req("BJ-11")
async def test_usage_counts_in_its_own_cycle_and_late_usage_after_its_end() -> None:
    async with shop(CONFIG) as queue:
        old, new = await cycle(queue, "ann", over=1.03), await cycle(queue, "ann", over=0.03)
        gone = await cycle(queue, "ann", over=2.1)
        await use(queue, "ann", 1000, timedelta(days=0.03 * 30, seconds=1))
        await run(queue)
        assert {one for one, _ in await alarms(queue.pool)} == {old}, "the grace of two days"
        await use(queue, "ann", 1000, timedelta(days=0.03 * 30))
        await run(queue)
        assert {one for one, _ in await alarms(queue.pool)} == {old, new}
        assert gone not in {one for one, _ in await alarms(queue.pool)}


async def test_a_period_of_days_a_view_and_a_counter_of_its_own_will_do() -> None:
    config = """
[jobs.usage]
verb = "threshold"
cycles = "shop.months"
key_column = "month"
starts_column = "first"
ends_column = "next"
allowed_column = "quota"
used_column = "used"
usage_timezone = "Europe/Berlin"
events = "shop.warned"
event_columns = { month = "month", percent = "@threshold", share = "@percent" }
[jobs.days]
verb = "threshold"
cycles = "shop.months"
key_column = "month"
starts_column = "first"
ends_column = "next"
allowed_column = "quota"
usage = "shop.used"
by = "month"
time_column = "day"
used_column = "n"
events = "shop.told"
event_columns = { month = "month", percent = "@threshold" }
"""
    async with shop(config) as queue:
        await queue.pool.execute("""
            create table shop.rows (month text, quota int, used numeric);
            create view shop.months as
            select month, quota, used, date '2026-06-16' as first, date '2026-07-16' as next from shop.rows;
            create table shop.warned (month text, percent int, share numeric, unique (percent, month));
            create table shop.told (month text, percent int, unique (month, percent));
            create table shop.used (month text, day date, n int);
            insert into shop.rows values ('a', 100, 99.5), ('b', 100, 20), ('c', 100, 0);
            insert into shop.used
            select m, date '2026-06-15' + n, 10 from generate_series(0, 31) as n, unnest('{a,z}'::text[]) as m
        """)
        await run(queue)
        warned = await queue.pool.fetch("select month, percent, share from shop.warned order by 1, 2")
        assert [tuple(row) for row in warned] == [("a", 60, 99), ("a", 70, 99), ("a", 80, 99)]
        await queue.enqueue("days")
        await queue.drain(raise_errors=True)
        told = await queue.pool.fetch("select month, percent from shop.told order by 2")
        assert [tuple(row) for row in told] == [("a", 60), ("a", 70), ("a", 80), ("a", 100)]


CUSTOMERS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(1, 50)),  # quota
        st.integers(0, 40 * 24),  # hours since its beginning
        st.integers(1, 40),  # days it takes
        st.lists(st.tuples(st.integers(0, 60 * 24), st.integers(0, 12)), max_size=6),  # hours ago, amount
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Queue]:
    async with shop(CONFIG + 'batch = 3\npause = "0"\n') as queue:
        yield queue


@pytest.mark.req("BJ-11")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(customers=CUSTOMERS, steps=st.lists(st.integers(1, 200), min_size=1, max_size=3))
async def test_events_are_exactly_the_crossings_that_a_plain_model_finds(
    shared: Queue, customers: list[Any], steps: list[int]
) -> None:
    await shared.pool.execute("truncate shop.cycles, shop.calls, shop.alarms, shop.bell restart identity")
    now = shared.clock.now
    cycles, calls = [], []
    for n, (quota, hours, days, used) in enumerate(customers):
        starts = now - timedelta(hours=hours)
        cycles.append(Cycle(f"c{n}", quota, starts, starts + timedelta(days=days)))
        calls += [(f"c{n}", amount, now - timedelta(hours=ago)) for ago, amount in used]
    await shared.pool.executemany(
        "insert into shop.cycles (customer, quota, starts_at, ends_at) values ($1, $2, $3, $4)",
        [(c.customer, c.quota, c.starts, c.ends) for c in cycles],
    )
    await shared.pool.executemany("insert into shop.calls values ($1, $2, $3)", calls)
    expected: set[tuple[int, int]] = set()
    for hours in steps:
        await run(shared)
        for number, one in enumerate(cycles, start=1):
            if one.starts <= now < one.ends + timedelta(days=2):
                mine = sum(ms for customer, ms, at in calls if customer == one.customer and one.starts <= at < one.ends)
                expected |= {(number, t) for t in crossed(one, mine, now)}
        assert set(await alarms(shared.pool)) == expected
        now = await shared.clock.advance(f"{hours}h")


@pytest.mark.req("BJ-11")
@pytest.mark.req("BJ-27")
async def test_twenty_at_once_make_one_event_and_tell_it_once() -> None:
    config = CONFIG + TELLING + 'batch = 50\npause = "0"\n'
    async with shop(config) as queue:
        for n in range(60):
            await cycle(queue, f"c{n}", email=f"c{n}@shop.example")
            await use(queue, f"c{n}", 2000)
        said = await asyncio.gather(*(_alone(queue, config) for _ in range(20)))
        assert sum(one["events"] for one in said) == 240
        assert len(await alarms(queue.pool)) == 240
        assert await queue.pool.fetchval("select count(*) from shop.bell") == 240
        mails = await queue.pool.fetchval("select count(*) from jobs where kind = 'email'")
        assert mails == sum(one["mailed"] for one in said)
        assert mails == 60, "who waited for another's event has no mail to send"


async def _alone(queue: Queue, config: str) -> Any:
    """A run that no lock keeps from the others."""
    conn = await asyncpg.connect(queue.dsn)
    wanted: Any = parse(config).jobs["usage"]
    tables = await survey(conn, ["shop.cycles", "shop.calls", "shop.alarms", "shop.bell"])

    class Silent:
        async def progress(self, _percent: float, **_fields: Any) -> None: ...

    work: Work[Any] = Work(
        name="usage", settings=wanted, args=Nothing(), ctx=Silent(), conn=conn, tables=tables, now=queue.clock.now  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        return await look(work)
    finally:
        await conn.close()


@pytest.mark.req("BJ-27")
async def test_killed_in_any_pause_and_run_again_it_comes_to_the_same() -> None:
    async with shop(CONFIG + 'batch = 2\npause = "0"\n') as queue:
        for n in range(7):
            await cycle(queue, f"c{n}")
            await use(queue, f"c{n}", 300 * n)

        async def seed() -> None:
            await queue.pool.execute("truncate shop.alarms")

        assert await killed_everywhere(queue, "usage", seed, lambda: alarms(queue.pool)) >= 4


@pytest.mark.req("BJ-27")
async def test_run_twice_and_beside_itself_it_comes_to_the_same() -> None:
    async with shop(CONFIG + 'batch = 2\npause = "0"\n') as queue:
        for n in range(3):
            await cycle(queue, f"c{n}")
            await use(queue, f"c{n}", 450 * n)
        said = await queue.check_idempotent("usage", state=lambda: alarms(queue.pool), points=2)
        assert len(said.state) == 6


@pytest.mark.req("BJ-30")
async def test_a_rehearsal_counts_shows_some_and_leaves_the_whole_database_as_it_was() -> None:
    async with shop(CONFIG + TELLING, start=None) as queue:
        one = await cycle(queue, "ann", email="ann@shop.example")
        await use(queue, "ann", 750)
        await queue.pool.execute("insert into shop.alarms (cycle, percent) values ($1, 60)", one)
        before = await whole(queue.pool)
        said = await rehearsed(queue, CONFIG + TELLING, "usage")
        assert isinstance(said, Done)
        assert (said.result["would_emit"], said.result["would_look_at"]) == (2, 1)
        assert said.result["sample"][0] == {"cycle": one, "threshold": 70, "used": 750, "allowed": 1000}
        assert await whole(queue.pool) == before


# --- odd plans and odd periods ----------------------------------------------------------------------------------------


@pytest.mark.req("BJ-11")
@pytest.mark.parametrize("quota", [0, -5])
async def test_who_may_use_nothing_and_did_is_told_so_in_a_mail_that_can_be_sent(quota: int) -> None:
    async with shop(CONFIG.replace('"@used"', '"@percent"') + TELLING) as queue:
        await queue.pool.execute("alter table shop.alarms alter used set not null")
        one, unused = (
            await cycle(queue, "ann", quota=quota, email="ann@shop.example"),
            await cycle(queue, "bob", quota=0),
        )
        await use(queue, "ann", 3)
        await use(queue, "bob", -3)
        assert (await run(queue))["mailed"] == 1
        assert unused not in {found for found, _ in await alarms(queue.pool)}
        assert set(await alarms(queue.pool)) == {(one, t) for t in (60, 70, 80, 100)}
        (mail,) = queue.mail.outbox
        assert f"You have used 3 of {quota} (100 %)." in mail.message.get_content()


@pytest.mark.req("BJ-11")
async def test_a_period_without_an_end_counts_whole_and_stands_in_nobodys_way() -> None:
    async with shop() as queue:
        for name, ends in {"ever": "'infinity'", "open": "now() + interval '15 days'"}.items():
            await queue.pool.execute(
                "insert into shop.cycles (customer, quota, starts_at, ends_at) "
                f"values ($1, 1000, now() - interval '15 days', {ends})",
                name,
            )
        await use(queue, "ever", 650)
        await use(queue, "open", 310)
        assert (await run(queue))["events"] == 2
        assert {t for _, t in await alarms(queue.pool)} == {60}


async def test_who_knows_of_a_higher_threshold_gets_no_mail_of_a_lower_one_that_came_into_the_config_since() -> None:
    async with shop(CONFIG + TELLING + "thresholds = [50, 80, 100]\n") as queue:
        one = await cycle(queue, "ann", email="ann@shop.example")
        await use(queue, "ann", 1000)
        await queue.pool.execute("insert into shop.alarms (cycle, percent) values ($1, 80), ($1, 100)", one)
        said = await run(queue)
        assert (said["events"], said["mailed"]) == (1, 0)
        assert queue.mail.outbox == []


async def test_a_trigger_that_refuses_what_is_told_leaves_no_event_behind() -> None:
    async with shop(CONFIG + TELLING) as queue:
        await queue.pool.execute("""
            create function shop.refuse() returns trigger language plpgsql as $$
            begin if new.customer = 'bad' then raise 'not this one'; end if; return new; end $$;
            create trigger refuse before insert on shop.bell for each row execute function shop.refuse();
        """)
        await cycle(queue, "good", email="good@shop.example")
        await cycle(queue, "bad", email="bad@shop.example")
        await use(queue, "good", 1000)
        await use(queue, "bad", 1000)
        await queue.enqueue("usage")
        ran = await queue.drain()
        assert "not this one" in (ran.one().reason or "")
        assert await alarms(queue.pool) == []
        await queue.pool.execute("drop trigger refuse on shop.bell")
        await queue.drain_all()
        assert (len(await alarms(queue.pool)), len(queue.mail.outbox)) == (8, 2)


async def test_a_number_that_its_column_does_not_hold_is_named_with_its_table() -> None:
    async with shop() as queue:
        await queue.pool.execute("alter table shop.alarms alter used type smallint")
        await cycle(queue, "ann")
        await use(queue, "ann", 70_000)
        await queue.enqueue("usage")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("retry", "out_of_range")
        assert "column of shop.alarms: smallint out of range" in (ran.reason or "")


async def test_events_whose_key_could_be_cut_off_park_the_job() -> None:
    config = CONFIG.replace('cycle = "id"', 'cycle = "customer"')
    async with shop(config + 'key_column = "customer"\n') as queue:
        await queue.pool.execute(
            "alter table shop.alarms drop constraint alarms_cycle_fkey, alter cycle type varchar(5)"
        )
        await queue.enqueue("usage")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("snooze", "parked")
        assert "shop.alarms.cycle is character varying(5), and shop.cycles.customer is text" in (ran.reason or "")


@pytest.mark.req("BJ-29")
async def test_indexes_that_periods_and_usage_need_are_advised() -> None:
    async with shop() as queue, queue.pool.acquire() as conn:
        wanted = parse(CONFIG).jobs["usage"]
        assert (await advised(conn, wanted)).advice == ()
        await conn.execute("drop index shop.cycles_ends_at_id_idx, shop.calls_customer_at_idx")
        await conn.execute("create index on shop.cycles (ends_at)")  # months of many customers end at the same moment
        assert (await advised(conn, wanted)).advice == (
            "no index of shop.cycles begins with ends_at, id: each page looks at all that end then or later; "
            "create index concurrently on shop.cycles (ends_at, id)",
            "no index of shop.calls begins with customer, at: each period reads the whole table; "
            "create index concurrently on shop.calls (customer, at)",
        )
