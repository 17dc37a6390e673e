"""Buckets shared by all daemons: never more than the limit, and nothing lost on the way back."""

from __future__ import annotations

import asyncio
import random

import pytest

from daemon.limits import Bucket, Grant
from daemon.store import Store
from tests.sql.rows import Pool, Worker, die

HOURLY = Bucket("hourly", "", 3600.0, 5, None)  # a token an hour: none grows while a test runs
PLACES = Bucket("places", "", None, None, 4)


async def age(pool: Pool, bucket: Bucket, seconds: float) -> None:
    """Let so much time pass for the bucket."""
    await pool.execute(
        "update job_limits set full_at = full_at - $3::float8 * interval '1 second' where name = $1 and key = $2",
        bucket.name, bucket.key, seconds,
    )  # fmt: skip


async def take(store: Store, bucket: Bucket, wanted: int, worker_id: int = 1) -> Grant:
    return (await store.take(worker_id, {bucket: wanted}))[bucket]


async def test_a_new_bucket_is_full_and_tells_when_the_next_token_is_there(store: Store) -> None:
    assert await take(store, HOURLY, 3) == Grant(3, None)
    granted = await take(store, HOURLY, 3)
    assert granted.granted == 2
    assert granted.retry_s == pytest.approx(3600, abs=60)
    assert (await take(store, HOURLY, 1)).granted == 0


async def test_tokens_grow_one_by_one_and_no_higher_than_the_burst(pool: Pool, store: Store) -> None:
    await take(store, HOURLY, 5)
    await age(pool, HOURLY, 3590 * 2)
    assert (await take(store, HOURLY, 5)).granted == 1
    await age(pool, HOURLY, 3600)
    assert (await take(store, HOURLY, 5)).granted == 1
    await age(pool, HOURLY, 3600 * 1000)
    assert (await take(store, HOURLY, 50)).granted == 5


@pytest.mark.req("JP-08")
async def test_eight_takers_together_never_get_more_than_burst_and_rate_allow(pool: Pool, store: Store) -> None:
    bucket = Bucket("fast", "", 0.002, 20, None)
    granted: list[int] = []
    began = await pool.fetchval("select clock_timestamp()")

    async def taker(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(40):
            granted.append((await take(store, bucket, dice.randint(1, 5), seed)).granted)

    await asyncio.gather(*map(taker, range(8)))
    elapsed = (await pool.fetchval("select clock_timestamp()") - began).total_seconds()
    assert 20 < sum(granted) <= 20 + elapsed / 0.002


async def test_no_time_is_lost_between_two_takes(pool: Pool, store: Store) -> None:
    """The debt grows by the tokens' time exactly: a moment lost at each take would slow the rate."""
    bucket = Bucket("hourly", "", 3600.0, 1000, None)
    await take(store, bucket, 1)
    before = await pool.fetchval("select full_at from job_limits")
    for _ in range(50):
        await take(store, bucket, 10)
    grown = (await pool.fetchval("select full_at from job_limits") - before).total_seconds()
    assert grown == pytest.approx(50 * 10 * 3600.0, abs=50e-6)


async def test_eight_takers_together_never_hold_more_places_than_there_are(pool: Pool, store: Store) -> None:
    held = 0
    most = 0

    async def taker(worker_id: int) -> None:
        nonlocal held, most
        for _ in range(25):
            granted = (await take(store, PLACES, 2, worker_id)).granted
            held += granted
            most = max(most, held)
            if granted:
                await asyncio.sleep(0)
                held -= granted
                await store.give(worker_id, {PLACES: granted}, {})

    await asyncio.gather(*map(taker, range(1, 9)))
    assert 0 < most <= 4
    assert await pool.fetchval("select sum(held) from job_limit_holds") == 0


async def test_places_are_counted_over_all_workers_and_freed_with_a_dead_one(
    pool: Pool, store: Store, worker: Worker
) -> None:
    dead, live = await worker(), await worker()
    assert (await take(store, PLACES, 3, dead)).granted == 3
    assert await take(store, PLACES, 3, live) == Grant(1, None)
    assert await take(store, PLACES, 1, live) == Grant(0, None)
    await die(pool, dead)
    await store.forget(dead)
    assert (await take(store, PLACES, 9, live)).granted == 3


async def test_tokens_given_back_can_be_taken_again(pool: Pool, store: Store) -> None:
    await take(store, HOURLY, 5)
    await store.give(1, {}, {HOURLY: 2})
    assert (await take(store, HOURLY, 5)).granted == 2
    await store.give(1, {}, {HOURLY: 99})  # more than was taken does not make it deeper
    assert (await take(store, HOURLY, 99)).granted == 5


async def test_places_given_back_twice_do_not_make_more_of_them(store: Store) -> None:
    await take(store, PLACES, 2)
    for _ in range(2):
        await store.give(1, {PLACES: 2}, {})
    assert (await take(store, PLACES, 99)).granted == 4


async def test_both_a_rate_and_places_must_allow_it(store: Store) -> None:
    assert await take(store, Bucket("both", "", 3600.0, 5, 3), 9) == Grant(3, None)  # wait for a place
    roomy = Bucket("both", "", 3600.0, 5, 9)
    granted = await take(store, roomy, 9)
    assert granted.granted == 2
    assert granted.retry_s == pytest.approx(3600, abs=60)


async def test_a_debt_of_another_config_does_not_close_a_faster_bucket(store: Store) -> None:
    """20,000 a day were all taken; now 1,000 a second are allowed: not tomorrow, but within one burst."""
    await take(store, Bucket("daily", "", 86400 / 20000, 20000, None), 20000)
    granted = await take(store, Bucket("daily", "", 0.001, 10, None), 1)
    assert granted.retry_s is not None
    assert granted.retry_s <= 0.011


async def test_keys_are_apart(store: Store) -> None:
    a, b = (Bucket("per_org", key, 3600.0, 1, None) for key in ("a", "b"))
    grants = await store.take(1, {b: 2, a: 2})
    assert [grants[b].granted, grants[a].granted] == [1, 1]


async def test_many_buckets_in_any_order_never_deadlock(pool: Pool, store: Store) -> None:
    buckets = [Bucket(f"limit {n}", "k", 0.001, 50, 50) for n in range(6)]

    async def taker(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(15):
            some = dice.sample(buckets, dice.randint(2, 6))
            grants = await store.take(seed, dict.fromkeys(some, 1))
            dice.shuffle(some)
            got = {bucket: grants[bucket].granted for bucket in some}
            await store.give(seed, got, got)

    await asyncio.gather(*map(taker, range(8)))  # a deadlock is an error of Postgres
    assert await pool.fetchval("select sum(held) from job_limit_holds") == 0
