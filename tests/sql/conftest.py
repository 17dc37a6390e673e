"""What the tests of the SQL share: stores, workers with a lease, and rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from daemon.limit_store import LimitStore
from daemon.log import Logger
from daemon.observe import Observer
from daemon.schedule_store import ScheduleStore
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore
from tests.sql.rows import Insert, Pool, Worker


@pytest.fixture
def store(pool: Pool) -> Store:
    return Store(pool)


@pytest.fixture
def keeping(pool: Pool) -> UpkeepStore:
    return UpkeepStore(pool)


@pytest.fixture
def workers(pool: Pool) -> WorkerStore:
    return WorkerStore(pool)


@pytest.fixture
def limits(pool: Pool) -> LimitStore:
    return LimitStore(pool)


@pytest.fixture
def schedules(pool: Pool) -> ScheduleStore:
    return ScheduleStore(pool)


@pytest.fixture
def observer() -> Iterator[Observer]:
    """One that writes where nobody reads."""
    with tempfile.TemporaryFile() as file:
        log = Logger(file)
        yield Observer(log)
        log.close()


@pytest.fixture
def worker(workers: WorkerStore) -> Worker:
    """Registers a worker with a lease of so many seconds; its id."""

    async def register(lease_s: float = 300.0) -> int:
        return await workers.register("test", "0", ["noop"], ["*"], lease_s)

    return register


@pytest.fixture
def insert(pool: Pool) -> Insert:
    """Inserts `count` rows with these columns, of kind noop unless told; their ids."""

    async def rows(count: int = 1, **columns: Any) -> list[int]:
        columns = {"kind": "noop", **columns}
        places = ", ".join(f"${n}" for n in range(2, len(columns) + 2))
        statement = (
            f"insert into jobs ({', '.join(columns)}) select {places} from generate_series(1, $1::int) returning id"
        )
        return [row[0] for row in await pool.fetch(statement, count, *columns.values())]

    return rows
