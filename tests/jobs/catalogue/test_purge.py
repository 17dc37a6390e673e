"""`purge` on somebody's own tables: what goes, what stays, and what a kill, a second run or a rehearsal leaves."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from jobs.catalogue import kinds, pages
from jobs.model import Done
from jobs.testing import Queue
from tests.jobs.catalogue.house import VISITS, killed_everywhere, rehearsed, visit, whole, zoo


async def purged(queue: Queue, name: str = "old_visits", args: dict[str, Any] | None = None) -> Any:
    await queue.enqueue(name, args)
    ran = (await queue.drain(raise_errors=True)).one()
    assert ran.outcome == "done", ran
    return ran.result


async def left(queue: Queue, table: str = "zoo.visits") -> int:
    count: int = await queue.pool.fetchval(f"select count(*) from {table}")
    return count


@pytest.mark.req("BJ-05")
@pytest.mark.req("BJ-27")
async def test_rows_past_their_retention_go_and_the_others_stay() -> None:
    async with zoo() as queue:
        await visit(queue, 31, 40)
        await visit(queue, 29, 3)
        await queue.pool.execute("insert into zoo.visits (came_at) values (null), ('-infinity'), ('infinity')")
        assert await purged(queue) == {"deleted": 41}
        assert await left(queue) == 5
        assert await purged(queue) == {"deleted": 0}, "a second run does nothing"


async def test_only_rows_that_fit_every_condition_go() -> None:
    where = 'where = { mood = ["cross"], kept = false, id = { above = 3 }, seen_at = { null = true } }\n'
    async with zoo(VISITS + where) as queue:
        await visit(queue, 31, 3, mood="cross")
        await visit(queue, 31, 5, mood="cross")
        await visit(queue, 31, 2, mood="calm")
        await visit(queue, 31, 2, mood="cross", kept=True)
        await visit(queue, 31, 2, mood="cross", seen_at=queue.clock.now)
        assert await purged(queue) == {"deleted": 5}


async def test_no_text_of_the_config_ever_becomes_a_part_of_a_statement() -> None:
    hostile = "x'; drop table zoo.heap; --"
    config = f"""
