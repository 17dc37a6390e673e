"""What the database lends: never more than the limit, nothing lost on the way back, and each worker its share."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest

import sql
from daemon.limit_store import LimitStore
from daemon.limits import Bucket
from daemon.slices import AHEAD_S, Leased, Return
from daemon.upkeep_store import UpkeepStore
from tests.sql.plans import explain
from tests.sql.rows import Pool, Worker, die

HOURLY = Bucket("hourly", "", 3600.0, 5, None)  # a token an hour: none grows while a test runs
SINGLE = Bucket("single", "", 3600.0, 1, None)
PLACES = Bucket("places", "", None, None, 4)


async def age(pool: Pool, seconds: float) -> None:
    """Let so much time pass for all buckets."""
    await pool.execute(
        """update job_limits set full_at = full_at - $1::float8 * interval '1 second',
               lot_until = lot_until - $1::float8 * interval '1 second',
               lot_before = lot_before - $1::float8 * interval '1 second',
               spare_s = array(select s - $1::float8 from unnest(spare_s) as s)""",
        seconds,
    )


async def tokens_of_half_an_hour_ago(pool: Pool, bucket: Bucket) -> None:
    """The last token that has grown is so old, and one a burst older has as long to live."""
    await pool.execute(
        "insert into job_limits (name, key, full_at) values ($1, $2, now() + interval '30 minutes')",
        bucket.name, bucket.key,
    )  # fmt: skip


async def lease(
    limits: LimitStore,
    bucket: Bucket,
    wanted: int,
    worker_id: int = 1,
    ahead_s: float = AHEAD_S,
    places: int | None = None,
) -> Leased:
    if places is None:
        places = wanted if bucket.places is not None else 0
    tokens = wanted if bucket.token_s is not None else 0
    (answer,) = await limits.lease(worker_id, [(bucket, (tokens, places))], ahead_s)
    return answer


def times(leased: Leased, bucket: Bucket) -> list[float]:
    """When each token may be used, beginning from now."""
    assert bucket.token_s is not None
    pieces = zip(leased.froms, leased.counts, strict=True)
    return [first + n * bucket.token_s - leased.at_s for first, count in pieces for n in range(count)]


def tokens(leased: Leased) -> int:
    return sum(leased.counts)


async def back(limits: LimitStore, *pieces: Return, worker_id: int = 1) -> None:
    await limits.give_back(worker_id, pieces)


def unused(bucket: Bucket, leased: Leased) -> list[Return]:
    return [Return(bucket, from_s=s, count=n) for s, n in zip(leased.froms, leased.counts, strict=True)]


async def test_a_new_bucket_is_full_and_tells_when_the_next_token_is_there(pool: Pool, limits: LimitStore) -> None:
    """The last token of a full bucket comes a moment later: so those before it may be late by as much."""
    first = await lease(limits, HOURLY, 3)
    assert (tokens(first), first.retry_s) == (3, None)
    rest = await lease(limits, HOURLY, 3)
    assert rest.retry_s is not None
    await age(pool, 0.25)
    last = await lease(limits, HOURLY, 3)
    assert tokens(rest) + tokens(last) == 2
    assert last.retry_s == pytest.approx(3600, abs=60)


async def test_each_token_may_be_late_and_one_of_a_full_bucket_by_a_moment(limits: LimitStore) -> None:
    leased = await lease(limits, HOURLY, 3)
    assert leased.late_s == 4 * 3600
    left_s = [at + leased.late_s for at in times(leased, HOURLY)]
    assert left_s == pytest.approx([0.25, 3600.25, 7200.25])


async def test_tokens_are_leased_ahead_of_their_time_but_not_far_ahead(limits: LimitStore) -> None:
    bucket = Bucket("fast", "", 0.01, 10, None)
    at = times(await lease(limits, bucket, 1000), bucket)
    assert at == pytest.approx([at[0] + 0.01 * n for n in range(len(at))], abs=1e-5)
    assert AHEAD_S - 0.01 - 1e-6 <= at[-1] <= AHEAD_S + 1e-6
    assert times(await lease(limits, Bucket("now", "", 0.01, 10, None), 1000, ahead_s=0.0), bucket)[-1] <= 5e-6


async def test_tokens_grow_one_by_one_and_no_higher_than_the_burst(pool: Pool, limits: LimitStore) -> None:
    await lease(limits, HOURLY, 5)
    await age(pool, 1.0)
    await lease(limits, HOURLY, 5)
    await age(pool, 3590 * 2)
    assert tokens(await lease(limits, HOURLY, 5)) == 1
    await age(pool, 3600)
    assert tokens(await lease(limits, HOURLY, 5)) == 1
    await age(pool, 3600 * 1000)
    assert tokens(await lease(limits, HOURLY, 50)) == 4
    await age(pool, 1.0)
    assert tokens(await lease(limits, HOURLY, 50)) == 1


async def test_no_time_is_lost_between_two_leases(pool: Pool, limits: LimitStore) -> None:
    """The next token's time moves on by the tokens leased exactly: a moment lost at each would slow the rate."""
    bucket = Bucket("hourly", "", 3600.0, 1000, None)
    await lease(limits, bucket, 1)
    before = await pool.fetchval("select full_at from job_limits")
    for _ in range(50):
        await lease(limits, bucket, 10)
    grown = (await pool.fetchval("select full_at from job_limits") - before).total_seconds()
    assert grown == pytest.approx(50 * 10 * 3600.0, abs=50e-6)


