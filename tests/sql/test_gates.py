"""Gates: a row that must not run now waits out of the way, uncharged, and goes on when it may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import sql
from daemon.settle import hand_back
from daemon.store import Ask, Freed, Store
from jobs.model import Done, Retry, Snooze
from tests.sql.rows import KINDS, Insert, Pool, Worker, claim, claim_args, claims_of, ended, moved

HELD = [("kind:noop", {}), ("org:7", {"org_id": "7"}), ("lane:example.com", {"lane": "example.com"})]
ELSE = {"kind:noop": {"kind": "other"}, "org:7": {"org_id": "8"}, "lane:example.com": {"lane": "example.net"}}
SERVED = ("noop", "other")
CLAIM = sql.load("queue.sql")["claim"]
HOUR = timedelta(hours=1)


async def hold(pool: Pool, gate: str, cause: str = "pause", *, prober: int | None = None) -> None:
    """`prober`: the worker that may find out whether it is well again."""
    await pool.execute(
        "insert into job_holds (gate, cause, detail) values ($1, $2, jsonb_build_object('probe', $3::bigint))",
        gate,
        cause,
        prober,
    )


class TestHolds:
    """What an operator has paused or a breaker has opened is not claimed, whatever way it comes."""

    @pytest.mark.parametrize(("gate", "columns"), HELD)
    async def test_rows_that_meet_a_hold_wait_at_its_gate_uncharged(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert, gate: str, columns: dict[str, Any]
    ) -> None:
        ids = await insert(3, **columns)
        others = await insert(2, **ELSE[gate])
        await hold(pool, gate)
        worker_id = await worker()
        rows = await store.claim([Ask("default", "", 10)], worker_id, SERVED)
        assert [job.id for job in rows if job.worker_id == worker_id] == others
        assert {job.id: job.gate for job in rows if job.worker_id is None} == dict.fromkeys(ids, gate)
        waiting = await pool.fetch(
            "select state, gate, attempt, worker_id, started_at from jobs where id = any ($1)", ids
        )
        assert {tuple(row) for row in waiting} == {("ready", gate, 0, None, None)}

    @pytest.mark.parametrize(("gate", "columns"), HELD)
    async def test_they_cost_later_claims_nothing_and_are_not_claimed_at_their_gate_either(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert, gate: str, columns: dict[str, Any]
    ) -> None:
        await insert(3, **columns)
        await hold(pool, gate)
        worker_id = await worker()
        await moved(store, worker_id)
        before = await pool.fetch("select *, ctid from jobs order by id")
        assert await store.claim([Ask("default", "", 10), Ask("default", gate, 10)], worker_id, SERVED) == []
        assert await pool.fetch("select *, ctid from jobs order by id") == before

    @pytest.mark.parametrize(("gate", "columns"), HELD)
    async def test_they_go_on_oldest_first_when_the_last_cause_is_gone(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert, gate: str, columns: dict[str, Any]
    ) -> None:
        ids = await insert(3, **columns)
        await hold(pool, gate, "pause")
        await hold(pool, gate, "breaker")
        worker_id = await worker()
        await moved(store, worker_id)
        await pool.execute("delete from job_holds where cause = 'pause'")
        assert await claim(store, worker_id, gate=gate) == []
        await pool.execute("delete from job_holds")
        jobs = await claim(store, worker_id, 2, gate=gate)
        assert [(job.id, job.attempt) for job in jobs] == [(job_id, 1) for job_id in ids[:2]]

    @pytest.mark.parametrize(("gate", "columns"), HELD)
    async def test_a_probe_takes_as_many_as_it_asks_for_at_the_gate_and_no_other_way(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert, gate: str, columns: dict[str, Any]
    ) -> None:
        ids = await insert(3, **columns)
        worker_id, other = await worker(), await worker()
        await hold(pool, gate, "breaker", prober=worker_id)
        await moved(store, worker_id)
        newer = await insert(2, **columns)
        both = [Ask("default", "", 10), Ask("default", gate, 1)]
        rows = await store.claim(both, worker_id, SERVED)
        assert await store.claim(both, other, SERVED) == []
        assert [job.id for job in rows if job.worker_id is not None] == ids[:1]
        assert {job.id: job.gate for job in rows if job.worker_id is None} == dict.fromkeys(newer, gate)

    async def test_a_probe_of_one_gate_opens_no_other(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(2, org_id="7", lane="example.com")
        worker_id = await worker()
        await hold(pool, "org:7", "breaker", prober=worker_id)
        await hold(pool, "lane:example.com")
        await moved(store, worker_id)
        (row,) = await store.claim([Ask("default", "org:7", 1)], worker_id, KINDS)
        assert (row.gate, row.worker_id) == ("lane:example.com", None)
        assert await store.claim([Ask("default", "lane:example.com", 1)], worker_id, KINDS) == []

    async def test_what_is_paused_is_not_probed_either(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(1, lane="example.com")
        worker_id = await worker()
        await hold(pool, "lane:example.com", "breaker", prober=worker_id)
        await hold(pool, "lane:example.com", "pause")
        await moved(store, worker_id)
        assert await store.claim([Ask("default", "lane:example.com", 1)], worker_id, KINDS) == []

    async def test_rows_of_a_lane_that_is_full_here_wait_at_its_gate_where_others_may_claim_them(
        self, store: Store, worker: Worker, insert: Insert
    ) -> None:
        ids = await insert(2, lane="example.com")
        others = await insert(1, lane="example.net")
        gate, worker_id = "lane:example.com", await worker()
        rows = await store.claim([Ask("default", "", 10)], worker_id, KINDS, [gate])
        assert [job.id for job in rows if job.worker_id == worker_id] == others
        assert {job.id: job.gate for job in rows if job.worker_id is None} == dict.fromkeys(ids, gate)
        assert [job.id for job in await claim(store, await worker(), gate=gate)] == ids

    async def test_of_several_holds_a_row_waits_at_one_and_then_at_the_next(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        (row_id,) = await insert(org_id="7", lane="example.com")
        for gate in ("kind:noop", "org:7", "lane:example.com"):
            await hold(pool, gate)
        worker_id, at = await worker(), ""
        for gate in ("kind:noop", "org:7", "lane:example.com"):
            assert await moved(store, worker_id, gate=at) == {gate: [row_id]}
            await pool.execute("delete from job_holds where gate = $1", gate)
            at = gate
        assert [job.id for job in await claim(store, worker_id, gate=at)] == [row_id]

    async def test_a_held_queue_gives_nothing_at_any_gate_and_its_rows_stay_as_they_are(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(2, queue="halted")
        await insert(2, queue="halted", org_id="7")
        await hold(pool, "org:7")
        worker_id = await worker()
        assert len(await claim(store, worker_id, 1, queue="halted")) == 1
        assert list(await moved(store, worker_id, 2, queue="halted")) == ["org:7"]
        await pool.execute("delete from job_holds")
        await hold(pool, "queue:halted", "breaker")
        before = await pool.fetch("select *, ctid from jobs order by id")
        places = [Ask("halted", "", 10), Ask("halted", "org:7", 10), Ask("halted", "", 10, 2, "7")]
        assert await store.claim(places, worker_id, KINDS) == []
        assert await pool.fetch("select *, ctid from jobs order by id") == before
        await insert(queue="other")
        assert len(await claim(store, worker_id, queue="other")) == 1

    @pytest.mark.parametrize("cause", ["pause", "breaker"])
    async def test_rows_of_a_queue_that_stands_still_are_not_even_locked(
        self, pool: Pool, worker: Worker, insert: Insert, cause: str
    ) -> None:
        """A lock is a write, and would be made for as many rows as there are slots at each claim."""
        await insert(3, queue="halted")
        await hold(pool, "queue:halted", cause)
        worker_id = await worker()
        async with pool.acquire() as conn, conn.transaction():
            assert await conn.fetch(CLAIM, *claim_args(worker_id, queue="halted")) == []
            assert len(await pool.fetch("select from jobs for update skip locked")) == 3

    async def test_names_that_look_like_gates_hold_nothing_else(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(org_id="example.com", lane="7")
        await insert()
        for gate in ("org:7", "lane:example.com", "kind:org", "queue:noop"):
            await hold(pool, gate)
        assert len(await claim(store, await worker())) == 2

    async def test_asked_for_by_organisation_they_meet_their_holds_too(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        ids = await insert(2, org_id="7")
        await hold(pool, "org:7")
        rows = await store.claim([Ask("default", "", 10, 2, "7")], await worker(), KINDS)
        assert {job.id: (job.gate, job.worker_id) for job in rows} == dict.fromkeys(ids, ("org:7", None))


class TestOrder:
    """Rows of an ordering key that are not the first of it wait at `order`."""

    async def test_one_that_waits_there_already_is_not_written_again(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        """However often the gate is looked at while the first of them runs."""
        _first, *others = await insert(4, ordering_key="k")
        worker_id = await worker()
        await store.claim([Ask("default", "", 10)], worker_id, KINDS)
        before = await pool.fetch("select *, ctid from jobs order by id")
        assert [row["gate"] for row in before] == ["", *["order"] * len(others)]
        assert await store.claim([Ask("default", "order", 10)], worker_id, KINDS) == []
        assert await pool.fetch("select *, ctid from jobs order by id") == before

    async def test_when_the_first_ends_the_next_one_goes_and_only_that(
        self, store: Store, worker: Worker, insert: Insert
    ) -> None:
        ids = await insert(3, ordering_key="k")
        worker_id = await worker()
        done = []
        while jobs := await claim(store, worker_id):
            assert len(jobs) == 1
            await store.write([ended(job, Done()) for job in jobs], claims_of(jobs))
            done += [job.id for job in jobs]
        assert done == ids

    async def test_an_end_says_which_rows_may_go_now_and_since_when(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        """Their times lie before what claims ask for."""
        freed: list[Freed] = []
        store.on_freed = freed.extend
        _first, second, third = await insert(3, ordering_key="k")
        _other, behind = await insert(2, ordering_key="l", queue="b", priority=3)
        await insert(2)
        worker_id = await worker()
        rows = await store.claim([Ask("default", "", 10), Ask("b", "", 10)], worker_id, KINDS)
        jobs = [job for job in rows if job.worker_id is not None]
        due = {row[0]: row[1] for row in await pool.fetch("select id, date_part('epoch', run_at) from jobs")}
        assert len(await store.write([ended(job, Done()) for job in jobs], claims_of(jobs))) == 4
        assert sorted(freed) == [("b", 3, due[behind]), ("default", 2, due[second])]
        assert [job.id for job in await claim(store, worker_id)] == [second]
        assert await pool.fetchval("select gate from jobs where id = $1", third) == "order"

    async def test_a_key_stands_for_its_kind_alone(self, store: Store, worker: Worker, insert: Insert) -> None:
        await insert(ordering_key="k")
        await insert(kind="other", ordering_key="k")
        assert len(await claim(store, await worker(), kinds=SERVED)) == 2

    async def test_rows_of_other_keys_and_of_none_are_taken_beside_them(
        self, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(5, ordering_key="a")
        await insert(5, ordering_key="b")
        await insert(5)
        jobs = await claim(store, await worker())
        assert sorted(str(job.ordering_key) for job in jobs) == ["None"] * 5 + ["a", "b"]


class TestLater:
    """Rows of the open queue that were put off stand at `later` until their time."""

    async def test_one_that_is_put_off_stands_there_and_one_that_is_not_does_not(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert(4)
        first, second, third, fourth = await claim(store, await worker())
        await store.write(
            [ended(first, Retry("r", after=60)), ended(second, Retry("r")), hand_back(third),
             hand_back(fourth, gate="limit:x:", delay_s=60.0)],
            claims_of([first]),
        )  # fmt: skip
        gates = [row["gate"] for row in await pool.fetch("select gate from jobs order by id")]
        assert gates == ["later", "retry", "", "limit:x:"]

    async def test_what_failed_before_is_due_at_a_gate_of_its_own_and_what_was_lost_is_not(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        ids = await insert(4)
        failed, handed, lost, snoozed = await claim(store, await worker())
        await pool.execute("update jobs set crashes = 1 where id = $1", lost.id)
        await store.write(
            [ended(failed, Retry("r", after=60)), hand_back(handed, delay_s=60.0), ended(lost, Retry("r", after=60)),
             ended(snoozed, Snooze("s", after=60))],
            claims_of([failed]),
        )  # fmt: skip
        await pool.execute("update jobs set run_at = now() - id * interval '1 second'")
        (ripe,) = await store.ripen([("default", 2)], 10)
        assert [row["gate"] for row in await pool.fetch("select gate from jobs order by id")] == ["retry", "", "", ""]
        of = {row["id"]: row["at"] for row in await pool.fetch("select id, date_part('epoch', run_at) as at from jobs")}
        assert (ripe.rows, ripe.run_at, ripe.retry_at) == (4, of[ids[-1]], of[failed.id])

    async def test_a_retry_that_is_handed_back_goes_to_the_gate_of_retries(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        await insert()
        worker_id = await worker()
        (first,) = await claim(store, worker_id)
        await store.write([ended(first, Retry("r"))], claims_of([first]))
        (second,) = await claim(store, worker_id, gate="retry")
        assert (second.attempt, second.is_retry, first.is_retry) == (2, True, False)
        await store.write([hand_back(second)], claims_of([second]))
        assert [tuple(row) for row in await pool.fetch("select gate, attempt from jobs")] == [("retry", 1)]

    async def test_those_that_are_due_come_back_and_the_others_time_is_told(
        self, pool: Pool, store: Store, insert: Insert
    ) -> None:
        due = await insert(3)
        await insert(2, run_at=await pool.fetchval("select now() + interval '1 hour'"))
        await insert(priority=1, run_at=await pool.fetchval("select now() + interval '1 hour'"))
        await insert(queue="other")
        await pool.execute("update jobs set gate = 'later'")
        found = {(ripe.queue, ripe.priority): ripe for ripe in await store.ripen([("default", 2), ("default", 1)], 10)}
        assert {key: ripe.rows for key, ripe in found.items()} == {("default", 2): 3, ("default", 1): 0}
        first_at = await pool.fetchval("select date_part('epoch', min(run_at)) from jobs where id = any ($1)", due)
        assert found["default", 2].run_at == first_at
        assert found["default", 1].run_at is None
        for ripe in found.values():
            assert ripe.next_s == pytest.approx(3600, abs=60)
        opened = await pool.fetch("select id from jobs where gate = '' order by id")
        assert [row["id"] for row in opened] == due

    async def test_no_more_come_at_once_than_may_and_the_oldest_first(
        self, pool: Pool, store: Store, insert: Insert
    ) -> None:
        now = await pool.fetchval("select now()")
        ids = [(await insert(run_at=now - n * HOUR))[0] for n in range(5)]
        await pool.execute("update jobs set gate = 'later'")
        (ripe,) = await store.ripen([("default", 2)], 2)
        assert (ripe.rows, ripe.next_s) == (2, None)
        assert [row["id"] for row in await pool.fetch("select id from jobs where gate = '' order by id")] == ids[3:]
        (ripe,) = await store.ripen([("default", 2)], 10)
        assert ripe.rows == 3
        (ripe,) = await store.ripen([("default", 2)], 10)
        assert (ripe.rows, ripe.run_at, ripe.next_s) == (0, None, None)

    async def test_their_fence_does_not_move_and_nothing_else_of_them(
        self, pool: Pool, store: Store, insert: Insert
    ) -> None:
        await insert(org_id="7", lane="l")
        await pool.execute("update jobs set gate = 'later'")
        (before,) = await pool.fetch("select * from jobs")
        await store.ripen([("default", 2)], 10)
        (after,) = await pool.fetch("select * from jobs")
        assert dict(after) == {**before, "gate": ""}

    async def test_what_another_daemon_brings_back_at_this_moment_is_passed_by(
        self, pool: Pool, store: Store, insert: Insert
    ) -> None:
        ids = await insert(2)
        await pool.execute("update jobs set gate = 'later'")
        async with pool.acquire() as other, other.transaction():
            await other.execute("select from jobs where id = $1 for update", ids[0])
            (ripe,) = await store.ripen([("default", 2)], 10)
        assert ripe.rows == 1
