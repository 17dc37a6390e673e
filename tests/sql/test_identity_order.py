"""Rows of one ordering key: one at a time, in order, none forgotten, whoever claims, ends or dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
import pytest

import sql
from tests.sql.rows import Pool, waits_for_lock

# What a claim does about order, and nothing else.
CLAIM = """
with picked as materialized (
    select id, ordering_key from jobs
    where queue = 'default' and gate = '' and state = 'ready' and run_at <= now()
    order by priority, run_at, id limit $1 for update skip locked
), turn as materialized (
    select job_id, runs
    from (select array_agg(id) as ids from picked where ordering_key is not null having count(*) > 0) as ordered
    cross join lateral job_order(ordered.ids)
)
update jobs
set state = case when runs then 'running' else 'ready' end, gate = case when runs then '' else 'order' end,
    fence = fence + 1, attempt = attempt + runs::int
from turn
where jobs.id = turn.job_id
returning id, ordering_key, runs, attempt, aside"""
FINISH = """
with gone as (delete from jobs where id = any ($1::bigint[]) returning kind, ordering_key)
select count(*) from gone cross join lateral job_next(kind, ordering_key)"""
PUT_BACK = """
with back as (
    update jobs set state = 'ready', fence = fence + 1, aside = aside or $2
    where id = $1 returning kind, ordering_key
)
select count(*) from back cross join lateral job_next(kind, ordering_key)"""
INSERT = "insert into jobs (kind, ordering_key) values ('noop', $1) returning id"
AT = "select gate from jobs where id = $1"
STATEMENTS = sql.load("identity.sql")
GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.DeadlockDetectedError,
)


async def claimed(conn: Any, most: int = 100) -> list[int]:
    return [row["id"] for row in await conn.fetch(CLAIM, most) if row["runs"]]


async def insert(pool: Any, key: str = "k") -> int:
    found: int = await pool.fetchval(INSERT, key)
    return found


async def sweep(pool: Pool, most: int = 1000) -> int:
    return sum(row["opened"] for row in await pool.fetch(STATEMENTS["open_heads"], "", "", most))


async def test_a_row_behind_another_is_parked_once_and_opened_when_that_ends(pool: Pool) -> None:
    first, second, third = [await insert(pool) for _ in range(3)]
    assert await claimed(pool) == [first]
    parked = await pool.fetch("select id from jobs where gate = 'order' order by id")
    assert [row[0] for row in parked] == [second, third]
    assert await claimed(pool) == []
    await pool.execute(FINISH, [first])
    assert (await pool.fetchval(AT, second), await pool.fetchval(AT, third)) == ("", "order")
    assert await claimed(pool) == [second]


async def test_a_row_that_came_while_its_predecessor_was_ending_is_not_forgotten(pool: Pool) -> None:
    """The end looked for a successor before there was one, and is not committed; a claim meets the new row now."""
    first = await insert(pool)
    assert await claimed(pool) == [first]
    async with pool.acquire() as finisher:
        end = finisher.transaction()
        await end.start()
        await finisher.execute(FINISH, [first])
        second = await insert(pool)
        assert await claimed(pool) == []
        assert await pool.fetchval(AT, second) == ""  # not parked: nobody would open it
        await end.commit()
    assert await claimed(pool) == [second]


async def test_an_end_waits_for_a_claim_that_parks_and_sees_what_it_parked(pool: Pool) -> None:
    first, second = [await insert(pool) for _ in range(2)]
    assert await claimed(pool, 1) == [first]
    async with pool.acquire() as claimer:
        parking = claimer.transaction()
        await parking.start()
        assert await claimed(claimer) == []
        end = asyncio.get_running_loop().create_task(pool.execute(FINISH, [first]))
        await waits_for_lock(pool, "delete from jobs")
        await parking.commit()
    await end
    assert await pool.fetchval(AT, second) == ""


async def test_a_claim_that_began_before_the_end_runs_the_successor(pool: Pool) -> None:
    """Its statement still sees the predecessor, its decision does not."""
    first, second = [await insert(pool) for _ in range(2)]
    assert await claimed(pool, 1) == [first]
    async with pool.acquire() as claimer:
        late = claimer.transaction(isolation="read_committed")
        await late.start()
        await claimer.execute("select pg_advisory_lock(7)")
        slow = CLAIM.replace("order by priority", "and pg_advisory_xact_lock(8) is not null order by priority")
        async with pool.acquire() as gatekeeper:
            await gatekeeper.execute("select pg_advisory_lock(8)")
            rival = asyncio.get_running_loop().create_task(claimer.fetch(slow, 10))
            await waits_for_lock(pool, "pg_advisory_xact_lock(8)")
            await gatekeeper.execute(FINISH, [first])
            await gatekeeper.execute("select pg_advisory_unlock(8)")
        assert [(row["id"], row["runs"]) for row in await rival] == [(second, True)]
        await late.rollback()


async def test_a_waiting_row_that_goes_frees_those_behind_it_only_if_it_was_first(pool: Pool) -> None:
    first, second, third, fourth = [await insert(pool) for _ in range(4)]
    assert await claimed(pool) == [first]
    await pool.execute(FINISH, [second])
    assert await pool.fetchval(AT, third) == "order"  # the first still runs
    await pool.execute(PUT_BACK, first, False)
    await pool.execute("update jobs set gate = 'later' where id = $1", first)
    await pool.execute(FINISH, [third])
    assert await pool.fetchval(AT, fourth) == "order"  # the first still waits for its retry
    await pool.execute(FINISH, [first])
    assert await pool.fetchval(AT, fourth) == ""


async def test_an_older_row_that_was_committed_late_is_opened_by_the_younger_one(pool: Pool) -> None:
    async with pool.acquire() as producer:
        late = producer.transaction()
        await late.start()
        older = await insert(producer)
        younger = await insert(pool)
        assert await claimed(pool) == [younger]
        await late.commit()
    assert await claimed(pool) == []
    assert await pool.fetchval(AT, older) == "order"
    await pool.execute(PUT_BACK, younger, False)
    assert await claimed(pool) == [older]
    assert await pool.fetchval(AT, younger) == "order"


class TestSteppedAside:
    """A failed row whose successors do not wait for it."""

    async def test_it_lets_the_next_pass_and_runs_again_between_two_of_them(self, pool: Pool) -> None:
        first, second, third = [await insert(pool) for _ in range(3)]
        assert await claimed(pool) == [first]
        await pool.execute(PUT_BACK, first, True)
        await pool.execute("update jobs set run_at = now(), gate = 'later' where id = $1", first)  # its retry is later
        assert await claimed(pool) == [second]
        await pool.execute("update jobs set gate = '' where id = $1", first)  # its time has come, while another runs
        assert await claimed(pool) == []
        assert await pool.fetchval(AT, first) == "order"
        await pool.execute(FINISH, [second])
        ran = await claimed(pool)
        assert len(ran) == 1  # both are open now; by priority and run_at one is taken, the other parked again
        await pool.execute(FINISH, ran)
        assert ran + await claimed(pool) == [third, first]

    async def test_two_of_them_due_at_once_do_not_run_at_once(self, pool: Pool) -> None:
        ids = [await insert(pool) for _ in range(3)]
        await pool.execute("update jobs set aside = true where id = any ($1::bigint[])", ids)
        for n in range(3):
            running = await claimed(pool)
            assert len(running) == 1, n
            await pool.execute(FINISH, running)
        assert await pool.fetchval("select count(*) from jobs") == 0

    async def test_a_head_that_blocked_for_too_long_is_made_to(self, pool: Pool) -> None:
        first, second = [await insert(pool) for _ in range(2)]
        assert await claimed(pool) == [first]
        await pool.execute(PUT_BACK, first, False)
        later = "update jobs set gate = 'later', blocks_until = now() + $2::float8 * interval '1 s' where id = $1"
        await pool.execute(later, first, 3600.0)
        assert await pool.fetch(STATEMENTS["step_aside"], 10) == []
        await pool.execute(later, first, -1.0)
        assert [row[0] for row in await pool.fetch(STATEMENTS["step_aside"], 10)] == [1]
        assert await pool.fetchval("select aside from jobs where id = $1", first)
        assert await claimed(pool) == [second]


async def test_an_end_does_not_wait_long_for_a_successor_that_somebody_holds(pool: Pool) -> None:
    """A producer's open transaction must not hold up a batch of results; the sweep opens the row afterwards."""
    first, second = [await insert(pool) for _ in range(2)]
    assert await claimed(pool) == [first]
    async with pool.acquire() as producer:
        holds = producer.transaction()
        await holds.start()
        await producer.execute("update jobs set args = '{}' where id = $1", second)
        await pool.execute(f"set statement_timeout = '5s'; delete from jobs where id = {first}")
        assert await sweep(pool) == 0  # nor does the sweep
        await holds.commit()
    assert await pool.fetchval(AT, second) == "order"
    assert await sweep(pool) == 1
    assert await claimed(pool) == [second]