[jobs.odd]
verb = "purge"
table = 'ZOO."Odd names"'
age_column = "When"
retention = "1d"
where = {{ "c d" = ["{{", "{hostile}"] }}
"""
    async with zoo(config) as queue:
        await queue.pool.execute(
            """insert into zoo."Odd names" ("c d", "When")
            select name, '2001-01-01' from unnest(array['{', $1, 'x']) as name""",
            hostile,
        )
        assert await purged(queue, "odd") == {"deleted": 2}
        assert await left(queue, "zoo.heap") == 0, "it is still there"


async def test_without_an_index_by_age_the_whole_table_is_gone_through() -> None:
    async with zoo() as queue:
        await queue.pool.execute("drop index zoo.visits_came_at_idx")
        for days in (31, 1, 40, 2, 50):
            await visit(queue, days, 11)
        assert await purged(queue) == {"deleted": 33}
        assert await left(queue) == 22


async def test_a_partitioned_table_is_purged_like_any_other() -> None:
    config = '[jobs.days]\nverb = "purge"\ntable = "zoo.days"\nage_column = "day"\nretention = "1d"\nbatch = 4\n'
    async with zoo(config) as queue:
        await queue.pool.execute(
            "insert into zoo.days select date '2019-12-28' + n, n from generate_series(1, 9) as n union all "
            "select current_date + 5, 99"
        )
        assert await purged(queue, "days") == {"deleted": 9}
        assert await left(queue, "zoo.days") == 1


@pytest.mark.req("BJ-19")
async def test_sessions_go_by_their_absolute_and_by_their_idle_limit() -> None:
    config = VISITS + 'idle_column = "seen_at"\nidle_retention = "7d"\n'
    async with zoo(config) as queue:
        now = queue.clock.now
        await visit(queue, 31, 4, seen_at=now)
        await visit(queue, 10, 5, seen_at=now.replace(year=now.year - 1))
        await visit(queue, 10, 6, seen_at=now)
        await visit(queue, 10, 2)
        said = await rehearsed(queue, config, "old_visits")
        assert isinstance(said, Done)
        assert said.result["would_delete"] == 9
        assert await purged(queue) == {"deleted": 9}
        assert await left(queue) == 8, "in use, or never used and not too old"


@pytest.mark.req("BJ-09")
async def test_rows_that_are_singled_out_are_kept_for_longer() -> None:
    async with zoo(VISITS + 'longer_where = { kept = true }\nlonger_retention = "2557d"\n') as queue:
        await visit(queue, 400, 3)
        await visit(queue, 400, 4, kept=True)
        await visit(queue, 2600, 5, kept=True)
        assert await purged(queue) == {"deleted": 8}
        assert await left(queue) == 4


async def test_a_run_may_be_told_to_stop_after_so_many_rows() -> None:
    async with zoo() as queue:
        await visit(queue, 31, 40)
        assert await purged(queue, args={"max_rows": 10}) == {"deleted": 10}
        assert await left(queue) == 30
        await queue.enqueue("old_visits", {"max_rows": 0})
        assert (await queue.drain()).one().outcome == "dead"


async def test_a_row_that_somebody_holds_is_passed_by_and_goes_with_the_next_run() -> None:
    async with zoo() as queue:
        await visit(queue, 31, 20)
        other = await asyncpg.connect(queue.dsn)
        held = other.transaction()
        await held.start()
        await other.execute("select from zoo.visits where id = 5 for update")
        assert await purged(queue) == {"deleted": 19}
        await held.rollback()
        await other.close()
        assert await purged(queue) == {"deleted": 1}


async def test_a_row_that_is_renewed_at_that_moment_stays() -> None:
    async with zoo() as queue:
        await visit(queue, 31, 5)
        other = await asyncpg.connect(queue.dsn)
        renewal = other.transaction()
        await renewal.start()
        await other.execute("update zoo.visits set came_at = now() where id = 3")
        assert await purged(queue) == {"deleted": 4}
        await renewal.commit()
        await other.close()
        assert await purged(queue) == {"deleted": 0}


@pytest.mark.req("BJ-27")
@pytest.mark.req("BJ-06")
async def test_killed_in_any_pause_and_run_again_it_comes_to_the_same() -> None:
    async with zoo() as queue:

        async def seed() -> None:
            await queue.pool.execute("truncate zoo.visits restart identity")
            await visit(queue, 31, 17)
            await visit(queue, 1, 4)

        async def state() -> Any:
            return [row[0] for row in await queue.pool.fetch("select id from zoo.visits order by id")]

        assert await killed_everywhere(queue, "old_visits", seed, state) >= 6, (
            "three batches have more pauses than that"
        )
        assert await state() == [18, 19, 20, 21]


@pytest.mark.req("BJ-27")
async def test_run_twice_and_beside_itself_it_comes_to_the_same() -> None:
    async with zoo() as queue:
        await visit(queue, 31, 17)
        await visit(queue, 1, 4)

        async def state() -> Any:
            return [row[0] for row in await queue.pool.fetch("select id from zoo.visits order by id")]

        assert (await queue.check_idempotent("old_visits", state=state, points=2)).state == [18, 19, 20, 21]


@pytest.mark.req("BJ-30")
async def test_a_rehearsal_counts_shows_some_and_leaves_the_whole_database_as_it_was() -> None:
    async with zoo() as queue:
        await visit(queue, 31, 12)
        await visit(queue, 1, 4)
        before = await whole(queue.pool)
        said = await rehearsed(queue, VISITS, "old_visits")
        assert isinstance(said, Done)
        assert said.result["would_delete"] == 12
        assert [row["id"] for row in said.result["sample"]] == [12, 11, 10, 9, 8], "the oldest first"
        assert await whole(queue.pool) == before


async def test_of_two_runs_one_waits_for_the_other() -> None:
    async with zoo() as queue:
        await visit(queue, 31, 5)
        other = await asyncpg.connect(queue.dsn)
        lock = "select pg_advisory_lock(hashtextextended('jobsd job ' || current_schema() || ' old_visits', 0))"
        await other.execute(lock)
        await queue.enqueue("old_visits")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("snooze", "busy")
        assert await left(queue) == 5
        await other.close()
        assert [one.outcome for one in await queue.drain_all()] == ["done"]
        assert await left(queue) == 0


async def test_no_lock_is_waited_for_longer_than_the_job_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "TRIES", 2)
    async with zoo(VISITS + 'lock_timeout = "50ms"\n') as queue:
        await visit(queue, 31, 5)
        other = await asyncpg.connect(queue.dsn)
        held = other.transaction()
        await held.start()
        await other.execute("lock table zoo.visits in share mode")
        await queue.enqueue("old_visits")
        ran = (await queue.drain()).one()
        await held.rollback()
        await other.close()
        assert (ran.outcome, ran.code) == ("retry", "locked")
        assert ran.reason == "zoo.visits: a batch was refused 2 times: canceling statement due to lock timeout"
        assert await left(queue) == 5


async def test_a_table_that_goes_when_a_run_has_begun_parks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = kinds.look

    async def and_then_it_goes(conn: Any, settings: Any) -> kinds.Look:
        found = await seen(conn, settings)
        await conn.execute("drop table zoo.visits cascade")
        return found

    async with zoo() as queue:
        await visit(queue, 31, 5)
        monkeypatch.setattr(kinds, "look", and_then_it_goes)
        await queue.enqueue("old_visits")
        ran = (await queue.drain()).one()
        assert (ran.outcome, ran.code) == ("snooze", "parked")
        assert 'relation "zoo.visits" does not exist' in str(ran.reason)
