"""What daemons ask of the tables and do about them: in one question, and nothing more while there is nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from daemon.chores import EVERY_S, Chores
from daemon.config import parse
from daemon.holds import FOREVER, Holds
from daemon.keeper import Keeper
from daemon.observe import Observer
from daemon.operation import Operation
from daemon.operator_store import Moment, Order
from daemon.store import Store
from daemon.tallies import Tallies
from daemon.upkeep_store import Found, UpkeepStore
from jobs.model import Done
from tests.sql.rows import Insert, Pool, Worker, claim, die, ended

ORDER = Order("ann", "pause", "queue a", "no need")
LEFT_PER_S = 0.7
"""Of two statements a second, what is left to upkeep: a look at the queues takes one; the lease, the question whether
somebody listens and the one about claims whose answer was lost take a tenth each."""


def found(**there: Any) -> Found:
    nothing = Found(
        lost=[],
        over=False,
        paused={},
        unwanted=False,
        late=False,
        ordered=False,
        children=False,
        domains=False,
        alive=0,
        soon_s=None,
    )
    return replace(nothing, **there)


@pytest.fixture
def chores(keeping: UpkeepStore, observer: Observer) -> Chores:
    return Chores(keeping, observer, lambda: parse(""), nothing, Tallies(lambda: None))


@pytest.fixture
async def desk(database: str) -> AsyncIterator[asyncpg.Connection]:
    """An operator's."""
    conn = await asyncpg.connect(database)
    yield conn
    await conn.close()


async def done(chores: Chores) -> list[str]:
    """Ask once and do what there is to do; its names."""
    wanted = chores.wanted(await chores.ask())
    for chore in wanted:
        await chore.do()
    return [chore.name for chore in wanted]


async def test_where_there_is_nothing_nothing_is_done(chores: Chores, insert: Insert, worker: Worker) -> None:
    """Rows that wait or run in good order are nothing."""
    await worker()
    await insert(3)
    assert await done(chores) == []


async def test_each_thing_is_found_done_and_then_over(
    pool: Pool, chores: Chores, store: Store, worker: Worker, insert: Insert
) -> None:
    now, ms = await pool.fetchval("select now()"), timedelta(milliseconds=1)
    lost = await worker()
    (cursed,) = await insert(queue="cursed")
    await pool.execute("update jobs set crashes = 2")
    await claim(store, lost, queue="cursed")
    await die(pool, lost)
    (late,) = await insert(expires_at=now - ms)
    (unwanted,) = await insert()
    await pool.execute("""update jobs set cancel_asked = '{"reason": "x"}', gate = 'cancel' where id = $1""", unwanted)
    await pool.execute("insert into job_holds (gate, cause, until) values ('queue:a', 'pause', now())")
    await pool.execute(
        """with batch as (insert into job_batches (callback_kind) values ('noop') returning id)
           insert into jobs (kind, batch_id) select 'noop', id from batch"""
    )
    await pool.execute("delete from jobs where batch_id is not null")
    await insert(2, ordering_key="k")
    await pool.execute("update jobs set gate = 'order' where ordering_key = 'k'")
    assert await done(chores) == ["rescue", "pauses", "cancel", "expire", "order", "batches"]
    states = {row["id"]: row["state"] for row in await pool.fetch("select id, state from job_history")}
    assert states == {cursed: "dead", late: "dead", unwanted: "cancelled"}
    assert await pool.fetch("select from job_holds") == []
    assert await pool.fetch("select from job_workers") == []
    assert await pool.fetchval("select count(*) from job_batches where ended_at is null") == 0
    assert await pool.fetchval("select count(*) from jobs where gate = ''") == 2, "the first of the key, and a callback"
    assert await done(chores) == ["pauses"], "it is said that the pause is over"
    assert await done(chores) == [], "the second row of the key waits, and is looked at now and then"


@pytest.mark.req("BJ-20")
async def test_domains_that_are_due_are_checked_and_how_late_that_is_is_known(
    pool: Pool, chores: Chores, observer: Observer
) -> None:
    await pool.execute("insert into domains (domain) values ('shop.example')")
    await pool.execute("delete from jobs")
    await pool.execute("update domains set next_check_at = now() - interval '1 minute'")
    await pool.execute("update domain_plan set planned_at = now() - interval '1 minute'")
    assert await done(chores) == ["domains"]
    assert await pool.fetchval("select count(*) from jobs where kind = 'domain_check'") == 1
    late_s = observer.metrics.registry.get_sample_value("jobsd_domains_late_seconds")
    assert late_s == pytest.approx(60, abs=30)
    assert await done(chores) == ["domains"], "once more, to see that nothing is late"
    assert observer.metrics.registry.get_sample_value("jobsd_domains_late_seconds") == 0
    assert await done(chores) == []


