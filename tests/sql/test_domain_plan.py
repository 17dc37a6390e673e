"""Who is due is checked: each once, the oldest first, and never more in a minute than is allowed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import sql
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from tests.sql.domains import PLAN, register
from tests.sql.rows import Pool, Worker, claim

pytestmark = pytest.mark.req("BJ-20")

DUE = """insert into domains (domain, state, next_check_at)
         select 'd' || n || '.example', 'verified', now() - n * interval '1 s' from generate_series(1, $1::int) as n"""
ORDERS = sql.load("domain_orders.sql")
RESTED = "update domain_plan set planned_at = now() - interval '1 h'"


async def due(pool: Pool, count: int) -> None:
    await pool.execute(DUE, count)
    await pool.execute("delete from jobs")
    await pool.execute(RESTED)


async def test_each_domain_that_is_due_gets_one_check_whoever_plans(pool: Pool, keeping: UpkeepStore) -> None:
    await due(pool, 20)
    await register(pool, "later.example")
    await pool.execute("delete from jobs")
    planned = await asyncio.gather(*(keeping.plan_domains(60_000) for _ in range(5)))
    assert sum(n for n, _late in planned) == 20
    rows = await pool.fetch("select kind, args ->> 'domain' as domain, priority from jobs order by id")
    assert [row["domain"] for row in rows] == [f"d{n}.example" for n in range(20, 0, -1)]
    assert {(row["kind"], row["priority"]) for row in rows} == {("domain_check", 4)}
    assert await keeping.plan_domains(60_000) == (0, 0.0)


async def test_who_clicks_waits_for_nobody_who_does_not(
    pool: Pool, keeping: UpkeepStore, store: Store, worker: Worker
) -> None:
    """After an outage: first checks of a crowd, and planned ones of domains in every state, have been due for hours."""
    await pool.execute("insert into domains (domain) select 'c' || n || '.example' from generate_series(1, 150) as n")
    classes = await pool.fetch("select priority, count(*) as rows from jobs group by priority order by priority")
    assert [tuple(row) for row in classes] == [(2, 100), (3, 50)]
    await pool.execute("delete from jobs where priority = 2")
    await pool.execute("update domains set next_check_at = now() - interval '2 h' where id % 3 = 0")
    await pool.execute(DUE, 20)
    await pool.execute("delete from jobs where args ->> 'domain' like 'd%'")
    await pool.execute(RESTED)
    assert (await keeping.plan_domains(60_000))[0] > 20
    await pool.execute("update jobs set run_at = now() - interval '2 h'")
    click = await pool.fetchval(ORDERS["check"], None, "d7.example")
    (job,) = await claim(store, await worker(), 1, kinds=["domain_check"])
    assert job.id == click


async def test_a_check_that_is_still_there_gets_no_second(pool: Pool, keeping: UpkeepStore) -> None:
    await register(pool)
    await pool.execute("update domains set next_check_at = now()")
    await pool.execute(RESTED)
    assert (await keeping.plan_domains(1000))[0] == 0
    assert await pool.fetchval("select count(*) from jobs") == 1
    assert await pool.fetchval("select next_check_at - now() < interval '61 s' from domains")


async def test_the_plan_and_the_end_of_a_check_do_not_wait_for_each_other(pool: Pool, keeping: UpkeepStore) -> None:
    """A check ends, and what was expected has changed meanwhile, so that the domain is due."""
    domain = await register(pool)
    await pool.execute("update domains set next_check_at = now()")
    await pool.execute(RESTED)
    async with pool.acquire() as ending, ending.transaction():
        await ending.execute("delete from jobs where unique_key = $1", str(domain))
        async with asyncio.timeout(60):
            assert (await keeping.plan_domains(1000))[0] == 0
        await ending.execute("update domains set checks = checks + 1")


async def test_a_check_that_came_to_nothing_is_due_again_in_an_hour(pool: Pool, keeping: UpkeepStore) -> None:
    await due(pool, 1)
    assert (await keeping.plan_domains(1000))[0] == 1
    await pool.execute("delete from jobs")  # purged, or a dead letter
    assert await pool.fetchval("select next_check_at - now() from domains") == pytest.approx(
        timedelta(hours=1), abs=timedelta(minutes=1)
    )


async def test_after_an_outage_no_minute_has_more_than_is_allowed_and_the_oldest_come_first(pool: Pool) -> None:
    """Time is moved by moving the plan's clock back, a second a step, for three minutes of asking; in one transaction,
    where it stands still of itself however slow the machine is."""
    await due(pool, 1000)
    planned: list[int] = []
    async with pool.acquire() as conn, conn.transaction():
        for _ in range(180):
            planned.append(await conn.fetchval(PLAN, 210))
            await conn.execute("update domain_plan set planned_at = planned_at - interval '1 s'")
        left = await conn.fetchval("select max(now() - next_check_at) from domains where next_check_at < now()")
    assert max(sum(planned[n : n + 60]) for n in range(121)) <= 210
    assert sum(planned) == pytest.approx(3 * 180 + 30, abs=3)
    assert left == pytest.approx(timedelta(seconds=1000 - sum(planned)), abs=timedelta(seconds=10))


async def test_how_late_the_plan_is_is_known(pool: Pool, keeping: UpkeepStore) -> None:
    await due(pool, 100)
    planned, late_s = await keeping.plan_domains(70)  # ten seconds' worth
    assert (planned, round(late_s)) == (10, 100)
    found = await keeping.found(10, 10)
    assert found.domains


async def test_domains_are_counted_by_state_up_to_a_bound_and_estimated_beyond(
    pool: Pool, keeping: UpkeepStore
) -> None:
    states = {"pending": 30, "verified": 300, "degraded": 3, "failed": 0, "expired": 12}
    for state, count in states.items():
        names = "select $1::text || n || '.example', $1 from generate_series(1, $2::int) as n"
        await pool.execute(f"insert into domains (domain, state) {names}", state, count)
    assert await keeping.domain_states(1000) == states
    await pool.execute("analyze domains")
    assert await keeping.domain_states(50) == states
    assert await keeping.domain_states(20) == {**states, "pending": 20, "verified": 310}


async def test_nothing_due_is_nothing_to_do(pool: Pool, keeping: UpkeepStore) -> None:
    await register(pool)
    assert not (await keeping.found(10, 10)).domains


async def test_names_of_domains_lie_evenly_over_the_day(pool: Pool) -> None:
    """A million of them, by the very expression of the column: the largest minute is within a fifth of the mean."""
    slot = await pool.fetchval(
        """select pg_get_expr(adbin, adrelid) from pg_attrdef
           where adrelid = 'domains'::regclass and pg_get_expr(adbin, adrelid) like '%hash%'"""
    )
    largest = await pool.fetchval(
        f"""select max(n) from (
                select count(*) as n
                from (select 'shop' || n || '.example' as domain from generate_series(1, 1000000) as n) as named
                group by floor(({slot}) * 1440)) as minutes"""
    )
    assert largest <= 1.2 * 1_000_000 / 1440