async def test_tokens_that_come_back_are_lent_to_the_next_with_the_time_they_had(
    pool: Pool, limits: LimitStore
) -> None:
    await tokens_of_half_an_hour_ago(pool, HOURLY)
    mine, others = await lease(limits, HOURLY, 2), await lease(limits, HOURLY, 2, 2)
    assert tokens(await lease(limits, HOURLY, 1, 2)) == 0
    await back(limits, *unused(HOURLY, mine))
    again = await lease(limits, HOURLY, 1, 3)
    assert again.froms == mine.froms
    rest = await lease(limits, HOURLY, 9, 3)
    assert rest.froms[0] == pytest.approx(mine.froms[0] + 3600, abs=1e-5)
    assert tokens(rest) == 1
    await back(limits, *unused(HOURLY, others), *unused(HOURLY, rest))
    assert tokens(await lease(limits, HOURLY, 9, 3)) == 3


async def test_tokens_that_come_back_when_their_time_has_passed_are_void(pool: Pool, limits: LimitStore) -> None:
    bucket = Bucket("fast", "", 0.1, 3, None)
    mine = await lease(limits, bucket, 1)
    await lease(limits, bucket, 9)
    await back(limits, *unused(bucket, mine))
    await age(pool, 60)
    leased = await lease(limits, bucket, 99)
    assert min(times(leased, bucket)) + leased.late_s > 0
    assert 2 <= tokens(leased) <= 3, "two now and perhaps one within the time ahead"
    assert await pool.fetchval("select spare_s from job_limits") == []


async def test_what_came_back_does_not_grow_without_bound(pool: Pool, limits: LimitStore) -> None:
    bucket = Bucket("hourly", "", 3600.0, 200, None)
    leases = [await lease(limits, bucket, 1) for _ in range(60)]
    for leased in leases[::2]:
        await back(limits, *unused(bucket, leased))
    assert await pool.fetchval("select cardinality(spare_s) from job_limits") == 16


async def test_a_burst_of_one_is_lent_one_at_a_time_and_counts_from_its_use(pool: Pool, limits: LimitStore) -> None:
    first = await lease(limits, SINGLE, 5)
    assert tokens(first) == 1
    assert first.lot == 1
    refused = await lease(limits, SINGLE, 1, 2)
    assert tokens(refused) == 0
    assert refused.retry_s == pytest.approx(0.01, abs=0.01)
    used_at = first.at_s + 0.4
    await back(limits, Return(SINGLE, lot=1, used=1, last_s=used_at))
    assert await pool.fetchval("select date_part('epoch', full_at) from job_limits") == pytest.approx(used_at + 3600)
    assert (await lease(limits, SINGLE, 1, 2)).retry_s == pytest.approx(3600, abs=60)
    await age(pool, 3600.5)
    assert tokens(await lease(limits, SINGLE, 1, 2)) == 1


async def test_a_lot_that_was_not_used_is_there_again(limits: LimitStore) -> None:
    await lease(limits, SINGLE, 1)
    await back(limits, Return(SINGLE, lot=1))
    assert (await lease(limits, SINGLE, 1)).lot == 2


async def test_a_lot_nobody_settles_counts_as_used_at_its_last_moment(pool: Pool, limits: LimitStore) -> None:
    """Its daemon may have been killed after the use."""
    first = await lease(limits, SINGLE, 1)
    await age(pool, first.late_s + 0.01)
    late = await lease(limits, SINGLE, 1)
    assert tokens(late) == 0
    assert late.retry_s == pytest.approx(3600, abs=5)


