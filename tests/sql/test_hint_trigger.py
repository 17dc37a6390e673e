"""The hint that an insert sends: after the commit, seldom, to its own schema, never at another producer's cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from daemon.migrate import migrate
from daemon.statements import search_path
from daemon.upkeep_store import UpkeepStore
from tests.sql.rows import Pool

LONG_AGO = "select setval('jobs_hint_clock', 0)"
REGISTER = """insert into {schema}.job_workers (name, version, kinds, queues, lease_until)
              values ('ear', '1', '{{}}', '{{}}', now() + interval '1 hour')"""
STOPPED_CLOCK = """
create table clock (ms bigint);
insert into clock values (1e12);
create function clock_timestamp() returns timestamptz language sql as 'select to_timestamp(ms / 1000.0) from clock';
alter function job_hint() set search_path = public, pg_catalog, pg_temp
"""


class Ear:
    """Counts the hints of a channel, as a worker of its own."""

    def __init__(self) -> None:
        self.hints = 0
        self._mark = asyncio.Event()

    def hear(self, _conn: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == "mark":
            self._mark.set()
        else:
            self.hints += 1

    async def count(self, pool: Pool, channel: str) -> int:
        """The hints so far: notifications keep the order of their commits, so all are in when our own one is."""
        await pool.execute("select pg_notify($1, 'mark')", channel)
        async with asyncio.timeout(60):
            await self._mark.wait()
        self._mark.clear()
        return self.hints


@asynccontextmanager
async def listening(dsn: str, channel: str = "jobsd:public") -> AsyncIterator[Ear]:
    ear = Ear()
    conn = await asyncpg.connect(dsn)
    try:
        await conn.add_listener(channel, ear.hear)
        await conn.execute(REGISTER.format(schema=channel.removeprefix("jobsd:")))
        yield ear
    finally:
        await conn.close()


async def test_a_hint_comes_with_the_commit_and_not_before(database: str, pool: Pool) -> None:
    async with listening(database) as ear, pool.acquire() as conn:
        async with conn.transaction():
            await conn.execute("insert into jobs (kind) values ('noop')")
            assert await ear.count(pool, "jobsd:public") == 0
        assert await ear.count(pool, "jobsd:public") == 1


async def test_a_rollback_sends_no_hint(database: str, pool: Pool) -> None:
    async with listening(database) as ear, pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute("insert into jobs (kind) values ('noop')")
        await transaction.rollback()
        assert await ear.count(pool, "jobsd:public") == 0


async def test_a_thousand_inserts_send_few_hints_and_the_first_at_once(database: str, pool: Pool) -> None:
    async with listening(database) as ear, pool.acquire() as conn:
        began = await conn.fetchval("select clock_timestamp()")
        for _ in range(1000):
            await conn.execute("insert into jobs (kind) values ('noop')")
        took = await conn.fetchval("select clock_timestamp()") - began
        # one in 5 ms of the server's own clock, however slow this machine is today
        assert 1 <= await ear.count(pool, "jobsd:public") <= took.total_seconds() / 0.005 + 1


async def test_a_burst_within_five_milliseconds_sends_one_hint(database: str, pool: Pool) -> None:
    """By a clock that moves only when told to, so that it is the same on a slow machine."""
    async with listening(database) as ear, pool.acquire() as conn:
        await conn.execute(STOPPED_CLOCK)
        for later_ms, hints in ((0, 1), (4, 1), (1, 2), (4, 2)):
            await conn.execute("update clock set ms = ms + $1", later_ms)
            for _ in range(20):
                await conn.execute("insert into jobs (kind) values ('noop')")
            assert await ear.count(pool, "jobsd:public") == hints


async def test_where_nobody_lives_no_hint_is_sent_until_somebody_does(database: str, pool: Pool) -> None:
    """Of two moments in one silence of 250 ms the first is nobody's, and the second a new worker's."""
    async with listening(database) as ear, pool.acquire() as conn:
        await conn.execute(STOPPED_CLOCK)
        await conn.execute("update job_workers set lease_until = now() - interval '1 second'")
        for later_ms, silence in ((0, 250), (249, 1), (1, 250)):
            await conn.execute("update clock set ms = ms + $1", later_ms)
            await conn.execute("insert into jobs (kind) values ('noop')")
            ends = await conn.fetchval("select last_value + 128 - ms from jobs_hint_clock, clock")
            assert (ends, await ear.count(pool, "jobsd:public")) == (silence, 0)
        await conn.execute(REGISTER.format(schema="public"))
        await conn.execute("insert into jobs (kind) values ('noop')")
        assert await ear.count(pool, "jobsd:public") == 1


async def test_a_clock_that_was_put_back_silences_nobody(database: str, pool: Pool) -> None:
    async with listening(database) as ear, pool.acquire() as conn:
        await conn.execute(STOPPED_CLOCK)
        await conn.execute("insert into jobs (kind) values ('noop')")
        await conn.execute("update clock set ms = ms - 3600000")
        await conn.execute("insert into jobs (kind) values ('noop')")
        assert await ear.count(pool, "jobsd:public") == 2


async def test_a_long_transaction_of_many_inserts_gathers_no_locks(pool: Pool) -> None:
    """Each of them sends a hint, and locks are kept until the end: the lock table would be full, for everybody."""
    locks = "select count(*) from pg_locks where pid = pg_backend_pid()"
    async with pool.acquire() as conn, conn.transaction():
        counts = []
        for _ in range(3):
            for _ in range(10):
                await conn.execute(LONG_AGO)
                await conn.execute("insert into jobs (kind) values ('noop')")
                await conn.execute("select pg_sleep(0.001)")
            counts.append(await conn.fetchval(locks))
    assert counts[0] == counts[2]


async def test_clients_that_see_the_same_old_time_at_once_send_one_hint(database: str, pool: Pool) -> None:
    """All have read the turn before anyone moves it: here one reads it, and another moves it on."""
    async with listening(database) as ear, pool.acquire() as conn:
        await conn.execute("insert into jobs (kind) values ('noop')")
        await conn.execute(
            """create function nextval(text) returns bigint language sql as
               $$ select pg_catalog.nextval($1::regclass); select pg_catalog.nextval($1::regclass) $$"""
        )
        await conn.execute("alter function job_hint() set search_path = public, pg_catalog, pg_temp")
        await conn.execute(LONG_AGO)
        await conn.execute("insert into jobs (kind) values ('noop')")
        assert await ear.count(pool, "jobsd:public") == 1


@pytest.mark.req("AS-01")
async def test_an_insert_never_waits_for_another_producers_open_transaction(pool: Pool) -> None:
    async with pool.acquire() as slow, pool.acquire() as quick:
        await quick.execute("set statement_timeout = '2s'")
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(LONG_AGO)
        await slow.execute("insert into jobs (kind, idempotency_key, unique_key) values ('noop', 'a', 'a')")
        for n in range(20):
            await quick.execute(LONG_AGO)  # so that it sends its own hint
            await quick.execute(
                "insert into jobs (kind, idempotency_key, unique_key) values ('noop', $1, $1)", f"key {n}"
            )
        await transaction.rollback()
    assert await pool.fetchval("select count(*) from jobs") == 20


async def test_a_producer_elsewhere_needs_no_search_path_and_only_the_right_to_insert(
    database: str, pool: Pool
) -> None:
    await migrate(database, "other")
    role = f"producer_{await pool.fetchval('select oid from pg_database where datname = current_database()')}"
    await pool.execute(
        f"create role {role}; grant usage on schema other to {role}; grant insert on other.jobs to {role}"
    )
    try:
        async with listening(database, "jobsd:other") as ear, listening(database) as wrong_ear:
            conn = await asyncpg.connect(database, server_settings={"search_path": "pg_catalog"})
            try:
                await conn.execute(f"set role {role}")
                for _ in range(2):
                    await conn.execute("insert into other.jobs (kind, idempotency_key) values ('noop', 'k')")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.fetch("select * from other.jobs")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute("insert into other.job_keys values ('noop', 'k', 1)")
            finally:
                await conn.close()
            assert await ear.count(pool, "jobsd:other") >= 1
            assert await wrong_ear.count(pool, "jobsd:public") == 0
        assert await pool.fetchval("select count(*) from other.jobs") == 1
    finally:
        await pool.execute(f"drop owned by {role}; drop role {role}")


async def test_a_producers_own_objects_cannot_lead_the_triggers_astray(pool: Pool) -> None:
    """A schema ahead on the producer's path has a job_keys and a pg_notify of its own."""
    await pool.execute(
        """create schema trap; create table trap.job_keys (kind text, key text, job_id bigint);
           create function trap.pg_notify(text, text) returns void language sql as 'select 1/0'"""
    )
    async with pool.acquire() as conn:
        await conn.execute("set search_path = trap, public, pg_catalog")
        await conn.execute(LONG_AGO)
        await conn.execute("insert into jobs (kind, idempotency_key) values ('noop', 'k')")
        assert await conn.fetchval("select count(*) from trap.job_keys") == 0


async def test_the_daemons_own_hint_goes_where_the_triggers_go(database: str) -> None:
    await migrate(database, "other")
    async with (
        asyncpg.create_pool(database, min_size=1, server_settings={"search_path": search_path("other")}) as pool,
        listening(database, "jobsd:other") as ear,
    ):
        await UpkeepStore(pool).hint()
        assert await ear.count(pool, "jobsd:other") == 1