async def test_a_sweep_goes_on_where_the_last_one_ended(pool: Pool) -> None:
    for key in "abc":
        for _ in range(2):
            await insert(pool, key)
    await claimed(pool)
    seen: list[str] = []
    at = ("", "")
    while found := await pool.fetch(STATEMENTS["open_heads"], *at, 1):
        at = (found[-1]["kind"], found[-1]["ordering_key"])
        seen += [row["ordering_key"] for row in found]
    assert seen == ["a", "b", "c"]


@dataclass
class Crowd:
    """Producers, claimers that also end what they claimed, and sometimes somebody who kills a connection."""

    dsn: str
    dice: random.Random
    kills: bool = False
    running: dict[str, int] = field(default_factory=dict)
    ran: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    inserted: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    failed: set[int] = field(default_factory=set)
    producing: int = 0

    async def produce(self, keys: list[str], each: int) -> None:
        self.producing += 1
        conn = await asyncpg.connect(self.dsn)
        for _ in range(each):
            for key in keys:
                self.inserted[key].append(await insert(conn, key))
        await conn.close()
        self.producing -= 1

    async def work(self) -> None:
        while self.producing or self.left():
            conn = await asyncpg.connect(self.dsn)
            try:
                while not conn.is_closed() and (self.producing or self.left()):
                    await self._round(conn)
            except (asyncpg.UniqueViolationError, *GONE):
                continue  # two saw a key differently, or the connection was killed: made again
            finally:
                await conn.close()

    def left(self) -> int:
        return sum(map(len, self.inserted.values())) - sum(map(len, self.ran.values()))

    async def _round(self, conn: Any) -> None:
        async with conn.transaction():
            rows = [row for row in await conn.fetch(CLAIM, self.dice.randint(1, 9)) if row["runs"]]
            await self._pause(conn)
        for row in rows:
            key = row["ordering_key"]
            assert key not in self.running, f"two of {key} at once"
            self.running[key] = row["id"]
        self.dice.shuffle(rows)
        again = [row for row in rows if self.dice.random() < 0.2]
        ended = [row for row in rows if row not in again]
        for row in ended:  # before its commit lets another of the key run
            self.ran[row["ordering_key"]].append(row["id"])
        await self._until_done(conn, lambda c: c.execute(FINISH, [row["id"] for row in ended]), ended)
        for row in again:
            self.failed.add(row["id"])
            aside = self.dice.random() < 0.5
            await self._until_done(conn, partial(_put_back, job_id=row["id"], aside=aside), [row])

    async def _until_done(self, conn: Any, write: Callable[[Any], Awaitable[Any]], rows: list[Any]) -> None:
        """Results are written again until they are in, on another connection if need be, as a finisher does."""
        for row in rows:
            del self.running[row["ordering_key"]]  # the moment it is committed another may have the key
        mine = conn
        while True:
            try:
                if mine.is_closed():
                    mine = await asyncpg.connect(self.dsn)
                async with mine.transaction():
                    await write(mine)
                    await self._pause(mine)
                break
            except GONE:
                continue
        if mine is not conn:
            await mine.close()

    async def _pause(self, conn: Any) -> None:
        """Between statement and commit, where the others come in; or the end of this connection."""
        for _ in range(self.dice.randint(0, 3)):
            await asyncio.sleep(0)
        if self.kills and self.dice.random() < 0.03:
            await conn.execute("select pg_terminate_backend(pg_backend_pid())")


