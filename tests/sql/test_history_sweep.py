"""Each queue's own retention: rows go when their queue says so, in small steps, and nothing else goes with them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from daemon import retention
from daemon.config import Config, parse
from daemon.observe import Observer
from daemon.retention import ATTEMPTS, HISTORY, Keeps, Retention
from daemon.upkeep_store import UpkeepStore
from tests.sql.rows import Pool

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
RULES = """
[retention]
history = "30d"
attempts = "30d"
[queues.fast]
keep_done = "1h"
keep_dead = "14d"
[queues."org:*"]
keep_done = "7d"
keep_dead = "7d"
"""
FINISHED = """
insert into job_history (id, kind, args, queue, priority, run_at, created_at, state, attempt, crashes, finished_at)
select n, 'noop', '{}', $1, 2, $3::timestamptz, $3::timestamptz, $2, 1, 0, $3::timestamptz
from generate_series(1, $4::int) as n"""
ATTEMPTED = """
insert into job_attempts (job_id, attempt, kind, queue, ended_at, outcome)
select n, 1, 'noop', $1, $2::timestamptz, 'retry' from generate_series(1, $3::int) as n"""


class Upkeep:
    """One daemon's retention by these settings."""

    def __init__(self, keeping: UpkeepStore, observer: Observer, text: str) -> None:
        self.config: Config = parse(text)
        self.retention = Retention(keeping, observer, lambda: self.config)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep comes to its end in one call."""
    monkeypatch.setattr(retention, "SWEEP_S", 3600.0)


@pytest.fixture
def upkeep(keeping: UpkeepStore, observer: Observer) -> Upkeep:
    return Upkeep(keeping, observer, RULES)


async def now(pool: Pool) -> datetime:
    at: datetime = await pool.fetchval("select now()")
    return at.astimezone(UTC)


async def days(pool: Pool, parent: str, back: int) -> None:
    """Partitions of so many days past."""
    at = (await now(pool)).replace(hour=0, minute=0, second=0, microsecond=0)
    for n in range(1, back + 1):
        day = at - n * DAY
        await pool.execute(
            f"create table {parent}_{day:%Y%m%d} partition of {parent} for values from ('{day}') to ('{day + DAY}')"
        )


async def left(pool: Pool, table: str = "job_history") -> dict[tuple[str, ...], int]:
    names = "queue, state" if table == "job_history" else "queue"
    rows = await pool.fetch(f"select {names}, count(*) as n from {table} group by {names}")
    return {tuple(row.values())[:-1]: row["n"] for row in rows}


@pytest.mark.req("JP-01")
async def test_each_queue_and_outcome_goes_at_its_own_time(pool: Pool, upkeep: Upkeep) -> None:
    await days(pool, "job_history", 20)
    at = await now(pool)
    for queue in ("fast", "org:7", "default"):
        for state in ("done", "dead", "cancelled"):
            for age in (timedelta(minutes=30), 3 * HOUR, 10 * DAY, 17 * DAY):
                await pool.execute(FINISHED, queue, state, at - age, 1)
    await upkeep.retention.sweep()
    ages = await pool.fetch(
        "select queue, state, array_agg(floor(extract(epoch from $1 - finished_at) / 3600) order by finished_at desc) "
        "as hours from job_history group by 1, 2",
        at,
    )
    assert {(row["queue"], row["state"]): [int(hours) for hours in row["hours"]] for row in ages} == {
        ("default", state): [0, 3, 240, 408] for state in ("done", "dead", "cancelled")
    } | {("org:7", state): [0, 3] for state in ("done", "dead", "cancelled")} | {
        ("fast", "done"): [0], ("fast", "dead"): [0, 3, 240], ("fast", "cancelled"): [0, 3, 240]
    }  # fmt: skip


@pytest.mark.req("BJ-27")
async def test_a_second_sweep_reads_no_page_and_deletes_nothing(pool: Pool, upkeep: Upkeep) -> None:
    await days(pool, "job_history", 10)
    at = await now(pool)
    await pool.execute(FINISHED, "fast", "done", at - 9 * DAY, 5000)
    await pool.execute(FINISHED, "default", "done", at - 9 * DAY, 5000)
    await upkeep.retention.sweep()
    first = await left(pool)
    books = await pool.fetch("select * from job_sweeps order by partition")
    assert first == {("default", "done"): 5000}
    assert all(row["next_at"].astimezone(UTC) > at for row in books)
    await pool.execute("alter function job_partition_survey rename to gone")  # whoever reads a page fails
    await upkeep.retention.sweep()
    assert await left(pool) == first
    assert await pool.fetch("select * from job_sweeps order by partition") == books


@pytest.mark.req("BJ-27")
async def test_a_sweep_that_is_killed_half_way_goes_on_where_it_was(
    pool: Pool, keeping: UpkeepStore, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await days(pool, "job_history", 10)
    at = await now(pool)
    await pool.execute(FINISHED, "fast", "done", at - 9 * DAY, 30_000)
    await pool.execute(FINISHED, "default", "done", at - 9 * DAY, 30_000)
    killed = Upkeep(keeping, observer, RULES)
    note = Retention._note

    async def dies(self: Retention, conn: Any, book: Any, *rest: Any) -> None:
        if book["page"] == retention.PAGES:
            raise asyncpg.ConnectionDoesNotExistError("killed")
        await note(self, conn, book, *rest)

    monkeypatch.setattr(Retention, "_note", dies)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await killed.retention.sweep()
    some = (await left(pool)).get(("fast", "done"), 0)
    assert 0 < some < 30_000
    (page,) = await pool.fetch("select page from job_sweeps where page > 0")
    assert page["page"] == retention.PAGES
    monkeypatch.setattr(Retention, "_note", note)
    await Upkeep(keeping, observer, RULES).retention.sweep()
    assert await left(pool) == {("default", "done"): 30_000}


async def test_a_transaction_deletes_at_most_a_thousand_rows_and_reads_few_pages(
    pool: Pool, upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    await days(pool, "job_history", 10)
    await pool.execute(FINISHED, "fast", "done", await now(pool) - 9 * DAY, 3500)
    deleted = []
    some = Retention._sweep_some

    async def noted(*args: Any) -> tuple[int, bool]:
        deleted.append(await some(*args))
        return deleted[-1]

    monkeypatch.setattr(Retention, "_sweep_some", noted)
    await upkeep.retention.sweep()
    assert [rows for rows, _ in deleted if rows] == [1000, 1000, 1000, 500]


async def test_a_row_that_an_operator_holds_is_passed_over_and_goes_another_time(pool: Pool, upkeep: Upkeep) -> None:
    await days(pool, "job_history", 1)
    at = await now(pool)
    await pool.execute(FINISHED, "fast", "done", at - 2 * HOUR, 3)
    async with pool.acquire() as operator, operator.transaction():
        await operator.fetch("select from job_history where id = 2 for update")
        async with asyncio.timeout(120):
            await upkeep.retention.sweep()
        assert await operator.fetchval("select array_agg(id) from job_history") == [2]
    await pool.execute("update job_sweeps set next_at = now()")
    await upkeep.retention.sweep()
    assert await left(pool) == {}


async def test_two_daemons_share_the_work_and_do_not_wait_for_each_other(
    pool: Pool, keeping: UpkeepStore, observer: Observer
) -> None:
    await days(pool, "job_history", 12)
    at = await now(pool)
    for n in range(1, 12):
        await pool.execute(FINISHED, "fast", "done", at - n * DAY, 500)
    await asyncio.gather(*(Upkeep(keeping, observer, RULES).retention.sweep() for _ in range(4)))
    assert await left(pool) == {}
    async with pool.acquire() as other, other.transaction():
        await pool.execute("update job_sweeps set next_at = now()")
        await other.fetch("select from job_sweeps for update")
        async with asyncio.timeout(120):
            await Upkeep(keeping, observer, RULES).retention.sweep()


@pytest.mark.req("OR-06")
async def test_attempts_stay_as_long_as_their_job_may(pool: Pool, upkeep: Upkeep) -> None:
    await days(pool, "job_attempts", 20)
    at = await now(pool)
    for queue in ("fast", "org:7", "default"):
        for age in (2 * DAY, 10 * DAY, 17 * DAY):
            await pool.execute(ATTEMPTED, queue, at - age, 1)
    await upkeep.retention.sweep()
    assert await left(pool, "job_attempts") == {("default",): 3, ("fast",): 2, ("org:7",): 1}


async def test_without_rules_nothing_is_read_and_no_book_is_kept(
    pool: Pool, keeping: UpkeepStore, observer: Observer
) -> None:
    await days(pool, "job_history", 10)
    await pool.execute(FINISHED, "fast", "done", await now(pool) - 9 * DAY, 10)
    await Upkeep(keeping, observer, "[queues.fast]\nkeep_done = '40d'").retention.sweep()
    assert await pool.fetchval("select count(*) from job_sweeps") == 0
    assert await left(pool) == {("fast", "done"): 10}


async def test_shorter_retention_counts_from_the_reload_on(pool: Pool, upkeep: Upkeep) -> None:
    await days(pool, "job_history", 6)
    await pool.execute(FINISHED, "org:1", "done", await now(pool) - 5 * DAY, 10)
    await upkeep.retention.sweep()
    assert await left(pool) == {("org:1", "done"): 10}
    upkeep.config = parse(RULES.replace('"7d"', '"2d"'))
    await upkeep.retention.sweep()
    assert await left(pool) == {}


async def test_rows_that_come_behind_a_sweep_of_today_are_swept_later(
    pool: Pool, keeping: UpkeepStore, observer: Observer
) -> None:
    upkeep = Upkeep(keeping, observer, "[queues.fast]\nkeep_done = '1s'")
    await upkeep.retention.sweep()  # enters today into the books
    for _ in range(2):
        await pool.execute("update job_sweeps set next_at = now() where isfinite(next_at)")
        await pool.execute(FINISHED, "fast", "done", await now(pool) - timedelta(seconds=2), 10)
        await upkeep.retention.sweep()
        assert await left(pool) == {}


async def test_a_dropped_partition_leaves_no_book(pool: Pool, keeping: UpkeepStore, upkeep: Upkeep) -> None:
    await days(pool, "job_history", 10)
    await upkeep.retention.sweep()
    before = await pool.fetchval("select count(*) from job_sweeps")
    dropped = await keeping.drop_partitions("job_history", 5 * 86400.0, 100)
    assert dropped
    assert await pool.fetchval("select count(*) from job_sweeps") == before - len(dropped)


# --- the decision, pure -----------------------------------------------------------------------------------------------

NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)


def test_a_group_is_judged_by_its_own_queue_and_outcome() -> None:
    keeps = Keeps(parse(RULES))
    groups = [
        retention.Group("fast", "done", NOON - 2 * HOUR),
        retention.Group("fast", "dead", NOON - 2 * HOUR),
        retention.Group("default", "done", NOON - 2 * HOUR),
    ]
    verdict = keeps.judge(HISTORY, groups, NOON, NOON + 12 * HOUR)
    assert verdict.rules == (retention.Rule("fast", "done", NOON - HOUR),)
    assert verdict.due_at == NOON + timedelta(minutes=15)  # of what is younger than an hour, the first, and a quarter


def test_a_day_of_which_everything_is_due_is_never_looked_at_again() -> None:
    keeps = Keeps(parse(RULES))
    verdict = keeps.judge(HISTORY, [retention.Group("org:1", "dead", NOON - 9 * DAY)], NOON, NOON - 8 * DAY)
    assert verdict.rules
    assert verdict.due_at is None


def test_the_digest_changes_with_what_is_kept_and_with_nothing_else() -> None:
    digest = Keeps(parse(RULES)).digest
    assert Keeps(parse(RULES + "concurrency = 7")).digest == digest
    assert Keeps(parse(RULES.replace("14d", "15d"))).digest != digest
    assert Keeps(parse(RULES.replace('attempts = "30d"', 'attempts = "31d"'))).digest != digest


def test_a_retention_that_the_days_cut_short_is_no_rule() -> None:
    keeps = Keeps(parse(RULES.replace('"30d"', '"5d"')))
    assert keeps.of(HISTORY, "org:1", "done") is None
    assert keeps.of(ATTEMPTS, "fast", "") is None
    assert keeps.shortest_s(HISTORY) == 3600.0
