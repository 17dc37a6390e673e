"""What the claimer's map is drawn from: where ready rows are, and whose."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daemon.store import Head, Store, Waiting
from tests.sql.rows import FROM_THE_FIRST, Insert, Pool, Worker, claim


class TestLook:
    async def test_each_queue_gate_and_class_shows_its_first_row(
        self, pool: Pool, store: Store, worker: Worker, insert: Insert
    ) -> None:
        now = await pool.fetchval("select now()")
        past = now - timedelta(hours=1)
        for queue, priority, run_at in (("b", 1, now), ("b", 1, past), ("b", 3, now), ("a", 2, now)):
            await insert(2, queue=queue, priority=priority, run_at=run_at)
        await insert(queue="b", kind="other")
        await pool.execute("update jobs set gate = 'kind:other' where kind = 'other'")
        await insert(queue="running")
        await claim(store, await worker(), queue="running")
        heads = await store.look(FROM_THE_FIRST, 10)
        assert [head[:3] for head in heads] == [("a", "", 2), ("b", "", 1), ("b", "", 3), ("b", "kind:other", 2)]
        assert heads[1].run_at == pytest.approx(past.timestamp())
        assert all(head.now >= now.timestamp() for head in heads)

    async def test_a_row_of_the_future_is_shown_with_its_time(self, pool: Pool, store: Store, insert: Insert) -> None:
        await insert(run_at=await pool.fetchval("select now() + interval '1 hour'"))
        (head,) = await store.look(FROM_THE_FIRST, 10)
        assert head.run_at - head.now == pytest.approx(3600, abs=60)

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
    async def test_pages_show_everything_once_and_in_order(
        self, pool: Pool, store: Store, insert: Insert, size: int
    ) -> None:
        for queue in ("a", "b", "c"):
            for priority in (1, 4):
                await insert(queue=queue, priority=priority)
        await pool.execute("insert into jobs (kind, queue) select kind, queue from jobs")
        await pool.execute("update jobs set gate = 'lane:x' where id > 6")
        seen: list[Head] = []
        after = FROM_THE_FIRST
        while page := await store.look(after, size):
            assert len(page) <= size
            seen += page
            after = page[-1][:3]
        assert [head[:3] for head in seen] == [
            (queue, *rest) for queue in "abc" for rest in (("", 1), ("", 4), ("lane:x", 2))
        ]


class TestWaiting:
    async def test_each_organisation_is_told_once_a_class_with_its_weight(
        self, pool: Pool, store: Store, insert: Insert
    ) -> None:
        for org, priority in (("a", 2), ("b", 2), (None, 2), ("a", 1), ("heavy", 3)):
            await insert(3, org_id=org, priority=priority)
        await insert(queue="elsewhere", org_id="no")
        await insert(org_id="gated")
        await pool.execute("update jobs set gate = 'org:gated' where org_id = 'gated'")
        await pool.execute("insert into job_orgs (org_id, weight) values ('heavy', 3), ('b', 0.5), ('unseen', 9)")
        assert await store.waiting("default", "", (0, ""), 10) == [
            Waiting(1, "a", 1.0), Waiting(2, "", 1.0), Waiting(2, "a", 1.0), Waiting(2, "b", 0.5),
            Waiting(3, "heavy", 3.0),
        ]  # fmt: skip
        assert await store.waiting("default", "org:gated", (0, ""), 10) == [Waiting(2, "gated", 1.0)]
        assert await store.waiting("nowhere", "", (0, ""), 10) == []

    async def test_running_rows_wait_for_nothing(self, store: Store, worker: Worker, insert: Insert) -> None:
        await insert(org_id="a")
        await insert(org_id="b")
        await claim(store, await worker(), 1)
        assert [who.org_id for who in await store.waiting("default", "", (0, ""), 10)] == ["b"]

    @pytest.mark.parametrize("size", [1, 2, 5, 9, 20])
    async def test_pages_tell_everybody_once_and_in_order(self, store: Store, insert: Insert, size: int) -> None:
        orgs = ["", "a", "b", "b c", "é", "z"]
        for priority in (2, 4):
            for org in orgs:
                await insert(2, org_id=org or None, priority=priority)
        seen: list[Waiting] = []
        after = (0, "")
        while page := await store.waiting("default", "", after, size):
            assert len(page) <= size
            seen += page
            after = page[-1][:2]
        assert sorted(who[:2] for who in seen) == sorted((priority, org) for priority in (2, 4) for org in orgs)
