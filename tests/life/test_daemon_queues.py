"""Which rows a daemon takes, how many at once, and in what order."""

from __future__ import annotations

from collections import Counter, defaultdict

import asyncpg
import pytest

from daemon.shares import AGED
from tests.life.fleet import Fleet, Note, each_ended_once, empty, ended, insert, until


def most_at_once(notes: list[Note]) -> int:
    """Of the attempts in the journal."""
    most = now = 0
    for note in sorted(notes, key=lambda note: (note.at, note.what == "start")):
        now += 1 if note.what == "start" else -1
        most = max(most, now)
    return most


async def test_rows_of_an_ordering_key_run_one_at_a_time_in_order_though_daemons_are_killed(
    fleet: Fleet, pool: asyncpg.Pool
) -> None:
    keys = [f"k{n}" for n in range(10)]
    rows = [(key, '{"seconds": 0.01}') for _ in range(12) for key in keys]
    await pool.executemany("insert into jobs (kind, ordering_key, args) values ('note', $1, $2::text::jsonb)", rows)
    key_of = {row[0]: row[1] for row in await pool.fetch("select id, ordering_key from jobs")}
    await fleet.start("a")
    victim = await fleet.start("b")
    await fleet.noted("end", 30)
    await victim.perish(pool)
    await fleet.start("c")
    await empty(pool)
    await each_ended_once(pool, list(key_of))
    assert {row["state"] for row in await ended(pool, list(key_of))} == {"done"}
    by_key: defaultdict[str, list[Note]] = defaultdict(list)
    for note in fleet.notes():
        by_key[key_of[note.id]].append(note)
    for notes in by_key.values():
        starts = [note.id for note in notes if note.what == "start"]
        assert starts == sorted(starts), "in id order; a row may start again after a kill, but none overtakes it"
        open_id: int | None = None
        for note in notes:
            if note.what == "start":
                assert open_id in (None, note.id), "only a kill leaves one open, and then the same row comes again"
                open_id = note.id
            else:
                open_id = None


async def test_a_queue_never_runs_more_than_its_concurrency(fleet: Fleet, pool: asyncpg.Pool) -> None:
    config = '[queues.narrow]\nconcurrency = 3\n[queues."org:*:mail"]\nconcurrency = 2\n'
    await fleet.start(config=config)
    queues = {"narrow": 3, "org:1:mail": 2, "org:2:mail": 2}
    ids = {queue: await insert(pool, "note", 40, {"seconds": 0.02}, queue=queue) for queue in queues}
    wide = await insert(pool, "note", 60, {"seconds": 1.0})
    for queue, most in queues.items():
        await ended(pool, ids[queue])
        assert most_at_once([note for note in fleet.notes() if note.id in set(ids[queue])]) == most
    await ended(pool, wide)
    assert most_at_once([note for note in fleet.notes() if note.id in set(wide)]) == 60, "the default is 100"


async def test_what_is_urgent_comes_first_when_the_queue_is_full(fleet: Fleet, pool: asyncpg.Pool) -> None:
    for priority in (4, 3, 2, 1):
        await insert(pool, "note", 20, {"seconds": 0.005}, priority=priority)
    priority_of = {row[0]: row[1] for row in await pool.fetch("select id, priority from jobs")}
    await fleet.start(QUEUES__DEFAULT__CONCURRENCY="1")
    await empty(pool)
    order = [priority_of[note.id] for note in fleet.notes("start")]
    passed_over = [n for n, priority in enumerate(order) if priority > min(order[n:])]
    assert len(passed_over) <= len(order) // AGED  # so that the lower classes are not starved


@pytest.mark.req("JP-04")
async def test_a_paused_queue_stands_still_until_it_is_resumed(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await pool.execute("insert into job_holds (gate, cause) values ('queue:held', 'pause')")
    held = await insert(pool, "note", 20, queue="held")
    await fleet.start()
    await ended(pool, await insert(pool, "note", 20))
    await ended(pool, await insert(pool, "note", 20))
    states = await pool.fetch("select state, attempt, gate from jobs where id = any ($1::bigint[])", held)
    assert Counter(tuple(row) for row in states) == {("ready", 0, ""): 20}
    await pool.execute("delete from job_holds")
    await ended(pool, held)


@pytest.mark.req("OR-05")
async def test_daemons_take_only_queues_that_match_their_patterns(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start("mail", DAEMON__QUEUES="org:*:mail")
    await fleet.start("rest", DAEMON__QUEUES="default,org:7:*")
    places = {"org:1:mail": {"mail"}, "default": {"rest"}, "org:7:mail": {"mail", "rest"}, "org:7:report": {"rest"}}
    ids = {queue: await insert(pool, "note", 20, {"seconds": 0.02}, queue=queue) for queue in places}
    nobodys = await insert(pool, "note", 5, queue="org:1:report")
    for queue, takers in places.items():
        await ended(pool, ids[queue])
        assert {note.by for note in fleet.notes("start") if note.id in set(ids[queue])} <= takers
    assert await pool.fetchval("select count(*) from jobs where id = any ($1::bigint[])", nobodys) == 5


async def test_a_queue_never_seen_before_is_picked_up_by_its_hint(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """With a minute between polls only the hint can have brought it."""
    await fleet.start(DAEMON__POLL_INTERVAL="60s")
    for n in range(5):
        await ended(pool, await insert(pool, "note", queue=f"new-{n}"), within_s=50)


async def test_a_row_that_comes_due_later_runs_at_its_time_without_a_poll(fleet: Fleet, pool: asyncpg.Pool) -> None:
    await fleet.start(DAEMON__POLL_INTERVAL="60s")
    job_id = await pool.fetchval(
        "insert into jobs (kind, run_at) values ('note', now() + interval '700 ms') returning id"
    )
    (row,) = await ended(pool, [job_id], within_s=50)
    assert row["started_at"] >= row["run_at"]


async def test_a_burst_is_shared_by_daemons_and_each_row_runs_once(fleet: Fleet, pool: asyncpg.Pool) -> None:
    for name in "ab":
        await fleet.start(name, QUEUES__DEFAULT__CONCURRENCY="20")
    ids = await insert(pool, "note", 600, {"seconds": 0.01})
    await empty(pool)
    await each_ended_once(pool, ids)
    starts = fleet.notes("start")
    assert len(starts) == 600
    assert {note.by for note in starts} == {"a", "b"}


async def test_hints_that_are_lost_cost_no_more_than_a_poll(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(DAEMON__POLL_INTERVAL="300ms")
    await pool.execute("alter table jobs disable trigger jobs_insert")
    await ended(pool, await insert(pool, "note", queue="unseen"))
    await until(lambda: not daemon.events("deaf"), lambda: "it hears")
