"""The daemon's side of a lease: many buckets in one trip, nothing kept for nothing, nothing held twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import pytest

from daemon.lender import TRIP_MAX, Lender
from daemon.limit_store import LimitStore
from daemon.limits import Bucket
from tests.sql.rows import Pool
from tests.sql.test_limits import tokens_of_half_an_hour_ago

HOURLY = Bucket("hourly", "", 3600.0, 6, None)
PLACES = Bucket("places", "", None, None, 4)
HELD = "select coalesce(sum(held), 0)::int from job_limit_holds where worker_id = $1"


@pytest.fixture
def lender(limits: LimitStore) -> Lender:
    return Lender(limits, Counter)


async def test_more_buckets_than_one_trip_takes_are_all_asked(lender: Lender) -> None:
    """Those of a claim, when a limit goes by organisation."""
    buckets = [Bucket("per_org", str(n), None, None, 5) for n in range(2 * TRIP_MAX + 1)]
    await lender.lease(1, dict.fromkeys(buckets, 1))
    assert set(lender.in_hand(buckets).values()) == {1}


async def test_what_is_in_hand_is_not_asked_for_again(pool: Pool, lender: Lender) -> None:
    await tokens_of_half_an_hour_ago(pool, HOURLY)
    await lender.lease(1, {HOURLY: 3})
    before = await pool.fetchval("select full_at from job_limits")
    await lender.lease(1, {HOURLY: 3})
    assert await pool.fetchval("select full_at from job_limits") == before
    lender.spend({HOURLY: 2})
    await lender.lease(1, {HOURLY: 3})
    assert lender.usable(HOURLY) == 3


async def test_all_goes_back_when_asked_and_another_has_it(pool: Pool, limits: LimitStore, lender: Lender) -> None:
    await tokens_of_half_an_hour_ago(pool, HOURLY)
    await lender.lease(1, {HOURLY: 5, PLACES: 4})
    lender.spend({HOURLY: 1, PLACES: 1})
    await lender.tidy(1, (), all_of_it=True)
    assert lender.in_hand([HOURLY, PLACES]) == {HOURLY: 0, PLACES: 0}
    other = Lender(limits, Counter)
    await other.lease(2, {HOURLY: 5, PLACES: 4})
    assert other.in_hand([HOURLY, PLACES]) == {HOURLY: 4, PLACES: 3}


async def test_places_of_an_earlier_worker_are_not_in_hand(lender: Lender) -> None:
    await lender.lease(1, {PLACES: 2})
    lender.serve(2)
    assert lender.usable(PLACES) == 0


async def test_after_a_lost_answer_the_places_held_are_those_that_run(
    pool: Pool, limits: LimitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Counter({PLACES: 1})
    lender = Lender(limits, lambda: running)
    await lender.lease(1, {PLACES: 1})
    lender.spend({PLACES: 1})
    with monkeypatch.context() as patch:
        patch.setattr(LimitStore, "lease", _answer_lost(LimitStore.lease))
        with pytest.raises(asyncpg.InterfaceError):
            await lender.lease(1, {PLACES: 3})
    assert await pool.fetchval(HELD, 1) == 4, "Postgres lent them"
    await lender.tidy(1, ())
    assert await pool.fetchval(HELD, 1) == 1
    await lender.lease(1, {PLACES: 3})
    assert lender.usable(PLACES) == 3


async def test_two_that_ask_at_once_make_one_trip_after_another(pool: Pool, lender: Lender) -> None:
    """A true-up between the two would count the first one's places twice, or not at all."""
    await asyncio.gather(*(lender.lease(1, {PLACES: 2}) for _ in range(5)))
    assert lender.usable(PLACES) == 2
    assert await pool.fetchval(HELD, 1) == 2


async def test_a_hand_that_is_empty_is_forgotten(lender: Lender) -> None:
    """Else a daemon would grow with every organisation it ever saw."""
    await lender.lease(1, {PLACES: 1})
    await lender.tidy(1, (), all_of_it=True)
    assert not lender._hands


def _answer_lost(lease: Any) -> Any:
    async def lost(*args: Any) -> None:
        await lease(*args)
        raise asyncpg.InterfaceError("connection is closed")

    return lost
