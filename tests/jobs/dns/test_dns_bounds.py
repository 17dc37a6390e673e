"""What a check may cost others and ourselves."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobs.dns.kept import Kept
from jobs.dns.once import Once
from jobs.dns.pace import KEPT, Pace
from tests.jobs.dns.conftest import Here
from tests.jobs.dns.internet import Internet

NAME = "_token.shop.test"


async def test_one_address_is_asked_so_often_a_second_and_no_more(internet: Internet, here: Here) -> None:
    """By all checks together; in order, and without keeping those who ask others."""
    shop = await internet.zone("shop.test", servers=1)
    other = await internet.zone("other.test", servers=1)
    resolver = here(authority_rate=10)
    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(resolver.sight(f"n{n}.shop.test", "TXT", visible=False))
        group.create_task(resolver.sight("other.test", "TXT", visible=False))
    asked, _ = ([one.at for one in zone.servers[0].log if one.by == "us"] for zone in (shop, other))
    assert len(asked) > 10
    assert asked[10] - asked[0] > 0.5
    assert other.asked.total() < 10


async def test_no_second_has_more_turns_than_that() -> None:
    pace = Pace(4)
    taken: list[float] = []

    async def one() -> None:
        async with pace.turn("192.0.2.1"):
            taken.append(time.monotonic())

    await asyncio.gather(*(one() for _ in range(9)))
    assert all(later - earlier >= 1 for earlier, later in zip(taken, taken[4:], strict=False))
    assert [pace.take("192.0.2.2") for _ in range(5)] == [True] * 4 + [False]


async def test_no_pace_is_remembered_of_those_who_are_not_asked_any_more() -> None:
    pace = Pace(1)
    for n in range(KEPT):
        async with pace.turn(f"busy{n}"):
            pass
    for line in pace._lines.values():
        line.sent[0] -= 2
    async with pace.turn("busy0"):
        pass
    async with pace.turn("one more"):
        assert pace.wait_s("one more") == 1
    assert len(pace._lines) == 2


async def test_who_would_wait_longer_than_his_check_lasts_is_told_at_once(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", servers=1)
    resolver = here(authority_rate=1, check_timeout=0.3, timeout=0.2)
    answers = (await resolver.sight(NAME, "TXT", visible=False)).authorities
    assert {answer.reason for answer in answers.values()} == {"budget"}
    assert shop.asked.total() <= 1


async def test_a_check_that_has_spent_its_questions_says_so(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(*(f"n{n}.shop.test TXT hello" for n in range(30)))
    async with here(check_questions=30).check("shop.test") as check:
        found = [await check.sight(f"n{n}.shop.test", "TXT", visible=True) for n in range(30)]
        assert check.questions == 30
    assert [answer.outcome for answer in found[0].authorities.values()] == ["answer"] * 2
    assert {answer.reason for answer in found[-1].authorities.values()} == {"budget"}
    assert {answer.reason for answer in found[-1].resolvers.values()} == {"budget"}
    assert internet.asked.total() == 30


async def test_a_zone_of_very_many_servers_is_asked_at_some(internet: Internet, here: Here) -> None:
    """A name server's owner may name a thousand strangers as others of the zone."""
    await internet.zone("shop.test", servers=1)
    internet.delegate("shop.test", {f"ns{n}.shop.test": [f"127.53.200.{n}"] for n in range(60)})
    async with here().check("shop.test") as check:
        sighting = await check.sight("shop.test", "TXT", visible=False)
        assert check.questions < 100
    reasons = [answer.reason for answer in sighting.authorities.values()]
    assert len(reasons) == 60
    assert reasons.count("budget") == 60 - 32


