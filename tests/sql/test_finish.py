"""How attempts end: once, completely, whatever was said, and never by a late writer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from daemon.settle import Transition, hand_back
from daemon.store import Store
from daemon.upkeep_store import UpkeepStore
from jobs.context import Ledger
from jobs.model import Cancelled, Dead, Done, Outcome, Retry, Snooze
from tests.sql.rows import Insert, Pool, Worker, claim, die, ended

HOSTILE = "NUL \0, a lone surrogate \ud800, an escape \\u0000, RTL \u202e, and \x7f"


async def test_history_keeps_every_column_of_the_row(pool: Pool, store: Store, worker: Worker) -> None:
    (before,) = await pool.fetch(
        """insert into jobs (kind, args, queue, org_id, priority, run_at, expires_at, max_attempts, unique_key,
               idempotency_key, ordering_key, lane, correlation_id, traceparent, actor_id, project_id, created_at)
           values ('noop', '{"a": 1}', 'q', 'org', 1, now() - interval '1 hour', now() + interval '1 hour', 7, 'once',
               'idempotent', 'ordered', 'lane', 'correlation',
               '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'actor', 'project', now() - interval '2 h')
           returning *"""
    )
    (job,) = await claim(store, await worker(), queue="q")
    await store.say([(job, '{"percent": 50}')], [])
    (running,) = await pool.fetch("select * from jobs")
    assert await store.write([ended(job, Done({"n": 2}))]) == {job.id}
    (after,) = await pool.fetch("select * from job_history")
    engine = {"state": "done", "attempt": 1, "worker_id": running["worker_id"], "started_at": running["started_at"]}
    engine |= {"progress": '{"percent": 50}', "result": '{"n": 2}', "reason": None}
    gone = {"fence", "gate", "cancel_asked", "batch_id", "aside", "blocks_until", "on_duplicate", "postpone_until"}
    expected = {**{name: value for name, value in before.items() if name not in gone}, **engine}
    assert {name: value for name, value in after.items() if name != "finished_at"} == expected
    assert after["finished_at"] >= after["started_at"]
    assert await pool.fetchval("select count(*) from jobs") == 0


@pytest.mark.req("OR-06")
@pytest.mark.parametrize(
    ("outcome", "state", "reason", "attempts"),
    [
        (Done(), "done", None, []),
        (Dead("no such host", code="gone"), "dead", "no such host", [("dead", "gone")]),
        (Dead("", code="gone"), "dead", "gone", [("dead", "gone")]),
        (Cancelled("not needed"), "cancelled", "not needed", []),
    ],
)
async def test_each_end_is_told_with_its_reason(
    pool: Pool, store: Store, worker: Worker, insert: Insert, outcome: Outcome, state: str, reason: str | None,
    attempts: list[tuple[str, str]],
) -> None:  # fmt: skip
    await insert()
    (job,) = await claim(store, await worker())
    await store.write([ended(job, outcome)])
    assert [tuple(row) for row in await pool.fetch("select state, reason from job_history")] == [(state, reason)]
    assert [tuple(row) for row in await pool.fetch("select outcome, code from job_attempts")] == attempts


@pytest.mark.req("OR-06")
async def test_a_failed_attempt_is_recorded_with_its_worker_start_error_and_next_try(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    await insert(org_id="7", correlation_id="c")
    worker_id = await worker()
    (job,) = await claim(store, worker_id)
    (row,) = await pool.fetch("select started_at from jobs")
    transition = ended(job, Retry("refused", code="http_503", after="1h", detail={"status": 503}))
    transition.trace = "Traceback"
    assert await store.write([transition]) == {job.id}
    (attempt,) = await pool.fetch(
        "select *, retry_at - ended_at as wait, error::jsonb #>> '{detail,status}' as status from job_attempts"
    )
    assert (attempt["job_id"], attempt["attempt"], attempt["outcome"], attempt["code"]) == (
        job.id,
        1,
        "retry",
        "http_503",
    )
    assert (attempt["worker_id"], attempt["started_at"]) == (worker_id, row["started_at"])
    assert (attempt["org_id"], attempt["correlation_id"], attempt["status"]) == ("7", "c", "503")
    assert attempt["wait"].total_seconds() == pytest.approx(transition.delay_s)
    (row,) = await pool.fetch("select *, last_error ->> 'trace' as trace from jobs")
    assert (row["state"], row["attempt"], row["fence"], row["worker_id"], row["started_at"]) == (
        "ready",
        1,
        2,
        None,
        None,
    )
    assert (row["run_at"], row["trace"]) == (attempt["retry_at"], "Traceback")


async def test_what_is_not_the_jobs_fault_costs_no_attempt(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    await insert()
    worker_id = await worker()
    (job,) = await claim(store, worker_id)
    await store.write([ended(job, Snooze("busy", after=0))])
    (job,) = await claim(store, worker_id)
    run_at = await pool.fetchval("select run_at from jobs")
    await store.write([hand_back(job, gate="limit:x:")])
    (row,) = await pool.fetch("select *, last_error ->> 'message' as said from jobs")
    assert (row["attempt"], row["gate"], row["run_at"], row["said"]) == (0, "limit:x:", run_at, "busy")
    assert await pool.fetchval("select count(*) from job_attempts") == 0


async def test_rows_that_are_not_to_be_kept_leave_no_history_but_their_failure(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    await insert(2)
    done, dead = await claim(store, await worker())
    batch = [ended(done, Done()), ended(dead, Dead("no"))]
    for transition in batch:
        transition.keep = False
    assert await store.write(batch) == {done.id, dead.id}
    assert await pool.fetchval("select count(*) from job_history") == 0
    assert await pool.fetchval("select count(*) from job_attempts") == 1
    assert await pool.fetchval("select count(*) from jobs") == 0


async def test_a_mixed_batch_in_any_order_ends_each_row_its_own_way(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    ids = await insert(60)
    jobs = await claim(store, await worker())
    outcomes: list[Outcome] = [Done(7), Dead("d", code="c"), Retry("r", after=60), Snooze("s", after=60), Cancelled()]
    batch = [ended(job, outcomes[job.id % 5]) for job in jobs]
    random.Random(7).shuffle(batch)
    assert await store.write(batch) == set(ids)
    said = {row["id"]: (row["state"], row["attempt"]) for row in await pool.fetch("select * from job_status")}
    expected = [("done", 1), ("dead", 1), ("ready", 1), ("ready", 0), ("cancelled", 1)]
    assert said == {n: expected[n % 5] for n in ids}


class TestLateWriter:
    """Whoever holds an old fence changes nothing."""

    async def test_after_a_rescue(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        await insert()
        lost = await worker()
        (job,) = await claim(store, lost)
        await die(pool, lost)
        await keeping.rescue(lost, 3, 10)
        for outcome in (Done(), Dead("x"), Retry("x"), Snooze("x", after=0)):
            assert await store.write([ended(job, outcome)]) == set()
        await store.say([(job, '{"percent": 99}')], [])
        (row,) = await pool.fetch("select * from jobs")
        assert (row["state"], row["fence"], row["progress"], row["last_error"]) == ("ready", 2, None, None)
        assert await pool.fetchval("select count(*) from job_attempts where outcome <> 'crashed'") == 0

    async def test_after_the_row_is_claimed_again_by_the_same_worker(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert()
        worker_id = await worker()
        (old,) = await claim(store, worker_id)
        await store.write([hand_back(old)])
        (new,) = await claim(store, worker_id)
        assert await store.write([ended(old, Done("old"))]) == set()
        assert await store.write([ended(new, Done("new"))]) == {new.id}
        assert await pool.fetchval("select result from job_history") == '"new"'

    @pytest.mark.parametrize("old_first", [True, False])
    @pytest.mark.parametrize("outcome", [Done("new"), Retry("new")])
    async def test_beside_the_new_one_in_the_same_batch(
        self,
        pool: Pool,
        store: Store,
        keeping: UpkeepStore,
        worker: Worker,
        insert: Insert,
        old_first: bool,
        outcome: Outcome,
    ) -> None:
        """A daemon that lost its lease claimed its own row again, while Postgres was away."""
        await insert()
        worker_id = await worker()
        (old,) = await claim(store, worker_id)
        await keeping.rescue(worker_id, 3, 10)
        (new,) = await claim(store, worker_id)
        late = ended(old, Done("old") if isinstance(outcome, Done) else Retry("old"))
        batch = [late, ended(new, outcome)] if old_first else [ended(new, outcome), late]
        assert await store.write(batch) == {new.id}
        assert await pool.fetchval("select count(*) from jobs where state = 'running'") == 0
        assert "new" in str(await pool.fetchval("select coalesce(result, last_error)::text from job_status"))

    async def test_when_an_answer_was_lost_and_the_statement_comes_again(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(2)
        first, second = await claim(store, await worker())
        row = {"url": "https://example.com", "outcome": "ok"}
        batch = [ended(first, Done()), ended(second, Retry("r", after=60))]
        for transition in batch:
            transition.records = [(Ledger("webhook_deliveries"), row)]
        assert await store.write(batch) == {first.id, second.id}
        before = await pool.fetch("select * from job_status order by id")
        assert await store.write(batch, again=True) == set()
        assert await pool.fetch("select * from job_status order by id") == before
        assert await pool.fetchval("select count(*) from webhook_deliveries") == 2

    async def test_what_a_late_writer_sent_is_still_on_record(
        self, pool: Pool, store: Store, keeping: UpkeepStore, worker: Worker, insert: Insert
    ) -> None:
        await insert()
        lost = await worker()
        (job,) = await claim(store, lost)
        await keeping.rescue(lost, 3, 10)
        transition = ended(job, Done())
        transition.records = [(Ledger("webhook_deliveries"), {"url": "https://example.com", "outcome": "ok"})]
        assert await store.write([transition]) == set()
        assert await pool.fetchval("select count(*) from webhook_deliveries") == 1


async def test_a_result_and_its_line_in_the_webhooks_log_are_one_statement(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    """Which is its own commit; a second statement would be three more round trips."""
    await insert(2)
    first, second = [ended(job, Done()) for job in await claim(store, await worker())]
    for t in (first, second):
        t.records = [(Ledger("webhook_deliveries"), {"url": "https://example.com", "outcome": "ok"})]
    calls: list[str] = []
    async with pool.acquire() as conn:
        alone = Store(_PoolOf(conn))  # type: ignore[arg-type]
        await alone.write([first])  # the driver learns of the types
        conn.add_query_logger(lambda said: calls.append(said.query))
        assert await alone.write([second]) == {second.job.id}
        await asyncio.sleep(0)  # loggers are called in the next turn
        assert len(calls) == 1
    assert await pool.fetchval("select count(*) from webhook_deliveries where phases = '{}'") == 2


class _PoolOf:
    """One connection."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    async def acquire(self, **_limits: float) -> Any:
        return self._conn

    async def release(self, conn: Any, **_limits: float) -> None:
        assert conn is self._conn


@pytest.mark.req("OR-09")
@pytest.mark.parametrize(
    "transition",
    [
        lambda job: ended(job, Done({HOSTILE: [HOSTILE, {"deep": HOSTILE}], "n": 10**400, "x": float("nan")})),
        lambda job: ended(job, Dead(HOSTILE, code=HOSTILE, detail={HOSTILE: HOSTILE})),
        lambda job: ended(job, Retry(HOSTILE, code=HOSTILE, detail={"a": {HOSTILE}})),
        lambda job: ended(job, Retry(["a list"])),  # type: ignore[arg-type]  # what an untyped handler may say
        lambda job: ended(job, Dead(ValueError(HOSTILE), code=7)),  # type: ignore[arg-type]
        lambda job: ended(job, Snooze(HOSTILE, after=float("inf"))),
        lambda job: ended(job, Retry("x", after=1e300)),
        lambda job: ended(job, Retry("x", after=-1e15)),
        lambda job: ended(job, Cancelled(HOSTILE)),
    ],
)
async def test_nothing_that_is_said_can_keep_a_row_from_ending(
    pool: Pool, store: Store, worker: Worker, insert: Insert, transition: Any
) -> None:
    ids = await insert(3)
    jobs = await claim(store, await worker())
    said: Transition = transition(jobs[1])
    said.trace = HOSTILE
    said.job.lane = f"lane {HOSTILE}"
    assert await store.write([ended(jobs[0], Done()), said, ended(jobs[2], Retry("r"))]) == set(ids)
    assert await pool.fetchval("select count(*) from jobs where state = 'running'") == 0


@pytest.mark.parametrize("outcome", [Done(), Retry("r", after=60)])
async def test_a_lane_derived_from_the_args_is_kept_but_never_replaces_the_producers(
    pool: Pool, store: Store, worker: Worker, insert: Insert, outcome: Outcome
) -> None:
    await insert()
    await insert(lane="given")
    jobs = await claim(store, await worker())
    for job in jobs:
        job.lane = "derived"
    await store.write([ended(job, outcome) for job in jobs])
    assert [row[0] for row in await pool.fetch("select lane from job_status order by id")] == ["derived", "given"]


async def test_ids_the_statement_does_not_know_are_no_harm(
    pool: Pool, store: Store, worker: Worker, insert: Insert
) -> None:
    """Ascending ids with gaps: width_bucket's place of an id is exact only for ids that are in the array."""
    ids = await insert(5)
    jobs = await claim(store, await worker())
    await store.write([ended(jobs[n], Done()) for n in (0, 2, 4)])
    again = [ended(job, Dead("late")) for job in jobs]
    assert await store.write(again) == {ids[1], ids[3]}
    states = [row[0] for row in await pool.fetch("select state from job_history order by id")]
    assert states == ["done", "dead", "done", "dead", "done"]
