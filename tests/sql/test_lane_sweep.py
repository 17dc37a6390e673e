"""Rows of a shut destination are moved out of the way of the others, in bulk and beside the claims."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.lane_store import Arrived, LaneStore
from daemon.lane_sweep import FROM_THE_FIRST, PAGE, Sweep
from daemon.store import Store
from tests.life.fleet import observer_to
from tests.sql.rows import Insert, Pool, Worker, claim

DEAD, WELL = "dead.example.com", "well.example.com"
GATE = f"lane:{DEAD}"
URL = {DEAD: f"https://{DEAD}/a", WELL: f"https://{WELL}/a"}


@pytest.fixture
def store(pool: Pool) -> LaneStore:
    return LaneStore(pool)


async def webhooks(pool: Pool, lane: str, rows: int, *, priority: int = 2) -> list[int]:
    found = await pool.fetch(
        """insert into jobs (kind, args, priority)
           select 'webhook', jsonb_build_object('url', $1::text), $3 from generate_series(1, $2::int) returning id""",
        URL[lane],
        rows,
        priority,
    )
    return [row[0] for row in found]


async def closed(pool: Pool) -> None:
    await pool.execute("insert into job_holds (gate, cause) values ($1, 'breaker')", GATE)


async def standing(pool: Pool) -> dict[str, int]:
    rows = await pool.fetch("select gate, count(*) as n from jobs where state = 'ready' group by gate order by gate")
    return {row["gate"]: row["n"] for row in rows}


class TestPark:
    async def test_rows_of_a_closed_lane_go_to_its_gate_and_the_others_stay(
        self, pool: Pool, store: LaneStore, worker: Worker
    ) -> None:
        first, *_rest = await webhooks(pool, DEAD, 3)
        (last,) = await webhooks(pool, WELL, 1)
        await closed(pool)
        page, arrived = await store.park("default", 2, FROM_THE_FIRST, [], 100)
        assert (page.looked, page.id) == (4, last)
        run_at = await pool.fetchval("select date_part('epoch', run_at) from jobs where id = $1", first)
        assert arrived == [Arrived(GATE, 3, run_at)]
        assert await standing(pool) == {"": 1, GATE: 3}
        assert await pool.fetchval("select max(attempt) from jobs") == 0
        jobs = await claim(Store(pool), await worker(), kinds=["webhook"])
        assert [(job.id, job.lane) for job in jobs] == [(last, WELL)]

    async def test_so_do_those_of_a_lane_that_is_full_here(self, pool: Pool, store: LaneStore) -> None:
        await webhooks(pool, DEAD, 2)
        assert (await store.park("default", 2, FROM_THE_FIRST, [GATE], 100))[1][0].rows == 2

    async def test_with_no_lane_shut_nothing_is_even_looked_at(self, pool: Pool, store: LaneStore) -> None:
        await webhooks(pool, DEAD, 2)
        page, arrived = await store.park("default", 2, FROM_THE_FIRST, [], 100)
        assert (page.looked, arrived) == (0, [])

    async def test_it_goes_on_where_it_ended(self, pool: Pool, store: LaneStore) -> None:
        ids = await webhooks(pool, DEAD, 5)
        await closed(pool)
        page, _ = await store.park("default", 2, FROM_THE_FIRST, [], 3)
        assert page.id == ids[2]
        page, _ = await store.park("default", 2, (page.run_at, page.id), [], 3)
        assert (page.looked, page.id) == (2, ids[4])

    async def test_rows_of_other_classes_queues_gates_and_times_stay(
        self, pool: Pool, store: LaneStore, insert: Insert
    ) -> None:
        await closed(pool)
        await insert(1, lane=DEAD)
        await pool.execute("update jobs set gate = 'suspect'")
        await insert(1, lane=DEAD, priority=1)
        await insert(1, lane=DEAD, queue="other")
        await pool.execute("insert into jobs (kind, lane, run_at) values ('noop', $1, now() + interval '1 hour')", DEAD)
        assert (await store.park("default", 2, FROM_THE_FIRST, [], 100))[1] == []

    async def test_it_passes_by_what_a_claim_holds_and_a_claim_by_what_it_holds(
        self, pool: Pool, store: LaneStore, worker: Worker
    ) -> None:
        ids = await webhooks(pool, DEAD, 4)
        await closed(pool)
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute("select from jobs where id = any ($1) for update", ids[:2])
            _page, arrived = await store.park("default", 2, FROM_THE_FIRST, [], 100)
            assert arrived[0].rows == 2
        assert await standing(pool) == {"": 2, GATE: 2}


class TestSweep:
    @pytest.fixture
    def sweep(self, store: LaneStore, tmp_path: Path) -> Iterator[Sweep]:
        with observer_to(tmp_path / "log") as observer:
            yield Sweep(store, list, observer)

    async def test_it_walks_a_queue_class_by_class_and_says_where_rows_stand_now(
        self, pool: Pool, sweep: Sweep
    ) -> None:
        told: list[tuple[str, str, int]] = []
        sweep.on_arrived = lambda queue, gate, priority, run_at: told.append((queue, gate, priority))
        await webhooks(pool, DEAD, PAGE + 10)
        await webhooks(pool, DEAD, 10, priority=4)
        await webhooks(pool, WELL, 5)
        await closed(pool)
        sweep.begin("default")
        await to_its_end(sweep)
        assert await standing(pool) == {"": 5, GATE: PAGE + 20}
        assert told == [("default", GATE, 2)] * 2 + [("default", GATE, 4)]

    async def test_it_does_not_read_on_where_few_rows_had_to_be_moved(self, pool: Pool, sweep: Sweep) -> None:
        await webhooks(pool, WELL, PAGE)
        await webhooks(pool, DEAD, 10)
        await closed(pool)
        sweep.begin("default")
        await to_its_end(sweep)
        assert await standing(pool) == {"": PAGE + 10}

    async def test_a_second_word_about_a_queue_does_not_begin_anew(self, pool: Pool, sweep: Sweep) -> None:
        sweep.begin("default")
        await sweep.step()
        sweep.begin("default")
        steps = 1 + await to_its_end(sweep)
        assert steps == 4


async def to_its_end(sweep: Sweep) -> int:
    steps = 0
    while sweep:
        await sweep.step()
        steps += 1
        assert steps < 100
    return steps