async def test_an_account_of_an_earlier_lot_changes_nothing(pool: Pool, limits: LimitStore) -> None:
    await lease(limits, SINGLE, 1)
    await age(pool, 3700)
    await lease(limits, SINGLE, 1, 2)
    before = await pool.fetchrow("select * from job_limits")
    await back(limits, Return(SINGLE, lot=1))
    assert await pool.fetchrow("select * from job_limits") == before


async def test_eight_takers_together_never_hold_more_places_than_there_are(pool: Pool, limits: LimitStore) -> None:
    held = 0
    most = 0

    async def taker(worker_id: int) -> None:
        nonlocal held, most
        for _ in range(25):
            got = (await lease(limits, PLACES, 2, worker_id)).places
            held += got
            most = max(most, held)
            if got:
                await asyncio.sleep(0)
                held -= got
                await back(limits, Return(PLACES, places=got), worker_id=worker_id)

    await asyncio.gather(*map(taker, range(1, 9)))
    assert 0 < most <= 4
    assert await pool.fetchval("select sum(held) from job_limit_holds") == 0


async def test_places_are_counted_over_all_workers_and_freed_with_a_dead_one(
    pool: Pool, limits: LimitStore, keeping: UpkeepStore, worker: Worker
) -> None:
    dead, live = await worker(), await worker()
    assert (await lease(limits, PLACES, 3, dead)).places == 3
    assert (await lease(limits, PLACES, 3, live)).places == 1
    assert (await lease(limits, PLACES, 1, live)).places == 0
    await die(pool, dead)
    await keeping.forget(dead)
    assert (await lease(limits, PLACES, 9, live)).places == 3


async def test_who_asked_in_vain_gets_a_share_of_what_comes_free(pool: Pool, limits: LimitStore) -> None:
    assert (await lease(limits, PLACES, 9, 1)).places == 4
    assert (await lease(limits, PLACES, 9, 2)).places == 0
    await pool.execute("update job_limit_holds set wants_until = now() + interval '1 hour' where worker_id = 2")
    await back(limits, Return(PLACES, places=3))
    mine = await lease(limits, PLACES, 9, 1)
    assert (mine.places, mine.rivals) == (1, 1), "two of four, and one is held already"
    assert (await lease(limits, PLACES, 9, 2)).places == 2
    assert (await lease(limits, PLACES, 9, 3)).places == 0


async def test_a_share_nobody_asks_for_is_not_kept(pool: Pool, limits: LimitStore) -> None:
    await lease(limits, PLACES, 9, 1)
    await lease(limits, PLACES, 9, 2)
    await pool.execute("update job_limit_holds set wants_until = now() - interval '1 second'")
    await back(limits, Return(PLACES, places=4))
    assert (await lease(limits, PLACES, 9, 1)).places == 4


async def test_places_given_back_twice_do_not_make_more_of_them(limits: LimitStore) -> None:
    await lease(limits, PLACES, 2)
    for _ in range(2):
        await back(limits, Return(PLACES, places=2))
    assert (await lease(limits, PLACES, 99)).places == 4


async def test_a_token_comes_only_with_its_place(limits: LimitStore) -> None:
    bucket = Bucket("both", "", 3600.0, 9, 3)
    leased = await lease(limits, bucket, 9)
    assert (leased.places, tokens(leased), leased.retry_s) == (3, 3, None)
    again = await lease(limits, bucket, 2, places=0)  # two places are in hand
    assert tokens(again) == 2


async def test_a_debt_of_another_config_does_not_close_a_faster_bucket(pool: Pool, limits: LimitStore) -> None:
    """20,000 a day were all taken; now 1,000 a second are allowed: not tomorrow, but at once."""
    await lease(limits, Bucket("daily", "", 86400 / 20000, 20000, None), 20000)
    await pool.execute("update job_limits set full_at = now() + interval '1 day'")
    leased = await lease(limits, Bucket("daily", "", 0.001, 100, None), 1)
    assert leased.retry_s is not None
    assert leased.retry_s <= 0.2