async def test_names_of_servers_that_each_need_a_search_are_searched_for_a_few(internet: Internet, here: Here) -> None:
    """Known as NXNSAttack: a referral to a hundred names somewhere else."""
    victim = await internet.zone("victim.example")
    await internet.zone("shop.test", servers=1)
    internet.delegate("shop.test", {f"n{n}.victim.example": [] for n in range(60)})
    sighting = await here().sight("shop.test", "TXT", visible=False)
    assert {answer.reason for answer in sighting.authorities.values()} == {"no_address", "budget"}
    assert victim.asked.total() < 120


async def test_what_one_check_has_asked_it_does_not_ask_again(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} TXT token=1")
    async with here().check("shop.test") as check:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(check.sight(NAME, "TXT", visible=False))
                group.create_task(check.sight(NAME, "TXT", visible=True))
                group.create_task(check.published(NAME, "TXT"))
                group.create_task(check.query(NAME, "TXT"))
        assert (await check.published(NAME, "TXT")).values == ("token=1",)
    assert shop.asked[NAME, "TXT", "udp"] == 2
    assert shop.asked["shop.test", "NS", "udp"] == 2
    assert internet.zones["test"].asked.total() == 1
    assert [resolver.asked.total() for resolver in internet.resolvers] == [2, 2, 2]  # one for `sight`, one for `query`


async def test_a_check_of_many_records_finds_its_way_once(internet: Internet, here: Here) -> None:
    """Seven questions for the way, and then one to each server for each record."""
    shop = await internet.zone("shop.test")
    resolver = here()
    await resolver.sight("other.test", "TXT", visible=False)
    async with resolver.check("shop.test") as check, asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(check.sight(f"n{n}.shop.test", "TXT", visible=False))
    assert sum(shop.asked[f"n{n}.shop.test", "TXT", "udp"] for n in range(20)) == 40
    assert check.questions == 40 + 8


async def test_the_next_check_asks_again(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    resolver = here()
    for value in ("one", "two"):
        shop.set(NAME, "TXT", value)
        async with resolver.check("shop.test") as check:
            assert (await check.published(NAME, "TXT")).values == (value,)


async def test_close_waits_for_the_checks_under_way(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.servers[0].slow(0.2)
    shop.servers[1].slow(0.2)
    resolver = here()
    done: list[str] = []

    async def one() -> None:
        sighting = await resolver.sight(NAME, "TXT", visible=False)
        done.extend(answer.said for answer in sighting.authorities.values())

    async with asyncio.TaskGroup() as group:
        group.create_task(one())
        await shop.servers[0].asked_so_often(1)
        await resolver.close()
        assert done == ["nxdomain", "nxdomain"]


async def test_a_check_that_is_cancelled_leaves_nothing_under_way(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.fault("silent")
    resolver = here(concurrency=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await resolver.sight(NAME, "TXT", visible=True)
    await asyncio.wait_for(resolver.close(), 60)
    internet.heal()
    assert (await resolver.sight(NAME, "TXT", visible=True)).authorities


async def test_a_maker_that_is_cancelled_leaves_the_making_to_the_next() -> None:
    once: Once[int] = Once()
    begun = asyncio.Event()

    async def never() -> int:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def seven() -> int:
        return 7

    first = asyncio.create_task(once.get("x", never))
    await begun.wait()
    second = asyncio.create_task(once.get("x", seven))
    third = asyncio.create_task(once.get("x", seven))
    await asyncio.sleep(0)
    first.cancel()
    third.cancel()
    assert await second == 7
    assert await once.get("x", never) == 7
    assert third.cancelled() or third.cancelling()


def test_what_is_kept_has_an_end_and_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    kept: Kept[int] = Kept(2, age_s=60)
    kept.put("a", 1, ttl_s=10)
    kept.put("b", 2, ttl_s=1000)
    assert (kept.get("a"), kept.get("b")) == (1, 2)
    now = 111.0
    assert (kept.get("a"), kept.get("b")) == (None, 2)
    now = 161.0
    assert kept.get("b") is None
    for n, name in enumerate("cde"):
        kept.put(name, n, ttl_s=10)
    assert [kept.get(name) for name in "cde"] == [None, 1, 2]
