"""What the claimer's map is drawn from: where ready rows are, and whose."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import asyncpg
import pytest

import sql
from daemon.store import Head, Mark, Store, Waiting
from tests.sql.plans import explain
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

    async def test_what_is_older_than_its_mark_is_passed_over_and_all_else_is_shown(
        self, pool: Pool, store: Store, insert: Insert
    ) -> None:
        """Whichever places are known: before, between and behind them the others are found."""
        now: float = await pool.fetchval("select date_part('epoch', now())")
        places = [(queue, gate, priority) for queue in "abc" for gate in ("", "lane:x") for priority in (1, 3)]
        await pool.execute(
            """insert into jobs (kind, queue, priority, run_at)
               select kind, queue, priority, to_timestamp($1::float8 - age)
               from (values ('open'), ('gated')) as k (kind), (values ('a'), ('b'), ('c')) as q (queue),
                    (values (1), (3)) as c (priority), (values (60), (10)) as a (age)""",
            now,
        )
        await pool.execute("update jobs set gate = 'lane:x' where kind = 'gated'")
        for chosen in range(2 ** len(places)):
            if chosen % 13 and chosen not in (1, 2**11, 2**12 - 1):  # of 4,096 subsets some hundreds
                continue
            known = [place for n, place in enumerate(places) if chosen >> n & 1]
            marks = [Mark(*place, now - 30) for place in known]
            ages = {head[:3]: now - head.run_at for head in await store.look(FROM_THE_FIRST, 100, marks)}
            assert ages == pytest.approx({place: 10 if place in known else 60 for place in places})
        late = [Mark(*place, now - 5) for place in places]
        assert await store.look(FROM_THE_FIRST, 100, late) == []
        assert [head[:3] for head in await store.look(("a", "lane:x", 1), 2, late[4:])] == [("a", "lane:x", 3)]

    async def test_what_was_claimed_behind_a_pinned_horizon_is_not_walked_over(
        self, pool: Pool, insert: Insert
    ) -> None:
        """5,000 dead entries that no vacuum may remove, and one row behind them."""
        async with pool.acquire() as holder, holder.transaction(isolation="repeatable_read"):
            await holder.fetchval("select count(*) from jobs")
            await insert(5_000, run_at=await pool.fetchval("select now() - interval '1 hour'"))
            await pool.execute("delete from jobs")
            await insert()
            mark = "array[date_part('epoch', now() - interval '1 minute')]"
            known = ("array['default']", "array['']", "array[2]", mark)
            async with pool.acquire() as borrowed:
                conn = cast(asyncpg.Connection, borrowed)
                look = sql.load("queue.sql")["look"]
                start = ("''", "''", "0", "10")
                whole = await explain(conn, look, (*start, *["'{}'"] * 4), "force_generic_plan")
                younger = await explain(conn, look, (*start, *known), "force_generic_plan")
        assert whole.buffers > 5 * younger.buffers


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
