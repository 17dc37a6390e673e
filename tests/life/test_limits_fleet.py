"""Limits hold over all daemons together, cost no attempt, and are used to the full."""

from __future__ import annotations

from collections import Counter, defaultdict

import asyncpg
import pytest

from tests.life.fleet import LONG, Fleet, Note, empty, ended, insert, until_sql
from tests.life.test_daemon_queues import most_at_once

CLOCK_S = 0.05
"""Between the token that the database gives and the first line of the handler, which is what is measured."""


def most_beyond(starts: list[float], rate: float) -> float:
    """The greatest excess of starts in any window over what `rate` allows in it: never more than the burst."""
    ahead = 0.0
    lowest = 0.0
    worst = 0.0
    for n, at in enumerate(starts):
        # n + 1 starts up to `at`: the excess over the window that began just before start m is (n + 1 - m) - rate * …
        lowest = min(lowest, n - rate * (at - starts[0])) if n else 0.0
        ahead = n + 1 - rate * (at - starts[0])
        worst = max(worst, ahead - lowest)
    return worst


def test_the_yardstick_measures() -> None:
    assert most_beyond([0.0, 0.0, 0.0, 1.0, 2.0], rate=1) == 3
    assert most_beyond([0.0, 5.0, 5.0, 5.0, 5.0, 6.0], rate=1) == 4


@pytest.mark.req("JP-08")
async def test_a_rate_is_never_exceeded_by_three_daemons_and_is_used(fleet: Fleet, pool: asyncpg.Pool) -> None:
    rate, burst, rows = 20.0, 5, 200 if LONG else 60
    config = f'[limits.slow]\nkind = "note"\nrate = "{rate:g}/s"\nburst = {burst}\n'
    for name in "abc":
        await fleet.start(name, config)
    await insert(pool, "note", rows)
    free = await insert(pool, "note_other", 50)
    await ended(pool, free)
    assert await pool.fetchval("select count(*) from jobs") > 0, "what is not limited goes past what is"
    waiting = await pool.fetch("select distinct state, attempt, gate from jobs where state = 'ready' and gate <> ''")
    assert {tuple(row) for row in waiting} <= {("ready", 0, "limit:slow:")}
    await empty(pool)
    starts = sorted(note.at for note in fleet.notes("start") if note.id not in set(free))
    assert len(starts) == rows
    assert most_beyond(starts, rate) <= burst + rate * CLOCK_S
    least_s = (rows - burst) / rate
    assert least_s / (starts[-1] - starts[0]) >= 0.8, "the limit is used"
    assert await pool.fetchval("select max(attempt) from job_history") == 1
    assert len({note.by for note in fleet.notes("start") if note.id not in set(free)}) > 1


async def test_places_are_never_exceeded_and_come_free_when_their_daemon_is_killed(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    config = '[limits.few]\nqueue = "default"\nconcurrency = 4\n'
    victim = await fleet.start("a", config)
    stuck = await insert(pool, "note", 4, {"seconds": 600})
    await fleet.noted("start", 4)
    await fleet.start("b", config)
    ids = await insert(pool, "note", 40, {"seconds": 0.03})
    await until_sql(pool, "select count(*) = 40 from jobs where gate like 'limit:%' and state = 'ready'")
    assert len(fleet.notes("start")) == 4, "all places are taken"
    await victim.kill()
    await pool.execute("update jobs set args = '{}' where id = any ($1::bigint[])", stuck)
    await ended(pool, [*ids, *stuck])
    alive = [note for note in fleet.notes() if note.by == "b"]
    assert most_at_once(alive) <= 4
    assert await pool.fetchval("select coalesce(sum(held), 0) from job_limit_holds") <= 4

    await until_sql(pool, "select coalesce(sum(held), 0) = 0 from job_limit_holds")


async def test_places_are_never_exceeded_by_two_daemons(fleet: Fleet, pool: asyncpg.Pool) -> None:
    config = '[limits.few]\nkind = "note*"\nconcurrency = 5\n'
    for name in "ab":
        await fleet.start(name, config)
    await insert(pool, "note", 60, {"seconds": 0.05})
    await insert(pool, "note_other", 60, {"seconds": 0.05})
    await empty(pool)
    assert len(fleet.notes("start")) == 120
    assert most_at_once(fleet.notes()) == 5
    took_s = fleet.notes("end")[-1].at - fleet.notes("start")[0].at
    assert 120 * 0.05 / 5 / took_s >= 0.3, "the places are used"


async def test_each_lane_has_a_bucket_of_its_own(fleet: Fleet, pool: asyncpg.Pool) -> None:
    config = '[limits.each]\nper = "lane"\nconcurrency = 2\n'
    for name in "ab":
        await fleet.start(name, config)
    lanes = [f"host-{n}" for n in range(5)]
    for lane in lanes:
        await insert(pool, "note", 12, {"seconds": 0.05}, lane=lane)
    free = await insert(pool, "note", 20, {"seconds": 0.05})
    lane_of = {row[0]: row[1] for row in await pool.fetch("select id, lane from jobs")}
    await empty(pool)
    by_lane: defaultdict[str | None, list[Note]] = defaultdict(list)
    for note in fleet.notes():
        by_lane[lane_of[note.id]].append(note)
    assert {lane: most_at_once(by_lane[lane]) for lane in lanes} == dict.fromkeys(lanes, 2)
    assert most_at_once(by_lane[None]) > 2
    assert len(free) == Counter(note.what for note in by_lane[None])["end"]


async def test_a_row_under_two_limits_waits_for_both_and_takes_nothing_in_vain(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """Tokens taken for rows that a second limit holds back are given back, or the first limit would starve."""
    config = '[limits.a_wide]\nkind = "note*"\nrate = "100/s"\nburst = 60\n'
    config += '[limits.b_narrow]\nkind = "note"\nconcurrency = 1\n'
    await fleet.start("a", config)
    narrow = await insert(pool, "note", 50, {"seconds": 0.02})
    wide = await insert(pool, "note_other", 50)
    await empty(pool)
    assert most_at_once([note for note in fleet.notes() if note.id in set(narrow)]) == 1
    others = [note.at for note in fleet.notes("start") if note.id in set(wide)]
    assert len(others) == 50
    assert await pool.fetchval("select max(attempt) from job_history") == 1
