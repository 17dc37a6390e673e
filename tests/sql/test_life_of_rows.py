"""Whatever happens in whatever order, each row ends once and none is lost: a machine makes it happen.

JOBSD_LONG=1 lets it run for minutes, with other dice each time.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daemon import store as store_module
from daemon import upkeep_store as upkeep_module
from daemon.claims import Claims
from daemon.settle import Transition, hand_back
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from daemon.worker_store import WorkerStore
from jobs.model import Cancelled, Dead, Done, Job, Outcome, Retry, Snooze
from tests.sql.rows import Pool, claim, die, ended

T = TypeVar("T")

LONG = bool(os.environ.get("JOBSD_LONG"))
CRASH_LIMIT = 3
MAX_ATTEMPTS = 4
WORKERS = st.integers(0, 2)
OUTCOMES: dict[str, Outcome] = {
    "done": Done(), "retry": Retry("r"), "snooze": Snooze("s", after=0), "dead": Dead("d"), "cancelled": Cancelled(),
}  # fmt: skip
THOROUGH = settings(
    max_examples=2000, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
QUICK = settings(THOROUGH, max_examples=20, stateful_step_count=50, derandomize=True)


class Lab:
    """A database, and a loop for a machine that is not async itself."""

    def __init__(self, dsn: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.pool: Pool = self.run(self._open(dsn))
        self.store, self.keeping, self.workers = Store(self.pool), UpkeepStore(self.pool), WorkerStore(self.pool)

    async def _open(self, dsn: str) -> Pool:
        return await asyncpg.create_pool(dsn, min_size=1, max_size=1)

    def run(self, what: Awaitable[T]) -> T:
        return self._loop.run_until_complete(what)

    def close(self) -> None:
        self.run(self.pool.close())
        self._loop.close()


class Life(RuleBasedStateMachine):
    """Three workers, rows, and everything that can happen to them.  `attempts` are remembered for ever, so that any of
    them may come back late."""

    lab: Lab

    @initialize()
    def begin(self) -> None:
        self.store, self.pool = self.lab.store, self.lab.pool
        self.lab.run(
            self.pool.execute(
                "delete from jobs; delete from job_history; delete from job_workers; delete from job_claims"
            )
        )
        self.inserted: list[int] = []
        self.attempts: list[Job] = []
        self.given: set[tuple[int, int]] = set()
        self.fences: dict[int, int] = {}
        self.claimed: Counter[int] = Counter()
        self.claims = Claims()
        self.written: set[tuple[int, int]] = set()
        self.last: list[Transition] = []
        self.workers = [self._register() for _ in range(3)]

    def _register(self) -> int:
        return self.lab.run(self.lab.workers.register("test", "0", ["noop"], ["*"], 3600))

    @rule(count=st.integers(1, 4), ordering_key=st.sampled_from([None, None, "k"]))
    def insert(self, count: int, ordering_key: str | None) -> None:
        statement = (
            "insert into jobs (kind, ordering_key) select 'noop', $2 from generate_series(1, $1::int) returning id"
        )
        self.inserted += [row[0] for row in self.lab.run(self.pool.fetch(statement, count, ordering_key))]

    @rule(worker=WORKERS, most=st.integers(1, 4), gate=st.sampled_from(["", "", "order"]))
    def claim(self, worker: int, most: int, gate: str) -> None:
        for job in self.lab.run(claim(self.store, self.workers[worker], most, gate=gate)):
            assert (job.id, job.fence) not in self.given
            self.given.add((job.id, job.fence))
            self.claimed[job.id] += 1
            self.claims.taken([job])
            self.attempts.append(job)

    @precondition(lambda self: self.attempts)
    @rule(which=st.lists(st.integers(0, 30), min_size=1, max_size=4), outcome=st.sampled_from(sorted(OUTCOMES)))
    def finish(self, which: list[int], outcome: str) -> None:
        """The newest attempts are near 0; older ones are late, and may stand beside newer ones of the same row."""
        chosen = {id(job): job for n in which if (job := self.attempts[-1 - n % len(self.attempts)])}
        self._write([ended(job, OUTCOMES[outcome], max_attempts=MAX_ATTEMPTS) for job in chosen.values()])

    @precondition(lambda self: self.last)
    @rule()
    def write_again(self) -> None:
        """The answer was lost."""
        self._write(self.last, again=True)

    @rule(worker=WORKERS)
    def die_and_come_back_as_another(self, worker: int) -> None:
        self.lab.run(die(self.pool, self.workers[worker]))
        self.workers[worker] = self._register()

    @rule(most=st.integers(1, 3))
    def rescue(self, most: int) -> None:
        for lost in self.lab.run(self.lab.keeping.found(10, 10)).lost:
            self.lab.run(self.lab.keeping.rescue(lost, CRASH_LIMIT, most))
            self.lab.run(self.lab.keeping.drop_lost_claims(lost, most))
            self.lab.run(self.lab.keeping.forget(lost))

    @rule(worker=WORKERS)
    def forget_claims_that_hold_nothing(self, worker: int) -> None:
        """As a daemon does that knows none of its claims."""
        self.lab.run(self.pool.execute("update job_claims set claimed_at = claimed_at - interval '1 minute'"))
        self.lab.run(self.store.drop_claims(self.workers[worker], []))

    @rule(worker=WORKERS)
    def drain(self, worker: int) -> None:
        """Hand back all that the worker runs, and leave; what it does not hand back is found without it."""
        mine = {(row[0], row[1]) for row in self.lab.run(self.pool.fetch(
            "select id, fence from jobs where worker_id = $1", self.workers[worker]))}  # fmt: skip
        self._write([hand_back(job) for job in self.attempts if (job.id, job.fence) in mine])
        self.lab.run(self.lab.workers.leave(self.workers[worker]))
        self.workers[worker] = self._register()

    def _write(self, batch: list[Transition], *, again: bool = False) -> None:
        """Exactly those are accepted that the rows still belong to."""
        rows = self.lab.run(self.pool.fetch("select id, fence from jobs where state = 'running'"))
        running = {row[0]: row[1] for row in rows}
        # an attempt has its result written once; what comes twice here is a mistake of the daemon that its fence stops
        first = {(t.job.id, t.job.fence): t.job for t in batch if (t.job.id, t.job.fence) not in self.written}
        ours = self.lab.run(self.store.write(batch, self.claims.ending(first.values()), again=again))
        assert ours == {t.job.id for t in batch if running.get(t.job.id) == t.job.fence}
        self.claims.written(first.values())
        self.written |= first.keys()
        self.last = batch

    @invariant()
    def each_row_is_in_one_place(self) -> None:
        if not hasattr(self, "inserted"):
            return
        live = self.lab.run(self.pool.fetch("select * from jobs order by id"))
        over = self.lab.run(self.pool.fetch("select id, attempt, crashes from job_history order by id"))
        assert sorted(row["id"] for row in (*live, *over)) == self.inserted
        assert all(
            row["attempt"] <= self.claimed[row["id"]] and row["crashes"] <= CRASH_LIMIT for row in (*live, *over)
        )
        keys = [row["ordering_key"] for row in live if row["state"] == "running" and row["ordering_key"]]
        assert len(keys) <= 1
        for row in live:
            assert row["fence"] >= self.fences.get(row["id"], 0)
            self.fences[row["id"]] = row["fence"]
            assert (row["state"] == "running") == (row["worker_id"] is not None)
            assert row["state"] == "ready" or (row["id"], row["fence"]) in self.given

    @invariant()
    def whoever_dies_leaves_word_of_all_that_ran(self) -> None:
        if not hasattr(self, "inserted"):
            return
        unsaid = """select count(*) from jobs where state = 'running'
                    and not exists (select from job_claims where worker_id = jobs.worker_id and jobs.id = any (ids))"""
        assert self.lab.run(self.pool.fetchval(unsaid)) == 0


@pytest.fixture
def lab(database: str) -> Iterator[Lab]:
    lab = Lab(database)
    yield lab
    lab.close()


def machine(lab: Lab) -> type[Life]:
    return type("TheLife", (Life,), {"lab": lab})


@pytest.mark.req("DC-01")
@pytest.mark.req("BJ-27")
def test_each_row_ends_once_and_none_is_lost(lab: Lab) -> None:
    run_state_machine_as_test(machine(lab), settings=THOROUGH if LONG else QUICK)


QUEUE, WORKER = store_module._QUEUE, upkeep_module._WORKER
FENCED = " and fence = ($2::int[])[width_bucket(id, $1::bigint[])]"
BY_WORKER = " and worker_id = $10"
NO_FENCE, ANY_WORKER = " and $2::int[] is not null", " and $10::bigint is not null"
# what is changed in which statement; the worker's part of the fence is taken away where it would hide the fault
MUTANTS = {
    "a finish without its fence": [(QUEUE, "finish", FENCED, NO_FENCE), (QUEUE, "finish", BY_WORKER, ANY_WORKER)],
    "a return without its fence": [(QUEUE, "put_back", FENCED, NO_FENCE), (QUEUE, "put_back", BY_WORKER, ANY_WORKER)],
    "a return that leaves the fence": [
        (QUEUE, "put_back", "fence      = fence + 1,", ""),
        (QUEUE, "finish", BY_WORKER, ANY_WORKER),
        (QUEUE, "put_back", BY_WORKER, ANY_WORKER),
    ],
    "a rescue that leaves the fence": [
        (WORKER, "rescue", "fence = fence + 1,", ""),
        (QUEUE, "finish", BY_WORKER, ANY_WORKER),
        (QUEUE, "put_back", BY_WORKER, ANY_WORKER),
    ],
    "a finish that keeps nothing": [
        (QUEUE, "finish", "where $9::bool[] is null or", "where $9::bool[] is null and false or")
    ],
    "a claim without its receipt": [(QUEUE, "claim", "array_agg(id) from", "array_agg(id * 0) from")],
    "a finish that ends all claims": [
        (QUEUE, "finish", "where id = any ($11::bigint[])", "where $11::bigint[] is not null")
    ],
    "a claim that is dropped with rows left": [
        (QUEUE, "drop_claims", "where not exists (select from jobs", "where exists (select from jobs")
    ],
}


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.skipif(not LONG, reason="another ten seconds; JOBSD_LONG=1 runs it")
def test_the_machine_finds_a_statement_that_is_wrong(lab: Lab, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    for statements, name, right, wrong in MUTANTS[mutant]:
        assert statements[name].count(right) == 1
        monkeypatch.setitem(statements, name, statements[name].replace(right, wrong))
    quick = settings(THOROUGH, max_examples=1000, stateful_step_count=50, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(lab), settings=quick)
