"""Tokens that handlers take: kept for a moment for a row that was claimed, given out in order, and never twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import cast

import pytest

from daemon.config import parse
from daemon.hand_overs import KEPT_S, HandOvers
from daemon.lender import Lender
from daemon.limits import Bucket, Limits
from daemon.log import Logger
from daemon.observe import Observer
from jobs.email.turns import Asker

CONFIG = '[email]\nfrom = "a@x.example"\n[email.relays.main]\nhost = "r.example"\nrate = "20/s"\n'
DAY = "messages_per_day = 10\n"
JOB = (7, 1)


class Hand(Lender):
    """So much of everything, and when it is worth asking again."""

    def __init__(self, tokens: int = 0, pause_s: float = 0.0) -> None:
        self.tokens, self.waits_for_s = tokens, pause_s
        self.spent: dict[str, int] = {}
        self.told: list[float] = []

    def usable(self, bucket: Bucket) -> int:
        return self.tokens - self.spent.get(bucket.name, 0)

    def spend(self, taken: Mapping[Bucket, int]) -> None:
        for bucket, count in taken.items():
            self.spent[bucket.name] = self.spent.get(bucket.name, 0) + count

    def pause_s(self, bucket: Bucket) -> float:
        return self.waits_for_s

    async def slow(self, bucket: Bucket, age_s: float) -> float | None:
        self.told.append(age_s)
        return 0.5


@pytest.fixture
def observer() -> Iterator[Observer]:
    with tempfile.TemporaryFile("w+b") as file, closing(Logger(file)) as log:
        yield Observer(log)


def made(hand: Hand, observer: Observer, config: str = CONFIG) -> HandOvers:
    limits = Limits(parse(config).all_limits)
    return HandOvers(cast(Lender, hand), lambda: limits, lambda: None, observer)


async def turn_of_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_hand_over_takes_one_of_each_and_an_unlimited_relay_none(observer: Observer) -> None:
    hand = Hand(2)
    turns = made(hand, observer, CONFIG + DAY)
    assert await turns.take("main", Asker(), 5.0) == 0.0
    assert await turns.take("main", Asker(security=True), 5.0) == 0.0
    assert await turns.take("other", Asker(), 5.0) == 0.0
    assert hand.spent == {"relay:main": 2, "relay_day:main": 2, "relay_ordinary:main": 1}


async def test_who_waits_is_given_his_turn_before_whoever_comes_later(observer: Observer) -> None:
    hand = Hand(0)
    turns = made(hand, observer)
    first, second = (asyncio.ensure_future(turns.take("main", Asker(), 50.0)) for _ in range(2))
    await turn_of_loop()
    (bucket,) = turns.buckets()
    assert turns.buckets()[bucket] == turns.claims(bucket) == 2
    hand.tokens = 1
    late = asyncio.ensure_future(turns.take("main", Asker(), 50.0))
    await turn_of_loop()
    turns.give()
    await turn_of_loop()
    assert [task.done() for task in (first, second, late)] == [True, False, False]
    hand.tokens = 3
    turns.give()
    assert [await task for task in (first, second, late)] == [0.0, 0.0, 0.0]
    assert turns.claims(bucket) == 0


async def test_security_mail_passes_what_waits_for_the_rest_of_the_day(observer: Observer) -> None:
    hand = Hand(1)
    turns = made(hand, observer, CONFIG + DAY)
    hand.spent = {"relay_ordinary:main": 1}
    ordinary = asyncio.ensure_future(turns.take("main", Asker(), 50.0))
    await turn_of_loop()
    security = asyncio.ensure_future(turns.take("main", Asker(security=True), 50.0))
    await turn_of_loop()
    turns.give()
    assert await security == 0.0
    assert not ordinary.done()
    ordinary.cancel()
    await turn_of_loop()
    assert not turns.buckets()


async def test_who_would_wait_in_vain_is_told_at_once(observer: Observer) -> None:
    """And gives its connection back."""
    turns = made(hand := Hand(0, pause_s=40.0), observer)
    assert await turns.take("main", Asker(), 5.0) == 40.0
    hand.waits_for_s = 0.0
    waiting = asyncio.ensure_future(turns.take("main", Asker(), 5.0))
    await turn_of_loop()
    hand.waits_for_s = 30.0
    turns.give()
    assert await waiting == 30.0


async def test_a_claimed_row_has_its_token_for_a_moment_only(observer: Observer) -> None:
    now, hand = [100.0], Hand(1)
    limits = Limits(parse(CONFIG).all_limits)
    turns = HandOvers(cast(Lender, hand), lambda: limits, lambda: None, observer, clock=lambda: now[0])
    (bucket,) = limits.named(["relay:main"])
    turns.keep(JOB, [bucket])
    turns.keep(JOB, [bucket])
    assert turns.claims(bucket) == 1, "a claim that was made again"
    now[0] += KEPT_S
    assert turns.claims(bucket) == 0, "it may be stuck, and the token is for somebody else"
    turns.keep((8, 1), [bucket])
    assert await turns.take("main", Asker((8, 1)), 5.0) == 0.0
    assert turns.claims(bucket) == 0
    turns.drop((8, 1))
    assert turns.claims(bucket) == 0


async def test_a_reload_that_takes_the_limit_away_lets_all_go(observer: Observer) -> None:
    limits = [Limits(parse(CONFIG).all_limits)]
    turns = HandOvers(cast(Lender, Hand(0)), lambda: limits[0], lambda: None, observer)
    waiting = asyncio.ensure_future(turns.take("main", Asker(), 50.0))
    await turn_of_loop()
    limits[0] = Limits({})
    turns.reload()
    turns.give()
    assert await waiting == 0.0


async def test_a_relay_that_throttles_is_slowed_once_if_it_has_a_rate(observer: Observer) -> None:
    hand = Hand(1)
    turns = made(hand, observer)
    assert not turns.throttled("other", 0.1, "too fast")
    assert turns.throttled("main", 0.1, "too fast")
    assert turns.throttled("main", 0.2, "too fast")
    await turns.slow_down()
    await turns.slow_down()
    assert len(hand.told) == 1
    assert hand.told[0] >= 0.2
