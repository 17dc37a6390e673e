"""Limits hold over all daemons together, cost no attempt, and are used to the full."""

from __future__ import annotations

import itertools
import signal
from collections import Counter, defaultdict
from time import monotonic, time

import asyncpg
import pytest

from benchmarks.windows import most_beyond, most_within
from tests.life.fleet import LONG, Fleet, Note, empty, ended, insert, until_sql
from tests.life.test_daemon_queues import most_at_once

MOMENT_S = 0.05
"""From the use of a token, which is what counts, to the first line of the handler, which is what is measured."""

USED = 0.8 if LONG else 0.1
"""Of a limit, at least: all but what the machine has other work for.  The benchmark asks for 0.95."""


async def delay_s(fleet: Fleet, pool: asyncpg.Pool) -> float:
    """The longest from the claim of a row to its handler's first line, which is what a busy machine adds."""
    if LONG:
        return 0.0
    rows = await pool.fetch("select id, started_at from job_status where started_at is not null")
    claimed_at: dict[int, float] = {row[0]: row[1].timestamp() for row in rows}
    now, shown = monotonic(), time()
    newest = {note.id: note.at for note in fleet.notes("start")}
    late: list[float] = [
        shown - (now - at) - claimed_at[job_id] for job_id, at in newest.items() if job_id in claimed_at
    ]
    return max(late, default=0.0)


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
    allowed = burst + rate * await delay_s(fleet, pool)
    assert most_beyond(starts, rate) <= allowed, "in no window, however late a start"
    least_s = (rows - burst) / rate
    assert least_s / (starts[-1] - starts[0]) >= USED, "the limit is used"
    assert await pool.fetchval("select max(attempt) from job_history") == 1
    assert len({note.by for note in fleet.notes("start") if note.id not in set(free)}) > 1