@pytest.mark.parametrize(("token_s", "burst"), [(0.001, 100), (0.02, 1)])
async def test_a_limit_that_is_raised_counts_within_a_moment_however_often_one_asks(
    token_s: float, burst: int, pool: Pool, limits: LimitStore
) -> None:
    hourly = Bucket("raised", "", 3600.0, 1, None)
    await pool.execute("insert into job_limits (name, key, full_at) values ('raised', '', now() + interval '1 hour')")
    assert tokens(await lease(limits, hourly, 1)) == 0
    raised = Bucket("raised", "", token_s, burst, None)
    got = 0
    for _ in range(12):  # each asks a little later
        got += tokens(await lease(limits, raised, 1))
        await age(pool, 0.1)
    assert got > 0


async def test_keys_are_apart(limits: LimitStore) -> None:
    a, b = (Bucket("per_org", key, 3600.0, 1, None) for key in ("a", "b"))
    answers = await limits.lease(1, [(b, (2, 0)), (a, (2, 0))], AHEAD_S)
    assert [tokens(answer) for answer in answers] == [1, 1]


async def test_many_buckets_in_any_order_never_deadlock(pool: Pool, limits: LimitStore) -> None:
    buckets = [Bucket(f"limit {n}", "k", 0.001, 50, 50) for n in range(6)]

    async def taker(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(15):
            some = dice.sample(buckets, dice.randint(2, 6))
            answers = await limits.lease(seed, [(bucket, (1, 1)) for bucket in some], AHEAD_S)
            pieces = [Return(bucket, places=a.places) for bucket, a in zip(some, answers, strict=True)]
            pieces += [piece for bucket, a in zip(some, answers, strict=True) for piece in unused(bucket, a)]
            dice.shuffle(pieces)
            await back(limits, *pieces, worker_id=seed)

    await asyncio.gather(*map(taker, range(8)))  # a deadlock is an error of Postgres
    assert await pool.fetchval("select sum(held) from job_limit_holds") == 0


async def test_buckets_nobody_used_for_a_day_are_forgotten_and_no_others(
    pool: Pool, limits: LimitStore, keeping: UpkeepStore
) -> None:
    """A limit for each organisation leaves a bucket behind for each that ever had a job."""
    await lease(limits, Bucket("per", "old", 1.0, 5, 2), 1)
    await lease(limits, Bucket("per", "held", 1.0, 5, 2), 1)
    await lease(limits, Bucket("per", "in debt", 3600.0, 9, None), 9)
    await back(limits, Return(Bucket("per", "old", 1.0, 5, 2), places=1))
    await age(pool, 2 * 86400)
    await pool.execute("update job_limit_holds set asked_at = now() - interval '2 days'")
    await pool.execute("update job_limits set full_at = now() + interval '1 hour' where key = 'in debt'")
    await lease(limits, Bucket("per", "new", 1.0, 5, 2), 1)
    looked_at, after = [], ("", "")
    while (last := await keeping.forget_buckets(86400, after, 1)) is not None:
        looked_at.append(last[1])
        after = last
    assert looked_at == ["held", "in debt", "new", "old"]
    assert [row[0] for row in await pool.fetch("select key from job_limits order by key")] == ["held", "in debt", "new"]
    assert [row[0] for row in await pool.fetch("select key from job_limit_holds order by key")] == ["held", "new"]


async def test_a_bucket_forgotten_while_somebody_asks_for_it_is_made_anew(pool: Pool, limits: LimitStore) -> None:
    await lease(limits, HOURLY, 1)
    async with pool.acquire() as conn:
        forgetting = conn.transaction()
        await forgetting.start()
        await conn.execute("delete from job_limits")
        asking = asyncio.ensure_future(lease(limits, HOURLY, 3))
        waits = "select exists (select from pg_locks where not granted)"
        while not await pool.fetchval(waits):
            pass
        await forgetting.commit()
    assert tokens(await asking) == 3


async def test_many_buckets_are_looked_over_by_their_key(database: str) -> None:
    """An upkeep step costs the same however many buckets there are."""
    conn = await asyncpg.connect(database)
    await conn.execute(
        """insert into job_limits (name, key) select 'per', n::text from generate_series(1, 20000) as n;
           insert into job_limit_holds (name, key, worker_id, held) select name, key, 1, 0 from job_limits;
           analyze job_limits, job_limit_holds"""
    )
    plan = await explain(conn, sql.load("upkeep.sql")["forget_buckets"], ("86400", "''", "''", "100"), "auto")
    await conn.close()
    assert {"job_limits_pkey", "job_limit_holds_pkey"} <= plan.indexes
    assert plan.buffers < 3000
