"""Where nobody can be reached one check finds that out, and not each for itself."""

from __future__ import annotations

import asyncio

import dns.message
import pytest

from jobs.dns.answer import failed
from jobs.dns.shut import FIRST_S, LONGEST_S, Shut
from tests.jobs.dns.conftest import Here
from tests.jobs.dns.internet import Internet

pytestmark = pytest.mark.req("BJ-20")

NAME = "_token.shop.test"


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_one_tries_again_when_the_time_is_over_and_less_often_each_time() -> None:
    clock = Clock()
    shut = Shut(clock)
    assert shut.failure(".") is None
    for _ in range(3):
        shut.found(".", failed("timeout"))  # three that were under way
    waits: list[float] = []
    while len(waits) < 6:
        began_s = clock.now_s
        assert shut.failure(".") is not None
        while (failure := shut.failure(".")) is not None:
            assert failure.reason == "timeout"
            clock.now_s += 1
        waits.append(clock.now_s - began_s)
        assert shut.failure(".") is not None, "one tries, and no herd"
        shut.found(".", failed("timeout"))
    assert waits == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S, LONGEST_S, LONGEST_S]
    shut.open(".")
    assert shut.failure(".") is None


def test_who_tries_and_never_comes_back_leaves_it_to_the_next() -> None:
    clock = Clock()
    shut = Shut(clock)
    shut.found("test", failed("no_route"))
    assert shut.failure(".") is None
    clock.now_s += FIRST_S
    assert shut.failure("test") is None
    assert shut.failure("test") is not None
    clock.now_s += FIRST_S
    assert shut.failure("test") is None


@pytest.mark.parametrize("reason", ["servfail", "refused", "lame", "budget", "malformed"])
def test_who_answers_is_there_whatever_he_says(reason: str) -> None:
    shut = Shut()
    shut.found(".", failed("timeout"))
    shut.found(".", failed(reason))
    assert shut.failure(".") is None


@pytest.mark.parametrize("where", [".", "test"])
async def test_the_next_checks_need_not_wait_and_take_the_resolvers_word(
    internet: Internet, here: Here, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} TXT token=1")
    servers = internet.zones[where].servers
    for server in servers:
        server.fault("silent", by="us")
    for recursive in internet.resolvers:
        recursive.answers(dns.message.make_query(NAME, "TXT").to_wire(), "udp", "a test")  # fills its cache
    resolver = here(timeout=0.5, tries=1)
    monkeypatch.setattr(resolver._walk, "_shut", Shut(clock := Clock()))
    first = await resolver.sight(NAME, "TXT", visible=True)
    assert {answer.reason for answer in first.authorities.values()} == {"timeout"}
    assert any(server.asked for server in servers)
    internet.forget()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(resolver.sight(NAME, "TXT", visible=True)) for _ in range(5)]
    for task in tasks:
        assert {answer.reason for answer in task.result().authorities.values()} == {"timeout"}
        assert {answer.values for answer in task.result().resolvers.values()} == {("token=1",)}
    assert not any(server.asked for server in servers)
    internet.heal()
    clock.now_s += FIRST_S
    seen = await resolver.sight(NAME, "TXT", visible=True)
    assert {answer.values for answer in seen.authorities.values()} == {("token=1",)}