async def test_where_there_are_no_limits_nobody_asks_about_any(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Not at the start, not for a claim, not at the end of a job or of the daemon: one question would end it."""
    await pool.execute("drop function job_limits_lease; drop function job_limits_return")
    daemon = await fleet.start()
    await ended(pool, await insert(pool, "note", 200))
    assert await daemon.stop() == 0


@pytest.mark.req("JP-08")
async def test_a_rate_is_kept_and_used_while_daemons_are_killed_and_stopped(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """What a killed daemon had leased is lost, which is a slice; what a stopped one had is used by the others."""
    rate, burst, rounds = 40.0, 10, 20 if LONG else 4
    config = f'[limits.slow]\nkind = "note"\nrate = "{rate:g}/s"\nburst = {burst}\n'
    members = [await fleet.start(name, config) for name in "abcd"]
    ids = await insert(pool, "note", int(rate * 2 * rounds))
    for n in range(rounds):
        await fleet.noted("start", int((n + 0.5) * rate))
        member = members.pop(0)
        if n % 2:
            assert await member.stop() == 0
        else:
            await member.perish(pool)
        members.append(fleet.spawn("abcd"[n % 4], config))
    notes = await fleet.noted("start", int(rate * (rounds + 1)))
    starts = sorted(note.at for note in notes)
    allowed = burst + rate * await delay_s(fleet, pool)
    assert most_beyond(starts, rate) <= allowed
    assert most_within(starts, 1.0) <= rate + allowed
    used = (len(starts) - burst) / rate / (starts[-1] - starts[0])
    assert used >= min(USED, 0.7), "the limit is used"
    assert {note.id for note in notes} <= set(ids)


@pytest.mark.req("JP-08")
async def test_rows_that_wait_at_a_limit_are_not_claimed_to_be_put_back(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """A claim and a return for each token and daemon would cost more than the work.  What comes too late for its token
    goes back too, which a busy machine does to some."""
    config = '[limits.slow]\nkind = "note"\nrate = "20/s"\nburst = 2\n'
    for name in "ab":
        await fleet.start(name, config)
    ids = await insert(pool, "note", 400)
    at_the_gate = "select not exists (select from jobs where gate = '' or state = 'running')"
    await until_sql(pool, at_the_gate)
    began = len(fleet.notes("start"))
    before = {row["id"]: row["fence"] for row in await pool.fetch("select id, fence from jobs")}
    started = {note.id: note.fence for note in (await fleet.noted("start", began + 40))[began:]}
    claims = sum(fence - before[job_id] for job_id, fence in started.items() if job_id in before)
    put_back = await pool.fetch("select id, fence from jobs where state = 'ready'")
    vain = sum(row["fence"] - before.get(row["id"], row["fence"]) for row in put_back) / 2
    assert (claims + vain) / len(started) <= (2 if LONG else 6)
    assert len(ids) == 400


@pytest.mark.parametrize("rate", ["10/s", "20/d"])
async def test_a_burst_of_one_keeps_its_distance(fleet: Fleet, pool: asyncpg.Pool, rate: str) -> None:
    config = f'[limits.single]\nkind = "note"\nrate = "{rate}"\nburst = 1\n'
    for name in "ab":
        await fleet.start(name, config)
    await insert(pool, "note", 12)
    if rate == "20/d":
        await until_sql(pool, "select count(*) = 11 from jobs where gate = 'limit:single:' and state = 'ready'")
        in_s = await pool.fetchval("select date_part('epoch', full_at - now()) from job_limits where lot_until is null")
        assert len(fleet.notes("start")) == 1
        assert in_s is None or 4200 < in_s <= 4321
        return
    starts = [note.at for note in await fleet.noted("start", 12)]
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 0.1 - MOMENT_S - await delay_s(fleet, pool)
    assert 11 * 0.1 / (starts[-1] - starts[0]) >= min(USED, 0.5), "and is used"


async def test_a_draining_daemon_gives_its_places_back_as_its_jobs_end(fleet: Fleet, pool: asyncpg.Pool) -> None:
    config = '[limits.few]\nkind = "note"\nconcurrency = 3\n'
    leaving = await fleet.start("a", config, DAEMON__DRAIN_TIMEOUT="60s")
    await insert(pool, "note", 2, {"seconds": 0.3})
    (stays,) = await insert(pool, "note", 1, {"seconds": 600})
    await fleet.noted("start", 3)
    await fleet.start("b", config)
    leaving.signal(signal.SIGTERM)
    await leaving.said("daemon_draining")
    rest = await insert(pool, "note", 6)
    await ended(pool, rest)
    assert {note.by for note in fleet.notes("start") if note.id in set(rest)} == {"b"}
    assert leaving.process.exitcode is None, "the third job holds its place and its daemon"
    assert await pool.fetchval("select state from jobs where id = $1", stays) == "running"


async def test_a_daemon_with_work_gets_its_share_of_places_from_one_that_never_pauses(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """Each serves a queue of its own under one limit; one has work without end."""
    config = '[limits.few]\nkind = "note"\nconcurrency = 4\n'
    await fleet.start("busy", config, DAEMON__QUEUES="many")
    await fleet.start("late", config, DAEMON__QUEUES="few")
    await insert(pool, "note", 400, {"seconds": 0.05}, queue="many")
    await fleet.noted("start", 20)
    few = await insert(pool, "note", 40, {"seconds": 0.05}, queue="few")
    await ended(pool, few)
    notes = fleet.notes()
    assert most_at_once(notes) <= 4
    mine = [note.at for note in notes if note.what == "start" and note.id in set(few)]
    others = [n for n in notes if n.what == "start" and n.by == "busy" and mine[0] <= n.at <= mine[-1]]
    assert len(others) <= 4 * len(mine), "about one for one"
    assert others, "nor does the latecomer take all"


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
    await victim.perish(pool)
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
    assert 120 * 0.05 / 5 / took_s >= min(USED, 0.3), "the places are used"


async def test_each_lane_has_a_bucket_of_its_own(fleet: Fleet, pool: asyncpg.Pool) -> None:
    config = '[limits.each]\nper = "lane"\nconcurrency = 2\n'
    for name in "ab":
        await fleet.start(name, config)
    lanes = [f"host-{n}" for n in range(5)]
    lane_of: dict[int, str | None] = {}
    for lane in lanes:
        lane_of |= dict.fromkeys(await insert(pool, "note", 12, {"seconds": 0.05}, lane=lane), lane)
    free = await insert(pool, "note", 20, {"seconds": 0.05})
    lane_of |= dict.fromkeys(free)
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