async def test_what_comes_back_from_the_dead_and_is_not_wanted_ends_at_once(
    pool: Pool, chores: Chores, store: Store, worker: Worker, insert: Insert, desk: asyncpg.Connection
) -> None:
    (job_id,) = await insert()
    lost = await worker()
    await claim(store, lost)
    await Operation(desk, ORDER).cancel([job_id])
    await die(pool, lost)
    assert await done(chores) == ["rescue"]
    assert await pool.fetchval("select state from job_history where id = $1", job_id) == "cancelled"


async def test_a_row_whose_time_has_not_come_is_not_found(
    pool: Pool, chores: Chores, store: Store, worker: Worker, insert: Insert
) -> None:
    hour = timedelta(hours=1)
    await insert(expires_at=await pool.fetchval("select now()") + hour)
    (running,) = await claim(store, await worker(), 1)
    await pool.execute("""update jobs set cancel_asked = '{"reason": "x"}' where id = $1""", running.id)
    await pool.execute("insert into job_holds (gate, cause, until) values ('lane:l', 'breaker', now())")
    assert await done(chores) == []
    await store.write([ended(running, Done())])


async def test_it_tells_who_lives_what_is_paused_and_what_ends_first(
    pool: Pool, keeping: UpkeepStore, worker: Worker, desk: asyncpg.Connection
) -> None:
    assert await keeping.found(10, 10) == found()
    await worker(60.0)
    await Holds(desk).pause("kind:a", FOREVER, ORDER)
    await Holds(desk).pause("queue:a", Moment(None, 30.0), ORDER)
    told = await keeping.found(10, 10)
    assert told.soon_s is not None
    assert 0 < told.soon_s <= 30
    assert told == found(
        alive=1, soon_s=told.soon_s, paused={"kind:a": ("ann", "no need"), "queue:a": ("ann", "no need")}
    )
    assert list((await keeping.found(10, 1)).paused) == ["kind:a"]
    await pool.execute("update job_holds set until = 'infinity'; update job_workers set lease_until = 'infinity'")
    assert (await keeping.found(10, 10)).soon_s == float("inf")


async def test_who_is_called_asks_at_once(
    pool: Pool, keeping: UpkeepStore, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when it would have asked anyway, which here is in an hour."""
    monkeypatch.setattr("daemon.keeper.pause_s", lambda found, dice: 3600.0)
    over = "insert into job_holds (gate, cause, until) values ($1, 'pause', now())"
    ended = asyncio.Event()
    await pool.execute(over, "queue:a")
    keeper = Keeper(keeping, observer, lambda: parse(""), ended.set, nothing, no_strays, Tallies(lambda: None))
    keeping_on = asyncio.create_task(keeper.run())
    for gate in ("queue:b", "queue:c", None):
        await asyncio.wait_for(ended.wait(), 30)
        ended.clear()
        if gate is not None:
            await pool.execute(over, gate)
            keeper.look_again()
    keeping_on.cancel()
    assert await pool.fetch("select from job_holds") == []


async def test_idle_daemons_ask_little(database: str, observer: Observer) -> None:
    """The statements of one round of each task over its rhythm, in a database in which nothing happens."""
    async with listened(database) as (pool, sent):
        tallies, keeping = Tallies(lambda: None), UpkeepStore(pool)
        chores = Chores(keeping, observer, lambda: parse(""), nothing, tallies)
        keeper = Keeper(keeping, observer, lambda: parse(""), nothing, nothing, no_strays, tallies)
        per_s = {}
        for _ in range(2):  # in its first round a connection asks for types, and the days to come are made
            sent.clear()
            assert chores.wanted(await chores.ask()) == []
            per_s["chores"] = len(sent) / EVERY_S
            for task in keeper.tasks:
                sent.clear()
                await task.do()
                per_s[task.name] = len(sent) / task.every_s
    assert per_s["chores"] == 1 / EVERY_S
    assert sum(per_s.values()) <= LEFT_PER_S, per_s


@asynccontextmanager
async def listened(database: str) -> AsyncIterator[tuple[Pool, list[str]]]:
    """A pool, and the statements that go over it."""
    sent: list[str] = []

    def hear(record: Any) -> None:
        sent.append(record.query)

    async def listen(conn: Any) -> None:
        conn.add_query_logger(hear)

    async def forget(_conn: Any) -> None:
        return None

    async with asyncpg.create_pool(database, min_size=1, max_size=1, setup=listen, reset=forget) as pool:
        yield pool, sent


async def no_strays() -> int:
    return 0


def nothing() -> None:
    return None
