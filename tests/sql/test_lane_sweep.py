"""Rows of a shut destination are moved out of the way of the others, in bulk and beside the claims."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from daemon.lane_store import Arrived, Edge, LaneStore
from daemon.lane_sweep import LOOK, PAGE, SHARE, Sweep
from daemon.passed import FROM_THE_FIRST
from daemon.store import Store
from tests.life.fleet import observer_to
from tests.sql.rows import Insert, Pool, Worker, claim

DEAD, WELL = "dead.example.com", "well.example.com"
GATE = f"lane:{DEAD}"
OPEN = ("default", "")
RETRIES = ("default", "retry")
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
        page, arrived = await store.park(OPEN, 2, FROM_THE_FIRST, [], 100)
        assert (page.looked, page.id) == (4, last)
        run_at = await pool.fetchval("select date_part('epoch', run_at) from jobs where id = $1", first)
        assert arrived == [Arrived(GATE, 3, run_at)]
        assert await standing(pool) == {"": 1, GATE: 3}
        assert await pool.fetchval("select max(attempt) from jobs") == 0
        jobs = await claim(Store(pool), await worker(), kinds=["webhook"])
        assert [job.id for job in jobs] == [last]

    async def test_so_do_those_of_a_lane_that_is_full_here(self, pool: Pool, store: LaneStore) -> None:
        await webhooks(pool, DEAD, 2)
        assert (await store.park(OPEN, 2, FROM_THE_FIRST, [GATE], 100))[1][0].rows == 2

    async def test_with_no_lane_shut_nothing_is_even_looked_at(self, pool: Pool, store: LaneStore) -> None:
        await webhooks(pool, DEAD, 2)
        page, arrived = await store.park(OPEN, 2, FROM_THE_FIRST, [], 100)
        assert (page.looked, arrived) == (0, [])

    async def test_it_goes_on_where_it_ended(self, pool: Pool, store: LaneStore) -> None:
        ids = await webhooks(pool, DEAD, 5)
        await closed(pool)
        page, _ = await store.park(OPEN, 2, FROM_THE_FIRST, [], 3)
        assert page.id == ids[2]
        page, _ = await store.park(OPEN, 2, (page.run_at, page.id), [], 3)
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
        assert (await store.park(OPEN, 2, FROM_THE_FIRST, [], 100))[1] == []

    async def test_so_do_retries_from_their_gate(self, pool: Pool, store: LaneStore) -> None:
        await webhooks(pool, DEAD, 2)
        await closed(pool)
        await pool.execute("update jobs set gate = 'retry'")
        assert (await store.park(OPEN, 2, FROM_THE_FIRST, [], 100))[1] == []
        assert (await store.park(RETRIES, 2, FROM_THE_FIRST, [], 100))[1][0].rows == 2

    async def test_it_passes_by_what_a_claim_holds_and_a_claim_by_what_it_holds(
        self, pool: Pool, store: LaneStore, worker: Worker
    ) -> None:
        ids = await webhooks(pool, DEAD, 4)
        await closed(pool)
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute("select from jobs where id = any ($1) for update", ids[:2])
            _page, arrived = await store.park(OPEN, 2, FROM_THE_FIRST, [], 100)
            assert arrived[0].rows == 2
        assert await standing(pool) == {"": 2, GATE: 2}


class TestEdge:
    async def test_it_is_before_the_first_row_of_another_lane(self, pool: Pool, store: LaneStore) -> None:
        ids = await webhooks(pool, DEAD, 3)
        await webhooks(pool, WELL, 1)
        await closed(pool)
        run_at = await pool.fetchval("select date_part('epoch', max(run_at)) from jobs where id = any ($1)", ids)
        edge = await store.edge(OPEN, 2, FROM_THE_FIRST, [], 100)
        assert edge is not None
        assert edge.other
        assert (run_at, ids[-1]) <= edge.position
        assert await due_after(pool, edge) == 1

    async def test_so_it_is_among_rows_of_one_moment(self, pool: Pool, store: LaneStore) -> None:
        ids = await webhooks(pool, DEAD, 4)
        await pool.execute("update jobs set lane = 'another' where id = $1", ids[2])
        await closed(pool)
        edge = await store.edge(OPEN, 2, FROM_THE_FIRST, [], 100)
        assert edge is not None
        assert edge.other
        assert edge.position[1] == ids[1]

    async def test_a_row_whose_lane_sql_cannot_tell_is_another(self, pool: Pool, store: LaneStore) -> None:
        await pool.execute("insert into jobs (kind) values ('noop')")
        await webhooks(pool, DEAD, 1)
        await closed(pool)
        edge = await store.edge(OPEN, 2, FROM_THE_FIRST, [], 100)
        assert edge is not None
        assert edge.other
        assert await due_after(pool, edge) == 2

    async def test_else_it_is_the_last_row_looked_at(self, pool: Pool, store: LaneStore) -> None:
        ids = await webhooks(pool, DEAD, 5)
        edge = await store.edge(OPEN, 2, FROM_THE_FIRST, [GATE], 3)
        assert edge is not None
        assert (edge.position[1], edge.other, edge.looked) == (ids[2], False, 3)
        edge = await store.edge(OPEN, 2, edge.position, [GATE], 3)
        assert edge is not None
        assert (edge.position[1], edge.other, edge.looked) == (ids[4], False, 2)
        assert await store.edge(OPEN, 2, edge.position, [GATE], 3) is None

    async def test_with_no_lane_shut_there_is_none(self, pool: Pool, store: LaneStore) -> None:
        await webhooks(pool, DEAD, 2)
        assert await store.edge(OPEN, 2, FROM_THE_FIRST, [], 100) is None


class TestSweep:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def sweep(self, store: LaneStore, tmp_path: Path, clock: Clock) -> Iterator[Sweep]:
        with observer_to(tmp_path / "log") as observer:
            yield Sweep(store, list, list, observer, clock=clock)

    async def test_it_says_behind_which_rows_claims_may_begin_before_it_moves_any(
        self, pool: Pool, sweep: Sweep
    ) -> None:
        ids = await webhooks(pool, DEAD, LOOK + 10)
        await webhooks(pool, WELL, 5)
        await closed(pool)
        told: list[int] = []
        sweep.on_passed = lambda place, priority, position: told.append(position[1])
        sweep.begin(OPEN, 2)
        await sweep.step()
        await sweep.step()
        assert told == [ids[LOOK - 1], ids[-1]]
        assert await standing(pool) == {"": LOOK + 15}

    async def test_then_it_moves_them_and_says_where_they_stand_now(
        self, pool: Pool, sweep: Sweep, clock: Clock
    ) -> None:
        told: list[tuple[str, str, int]] = []
        ends: list[tuple[tuple[str, str], int, float | None]] = []
        sweep.on_arrived = lambda queue, gate, priority, run_at: told.append((queue, gate, priority))
        sweep.on_end = lambda place, priority, run_at: ends.append((place, priority, run_at))
        await webhooks(pool, DEAD, PAGE + 10)
        await webhooks(pool, DEAD, 10, priority=4)
        await webhooks(pool, WELL, 5)
        await closed(pool)
        sweep.begin(OPEN, 2)
        await to_its_end(sweep, clock)
        assert await standing(pool) == {"": 15, GATE: PAGE + 10}
        assert told == [("default", GATE, 2)] * 2
        assert ends == [(OPEN, 2, None)]
        sweep.begin(OPEN, 4)
        await to_its_end(sweep, clock)
        assert told[2:] == [("default", GATE, 4)]

    async def test_what_claims_need_not_meet_is_moved_in_a_share_of_the_time(
        self, pool: Pool, sweep: Sweep, clock: Clock
    ) -> None:
        await webhooks(pool, DEAD, 2 * PAGE)
        await closed(pool)
        sweep.begin(OPEN, 2)
        while GATE not in await standing(pool):
            clock.each_look_takes = 0.1
            await sweep.step()
        assert sweep.due_at is not None
        assert sweep.due_at - clock.now == pytest.approx(0.1 * (1 / SHARE - 1))
        await sweep.step()
        assert (await standing(pool))[GATE] == PAGE
        clock.now = sweep.due_at
        await sweep.step()
        assert (await standing(pool))[GATE] == 2 * PAGE

    async def test_once_their_lane_is_open_the_rest_stay_and_may_be_claimed(
        self, pool: Pool, sweep: Sweep, clock: Clock
    ) -> None:
        ids = await webhooks(pool, DEAD, 2 * PAGE)
        await closed(pool)
        ends: list[float | None] = []
        sweep.on_end = lambda place, priority, run_at: ends.append(run_at)
        sweep.begin(OPEN, 2)
        while GATE not in await standing(pool):
            await sweep.step()
        await pool.execute("delete from job_holds")
        clock.now = sweep.due_at or 0.0
        await sweep.step()
        assert await standing(pool) == {"": PAGE, GATE: PAGE}
        run_at = await pool.fetchval("select date_part('epoch', run_at) from jobs where id = $1", ids[PAGE - 1])
        assert ends == [run_at]
        assert sweep.due_at is None

    async def test_when_one_of_two_lanes_opens_its_rows_are_passed_by_no_more(self, pool: Pool, sweep: Sweep) -> None:
        other, *_ = await webhooks(pool, WELL, 1)
        await webhooks(pool, DEAD, PAGE)
        await closed(pool)
        await pool.execute("insert into job_holds (gate, cause) values ($1, 'breaker')", f"lane:{WELL}")
        passed: list[int] = []
        ends: list[float | None] = []
        sweep.on_passed = lambda place, priority, position: passed.append(position[1])
        sweep.on_end = lambda place, priority, run_at: ends.append(run_at)
        sweep.begin(OPEN, 2)
        await sweep.step()
        await pool.execute("delete from job_holds where gate = $1", f"lane:{WELL}")
        sweep.again()
        assert ends == [-inf]
        await sweep.step()
        assert passed == [other + PAGE, other - 1]

    async def test_it_does_not_read_on_where_few_rows_had_to_be_moved(
        self, pool: Pool, sweep: Sweep, clock: Clock
    ) -> None:
        await webhooks(pool, WELL, PAGE)
        await webhooks(pool, DEAD, 10)
        await closed(pool)
        sweep.begin(OPEN, 2)
        await to_its_end(sweep, clock)
        assert await standing(pool) == {"": PAGE + 10}

    async def test_a_second_word_about_a_queue_looks_on_where_it_was(
        self, pool: Pool, sweep: Sweep, clock: Clock
    ) -> None:
        told: list[int] = []
        sweep.on_passed = lambda place, priority, position: told.append(position[1])
        first = await webhooks(pool, DEAD, PAGE)
        await closed(pool)
        sweep.begin(OPEN, 2)
        await sweep.step()
        second = await webhooks(pool, DEAD, 10)
        sweep.begin(OPEN, 2)
        await sweep.step()
        assert told == [first[-1], second[-1]]


class Clock:
    """Stands still, unless a reading takes time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.each_look_takes = 0.0

    def __call__(self) -> float:
        self.now += self.each_look_takes
        return self.now


async def due_after(pool: Pool, edge: Edge) -> int:
    found: int = await pool.fetchval(
        "select count(*) from jobs where (run_at, id) > (to_timestamp($1::float8), $2)", *edge.position
    )
    return found


async def to_its_end(sweep: Sweep, clock: Clock) -> None:
    steps = 0
    while (due_at := sweep.due_at) is not None:
        clock.now = max(clock.now, due_at)
        await sweep.step()
        steps += 1
        assert steps < 100
