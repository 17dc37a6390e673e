"""So many a day: never more in any 24 hours, or in a day that begins at its time; and a rate that was too much."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.limits import Bucket
from daemon.slices import Leased, Return
from tests.sql.rows import Pool
from tests.sql.test_limits import age, lease

DAY_S, SLOT_S = 86_400.0, 900.0
ROLLING = Bucket("day", "", None, 10, None, day=-1, at_call=True)
FAST = Bucket("fast", "", 0.01, 20, None, at_call=True)
MINUTES = Bucket("minutes", "", 60.0, 20, None, at_call=True)
SINGLE = Bucket("single", "", 0.5, 1, None, at_call=True)


async def ask(limits: LimitStore, bucket: Bucket, wanted: int) -> Leased:
    (answer,) = await limits.lease(1, [(bucket, (wanted, 0))], 0.1)
    return answer


async def day_passes(pool: Pool, seconds: float) -> None:
    """What was lent was lent so much earlier."""
    await age(pool, seconds)
    await pool.execute("update job_limits set day_at = array(select s - $1::float8 from unnest(day_at) as s)", seconds)


@pytest.mark.req("BJ-21")
async def test_a_day_lends_what_it_has_and_no_more_until_it_is_a_day_ago(pool: Pool, limits: LimitStore) -> None:
    first = await ask(limits, ROLLING, 7)
    assert (first.counts, first.used, first.retry_s) == ((7,), 7, None)
    assert first.late_s == pytest.approx(1, abs=1e-6)
    rest = await ask(limits, ROLLING, 7)
    assert (rest.counts, rest.used) == ((3,), 10)
    none = await ask(limits, ROLLING, 1)
    assert (none.counts, none.used) == ((), 10)
    assert none.retry_s == 2, "somebody may give some back"
    await day_passes(pool, DAY_S - SLOT_S)
    assert (await ask(limits, ROLLING, 1)).counts == ()
    await day_passes(pool, 2 * SLOT_S)
    assert (await ask(limits, ROLLING, 99)).counts == (10,)


async def test_what_comes_back_is_lent_again_and_once(pool: Pool, limits: LimitStore) -> None:
    leased = await ask(limits, ROLLING, 10)
    await limits.give_back(1, [Return(ROLLING, from_s=leased.froms[0], count=4, lot=leased.lot)])
    assert (await ask(limits, ROLLING, 10)).counts == (4,)
    await day_passes(pool, 2 * DAY_S)
    assert (await ask(limits, ROLLING, 10)).counts == (10,)
    assert leased.lot is not None
    earlier = leased.lot - int(2 * DAY_S / SLOT_S)
    await limits.give_back(1, [Return(ROLLING, from_s=leased.froms[0], count=6, lot=earlier)])
    assert (await ask(limits, ROLLING, 1)).counts == (), "what came back too late is nobody's"


async def test_a_day_of_its_own_begins_full_and_lends_nothing_over_its_end(pool: Pool, limits: LimitStore) -> None:
    now_s = (await ask(limits, ROLLING, 1)).at_s
    lately = replace(ROLLING, name="lately", day=int(now_s // SLOT_S * SLOT_S % DAY_S))
    assert (await ask(limits, lately, 99)).counts == (10,)
    assert (await ask(limits, lately, 99)).counts == ()
    await day_passes(pool, 2 * SLOT_S)
    assert (await ask(limits, lately, 99)).counts == (10,), "what was lent before it began"
    end_s = int(now_s) + 2
    ending = replace(ROLLING, name="ending", day=int(end_s % DAY_S))
    for _ in range(8):
        last = await ask(limits, ending, 1)
        assert last.at_s > end_s or last.at_s + last.late_s < end_s


async def test_in_no_24_hours_more_is_used_than_the_day_has(pool: Pool, limits: LimitStore) -> None:
    """However it is asked and given back; used at the last moment it may be."""
    dice, passed_s, used = random.Random(7), 0.0, list[float]()
    for _ in range(250):
        leased = await ask(limits, ROLLING, dice.choice([1, 2, 5]))
        for count in leased.counts:
            back = dice.choice([0, 0, count // 2])
            late_s = dice.random() * leased.late_s
            used += [passed_s + leased.at_s + late_s] * (count - back)
            await limits.give_back(1, [Return(ROLLING, from_s=leased.froms[0], count=back, lot=leased.lot)])
        seconds = SLOT_S * dice.choice([0, 0, 1, 3, 20])  # whole slots, so that time passes for slots as it does
        await day_passes(pool, seconds)
        passed_s += seconds
    used.sort()
    assert all(later - earlier >= DAY_S for earlier, later in zip(used, used[10:], strict=False))
    days = (used[-1] - used[0]) / DAY_S
    assert len(used) >= 0.9 * 10 * (days - 1), "and it is used"


async def test_a_higher_day_counts_at_once_and_a_lower_one_too(limits: LimitStore) -> None:
    await ask(limits, ROLLING, 10)
    assert (await ask(limits, replace(ROLLING, burst=12), 9)).counts == (2,)
    assert (await ask(limits, replace(ROLLING, burst=5), 9)).counts == ()


async def test_a_lender_takes_of_a_day_what_it_uses_and_not_what_is_wanted(limits: LimitStore) -> None:
    """What it has in hand when it is killed is gone for the day."""
    lender = Lender(limits, dict)
    await lender.lease(1, {ROLLING: 10})
    assert lender.usable(ROLLING) == 1
    lender.spend({ROLLING: 1})
    await lender.lease(1, {ROLLING: 10})
    assert lender.usable(ROLLING) == 2
    await lender.tidy(1, (), all_of_it=True)
    assert (await ask(limits, ROLLING, 99)).counts == (9,)


# --- too much ---------------------------------------------------------------------------------------------------------


async def slowed_ago(pool: Pool, seconds: float) -> None:
    await pool.execute("update job_limits set slowed_at = slowed_at - $1::float8 * interval '1 second'", seconds)


async def test_what_was_too_much_halves_the_rate_once_for_all_that_was_under_way(limits: LimitStore) -> None:
    await lease(limits, FAST, 5)
    assert await limits.slow(FAST, 0.0) == 0.5
    assert await limits.slow(FAST, 30.0) is None, "sent before it was slowed"
    assert await limits.slow(FAST, 0.0) == pytest.approx(0.25, abs=0.01)


async def test_a_slowed_rate_grows_by_a_tenth_a_minute_up_to_the_whole(pool: Pool, limits: LimitStore) -> None:
    await lease(limits, FAST, 5)
    await limits.slow(FAST, 0.0)
    shares = []
    for _ in range(7):
        answer = await lease(limits, FAST, 1)
        shares.append(round(answer.share, 2))
        assert answer.step_s == pytest.approx(0.01 / answer.share)
        await slowed_ago(pool, 60)
    assert shares == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0]


async def test_it_is_never_less_than_a_hundredth(limits: LimitStore) -> None:
    await lease(limits, FAST, 1)
    for _ in range(9):
        share = await limits.slow(FAST, 0.0)
    assert share == 0.01


@pytest.mark.parametrize("bucket", [FAST, SINGLE])
async def test_a_slowed_bucket_is_empty_and_its_tokens_are_as_far_apart_as_it_says(
    pool: Pool, limits: LimitStore, bucket: Bucket
) -> None:
    assert bucket.token_s is not None
    await lease(limits, bucket, 1)
    await age(pool, 600)
    await limits.slow(bucket, 0.0)
    at, now_s = list[float](), 0.0
    for _ in range(60):
        leased = await lease(limits, bucket, 1)
        for first in leased.froms:
            used_at = max(first, leased.at_s) + now_s
            at.append(used_at)
            if leased.lot is not None:
                piece = Return(bucket, lot=leased.lot, used=1, last_s=used_at - now_s)
                await limits.give_back(1, [piece])
        await age(pool, bucket.token_s)
        now_s += bucket.token_s
    at.sort()
    assert len(at) >= 20
    mean_s = (at[-1] - at[0]) / (len(at) - 1)
    assert 1.8 * bucket.token_s <= mean_s <= 3 * bucket.token_s, "half of them"


async def test_slow_tokens_that_come_back_are_lent_no_closer_than_they_were(pool: Pool, limits: LimitStore) -> None:
    await lease(limits, MINUTES, 1)
    await limits.slow(MINUTES, 0.0)
    await age(pool, 3000)
    mine, others = await lease(limits, MINUTES, 4), await lease(limits, MINUTES, 2)
    assert mine.counts
    assert others.counts
    pieces = zip(mine.froms, mine.counts, strict=True)
    await limits.give_back(1, [Return(MINUTES, from_s=s, count=n, step_s=mine.step_s) for s, n in pieces])
    assert await pool.fetchval("select spare_s from job_limits") == []
    (count,) = others.counts
    await limits.give_back(1, [Return(MINUTES, from_s=others.froms[0], count=count, step_s=others.step_s)])
    again = await lease(limits, MINUTES, 2)
    assert again.froms[0] == pytest.approx(others.froms[0], abs=1e-4), "the last ones are as if never lent"
