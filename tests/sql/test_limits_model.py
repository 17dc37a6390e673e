"""The SQL of the limits agrees with its model in Python, on which the law of the windows is tried."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from benchmarks.windows import most_beyond
from daemon.limit_store import LimitStore
from daemon.limits import Bucket
from daemon.slices import Leased, Return
from tests.limits_model import Model
from tests.sql.rows import Pool
from tests.sql.test_limits import age, lease

GRAIN_S = 5e-6


def alike(found: Leased, expected: Leased) -> None:
    assert found.counts == expected.counts
    assert found.froms == pytest.approx(expected.froms, rel=0, abs=GRAIN_S)
    assert found.late_s == pytest.approx(expected.late_s)
    assert found.lot == expected.lot
    expected_s = None if expected.retry_s is None else pytest.approx(expected.retry_s, abs=1e-4)
    assert found.retry_s == expected_s


@pytest.mark.parametrize("burst", [1, 2, 5, 60])
@pytest.mark.parametrize("rate", [20 / 86400, 1.0, 10.0, 997.0])
async def test_the_sql_does_what_its_model_does(pool: Pool, limits: LimitStore, rate: float, burst: int) -> None:
    """Time passes in the database by making what stands there older; the model's clock goes on by as much."""
    bucket, dice = Bucket("l", "", 1 / rate, burst, None), random.Random(f"{rate} {burst}")
    model, given, aged_s = Model(bucket), list[Leased](), 0.0
    for _ in range(150):
        action = dice.random()
        if action < 0.5:
            count, ahead_s = dice.choice([1, 2, burst]), dice.choice([0.0, 0.1, 0.1])
            found = shifted(await lease(limits, bucket, count, ahead_s=ahead_s), aged_s)
            given.append(model.lease(found.at_s, count, ahead_s))
            alike(found, given[-1])
        elif action < 0.8 and given:
            for piece in pieces(given.pop(dice.randrange(len(given))), bucket, dice):
                model.give_back(piece)
                from_s = None if piece.from_s is None else piece.from_s - aged_s
                earlier = replace(piece, from_s=from_s, last_s=piece.last_s - aged_s)
                await limits.give_back(1, [earlier])
        else:
            seconds = dice.choice([0.01, 0.3, 1 / rate, burst / rate])
            await age(pool, seconds)
            aged_s += seconds
    assert any(leased.counts for leased in given)


def shifted(leased: Leased, by_s: float) -> Leased:
    return replace(leased, at_s=leased.at_s + by_s, froms=tuple(at + by_s for at in leased.froms))


def pieces(leased: Leased, bucket: Bucket, dice: random.Random) -> list[Return]:
    """Some of it was used, and the rest comes back."""
    assert bucket.token_s is not None
    found = []
    for from_s, count in zip(leased.froms, leased.counts, strict=True):
        used = dice.choice([0, 0, count // 2, count])
        if leased.lot is not None:
            found.append(Return(bucket, lot=leased.lot, used=used, last_s=from_s + dice.random() * leased.late_s))
        else:
            found.append(Return(bucket, from_s=from_s + used * bucket.token_s, count=count - used))
    return found


@pytest.mark.req("JP-08")
async def test_eight_takers_together_never_get_more_than_burst_and_rate_allow(limits: LimitStore) -> None:
    bucket = Bucket("fast", "", 0.002, 40, None)
    usable: list[float] = []

    async def taker(worker_id: int) -> None:
        dice = random.Random(worker_id)
        for _ in range(40):
            leased = await lease(limits, bucket, dice.randint(1, 5), worker_id)
            for from_s, count in zip(leased.froms, leased.counts, strict=True):
                kept = dice.randint(0, count)
                usable.extend(max(from_s + n * 0.002, leased.at_s) for n in range(kept))
                await limits.give_back(1, [Return(bucket, from_s=from_s + kept * 0.002, count=count - kept)])

    await asyncio.gather(*map(taker, range(8)))
    assert len(usable) > 40
    assert most_beyond(sorted(usable), 500) <= 40 + 0.01