async def _put_back(conn: Any, job_id: int, aside: bool) -> None:
    await conn.execute(PUT_BACK, job_id, aside)


async def stuck(pool: Pool, crowd: Crowd) -> None:
    """Raise once all that is left waits at the gate and nobody is there to open it."""
    only_waiting = "select count(*) filter (where gate = '' or state = 'running') = 0 and count(*) > 0 from jobs"
    while crowd.producing or await pool.fetchval("select exists (select from jobs)"):
        if crowd.kills:
            await sweep(pool)
        elif not crowd.producing:
            assert not await pool.fetchval(only_waiting), "rows wait at the gate for nobody"
        await asyncio.sleep(0)


@pytest.mark.parametrize("kills", [False, True], ids=["", "kills"])
@pytest.mark.parametrize("seed", range(3 if os.environ.get("JOBSD_LONG") else 2))
async def test_a_crowd_runs_every_row_once_in_order_and_never_two_of_a_key(
    database: str, pool: Pool, seed: int, kills: bool
) -> None:
    crowd = Crowd(database, random.Random(seed), kills)
    keys = [f"key {n}" for n in range(8)]
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for half in (keys[:4], keys[4:]):
            group.create_task(crowd.produce(half, 25))
        await asyncio.sleep(0)
        for _ in range(5):
            group.create_task(crowd.work())
        group.create_task(stuck(pool, crowd))
    assert Counter({key: len(ids) for key, ids in crowd.ran.items()}) == Counter(dict.fromkeys(keys, 25))
    for key in keys:
        assert sorted(crowd.ran[key]) == crowd.inserted[key]
        in_order = [job_id for job_id in crowd.ran[key] if job_id not in crowd.failed]
        assert in_order == sorted(in_order)
