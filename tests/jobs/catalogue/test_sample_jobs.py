"""The sample's jobs on the sample: each finds its tables, does what it is for, does nothing more the second time, and
changes nothing when it is rehearsed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import sql
from daemon.config import parse
from daemon.cron import parse as cron
from daemon.sample import Filling, fill, install
from jobs.catalogue.kinds import look
from jobs.model import Done
from jobs.testing import Queue, queue
from tests.jobs.catalogue.house import rehearsed, whole

JOBS = sql.text("reference/jobs.toml")
NAMES = list(parse(JOBS).jobs)
ACCOUNTS = ("account_export", "account_erasure")
"""Whose rows they take along would be missed in the sums that are compared here; they have tests of their own."""
UPKEEP = [name for name in NAMES if name not in ACCOUNTS]
SIZE = 4000

TOTALS = """
select account_id, direction, state, day, sum(messages)::bigint, sum(size_bytes)::bigint from (
    select account_id, direction, state, (received_at at time zone 'UTC')::date as day, 1 as messages, size_bytes
    from app.messages
    union all select account_id, direction, state, day, messages, size_bytes from app.message_statistics) as t
group by 1, 2, 3, 4 order by 1, 2, 3, 4"""
DAYS = """
select account_id, (happened_at at time zone 'UTC')::date, sum(bytes)::bigint, sum(emails)::bigint
from app.bandwidth group by 1, 2 order by 1, 2"""
LEFT = {
    "alias_expiry": "select count(*) from app.aliases where active and expires_at < now()",
    "session_expiry": "select count(*) from app.sessions where expires_at < now() "
    "or last_seen_at < now() - interval '14 days'",
    "magic_link_expiry": "select count(*) from app.magic_links where expires_at < now()",
    "destination_token_expiry": "select count(*) from app.destination_tokens where expires_at < now()",
    "failed_email_expiry": "select count(*) from app.failed_emails where failed_at < now() - interval '7 days'",
    "failed_forward_expiry": "select count(*) from app.failed_forwards "
    "where first_failed_at < now() - interval '7 days'",
    "spam_expiry": "select count(*) from app.spam_quarantine where quarantined_at < now() - interval '30 days'",
    "message_expiry": "select count(*) from app.messages as m join app.accounts as a on a.id = m.account_id "
    "where received_at < now() - coalesce(message_retention, interval '90 days')",
    "overflow_hold_expiry": "select count(*) from app.overflow_hold where held_at < now() - interval '30 days' "
    "and warned_at < now() - interval '1 day'",
    "destination_expiry": "select count(*) from app.destinations where verified_at is null "
    "and created_at < now() - interval '30 days' and removal_warned_at < now() - interval '3 days'",
    "audit_log_expiry": "select count(*) from app.audit_log where at < now() - interval '365 days' "
    "and not (critical and at >= now() - interval '2557 days')",
}
"""Rows that should not be there any more."""


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[Queue]:
    async with queue(config=JOBS, handlers=[]) as made:
        conn = await asyncpg.connect(made.dsn)
        await install(conn)
        await fill(conn, Filling(SIZE, now=made.clock.now))
        await conn.close()
        yield made


async def run(queue: Queue, name: str) -> Any:
    job = await queue.enqueue(name)
    ran = next(one for one in await queue.drain(raise_errors=True) if one.id == job)
    assert ran.outcome == "done", ran
    return ran.result


@pytest.mark.req("BJ-23")
@pytest.mark.req("BJ-28")
def test_each_says_what_it_is_for_and_they_come_at_different_times() -> None:
    jobs = parse(JOBS).jobs
    assert all(job.description for job in jobs.values())
    schedules = [str(job.schedule) for job in jobs.values()]
    assert len(set(schedules)) == len(schedules)
    for schedule in schedules:
        cron(schedule, "UTC")
        assert not re.match(r"0 0 ", schedule), "not at midnight"
    told = re.findall(r"BJ-\d\d|JD-01", JOBS)
    assert {f"BJ-{n:02}" for n in range(3, 21)} | {"JD-01"} <= set(told)


@pytest.mark.parametrize("name", NAMES)
async def test_each_finds_its_tables_and_their_indexes(app: Queue, name: str) -> None:
    conn = await asyncpg.connect(app.dsn)
    found = await look(conn, parse(JOBS).jobs[name])
    await conn.close()
    assert (found.reason, found.advice) == (None, ())


@pytest.mark.req("BJ-30")
async def test_rehearsals_of_all_of_them_leave_the_whole_database_as_it_was(app: Queue) -> None:
    before = await whole(app.pool)
    for name in NAMES:
        said = await rehearsed(app, JOBS, name)
        assert isinstance(said, Done), (name, said)
    assert await whole(app.pool) == before


@pytest.mark.req("BJ-27")
async def test_each_does_what_it_is_for_once(app: Queue, tmp_path: Path) -> None:
    totals, days = await app.pool.fetch(TOTALS), await app.pool.fetch(DAYS)
    messages, warned = (
        await app.pool.fetchval("select count(*) from app.messages"),
        await app.pool.fetchval("select count(*) from app.overflow_hold where warned_at is null"),
    )
    first = {name: await run(app, name) for name in ("bandwidth_daily", "bandwidth_weekly", *UPKEEP)}
    for name, rows in LEFT.items():
        assert await app.pool.fetchval(rows) == 0, name
    assert sum(found.get("deleted", 0) for found in first.values()) > SIZE / 20

    assert await app.pool.fetch(TOTALS) == totals, "BJ-07: what was purged is in the sums"
    assert 0 < await app.pool.fetchval("select count(*) from app.messages") < messages
    orphans = "select count(*) from app.header_snapshots where message_id not in (select id from app.messages)"
    assert await app.pool.fetchval(orphans) == 0, "BJ-08"
    columns = "select account_id, day, bytes_used, emails from app.bandwidth_daily order by 1, 2"
    assert [tuple(row) for row in await app.pool.fetch(columns)] == [tuple(row) for row in days], "BJ-10"
    weeks = await app.pool.fetchrow("select sum(bytes_used), sum(emails) from app.bandwidth_weekly")
    assert weeks is not None
    assert tuple(weeks) == (sum(row[2] for row in days), sum(row[3] for row in days))
    assert await app.pool.fetchval("select count(*) from app.overflow_hold where warned_at is null") < warned
    events = await app.pool.fetchval("select count(*) from app.usage_events")
    assert events == await app.pool.fetchval("select count(*) from app.notifications where kind = 'usage'")
    assert events == first["usage_thresholds"]["events"] > 0
    audited = "select count(*) from app.audit_log where actor = 'job:alias_expiry' and at = now()"
    assert await app.pool.fetchval(audited) == first["alias_expiry"]["expired"] > 0, "BJ-12"

    changed = {name: await run(app, name) for name in UPKEEP}
    for name, said in changed.items():
        did = {what: n for what, n in said.items() if what not in ("read", "looked_at", "passed_over")}
        assert not any(did.values()), (name, did, "the second time there is nothing left to do")
