"""What those behind a failed row of their ordering key do: wait, go on, or wait for a while."""

from __future__ import annotations

import pytest

from daemon.settle import Transition
from daemon.store import Store
from jobs.model import Job, Retry, Snooze
from tests.sql.rows import Insert, Pool, Worker, claim, ended


async def standing(pool: Pool, job_id: int) -> tuple[bool, bool]:
    """Whether the row has stepped aside, and whether it has a time by which it must."""
    (row,) = await pool.fetch("select aside, blocks_until is not null from jobs where id = $1", job_id)
    return row[0], row[1]


def failed(job: Job, wait_s: float | None, again_in_s: float) -> Transition:
    transition = ended(job, Retry("r", after=again_in_s), max_attempts=9)
    transition.order_wait_s = wait_s
    return transition


@pytest.mark.parametrize(
    ("wait_s", "again_in_s", "aside", "limited"),
    [
        (None, 60, False, False),  # block: until it ends
        (0.0, 60, True, True),  # skip
        (600.0, 60, False, True),  # its next attempt comes within the time
        (600.0, 1800, True, True),  # it comes after: to wait would keep no order
    ],
)
async def test_a_failed_row_blocks_for_as_long_as_its_config_says(
    pool: Pool, store: Store, worker: Worker, insert: Insert,
    wait_s: float | None, again_in_s: float, aside: bool, limited: bool,
) -> None:  # fmt: skip
    first, second = await insert(2, ordering_key="k")
    worker_id = await worker()
    (job,) = await claim(store, worker_id)
    await store.write([failed(job, wait_s, again_in_s)])
    assert await standing(pool, first) == (aside, limited)
    assert [job.id for job in await claim(store, worker_id)] == ([second] if aside else [])


async def test_the_time_counts_from_the_first_failure(pool: Pool, store: Store, worker: Worker, insert: Insert) -> None:
    (first,) = await insert(1, ordering_key="k")
    worker_id = await worker()
    (job,) = await claim(store, worker_id)
    await store.write([failed(job, 600.0, 60)])
    await pool.execute("update jobs set run_at = now(), gate = '', blocks_until = blocks_until - interval '590 s'")
    (job,) = await claim(store, worker_id)
    await store.write([failed(job, 600.0, 60)])
    assert await standing(pool, first) == (True, True)


async def test_a_snooze_is_no_failure_and_keeps_its_place(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    first, _second = await insert(2, ordering_key="k")
    worker_id = await worker()
    (job,) = await claim(store, worker_id)
    transition = ended(job, Snooze("s", after=3600))
    transition.order_wait_s = 0.0
    await store.write([transition])
    assert await standing(pool, first) == (False, False)
    assert await claim(store, worker_id) == []


async def test_a_row_that_steps_aside_opens_the_next_in_the_same_commit(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    _first, second = await insert(2, ordering_key="k")
    (job,) = await claim(store, await worker())
    await pool.execute("update jobs set gate = 'order' where id = $1", second)
    await store.write([failed(job, 0.0, 60)])
    assert await pool.fetchval("select gate from jobs where id = $1", second) == ""
