"""What resolvers say: by quorum, and with DNSSEC's word."""

from __future__ import annotations

import pytest

from jobs.dns.answer import Answer, Outcome, failed
from jobs.dns.recursive import agreed
from jobs.dns.sighting import Sighting
from tests.jobs.dns.conftest import Here, living_in
from tests.jobs.dns.internet import Internet
from tests.jobs.dns.internet_signing import Break

NAME = "_token.shop.test"


def said(sighting: Sighting) -> list[str]:
    return [answer.said for answer in sighting.resolvers.values()]


async def test_every_resolver_is_asked_and_the_validating_one_vouches(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", signed=True)
    shop.add(f"{NAME} TXT token=1")
    sighting = await here().sight(NAME, "TXT", visible=True)
    assert list(sighting.resolvers) == [resolver.place for resolver in internet.resolvers]
    assert {answer.values for answer in sighting.resolvers.values()} == {("token=1",)}
    assert (sighting.quorum, sighting.authentic, sighting.bogus) == (2, True, False)
    assert [answer.authentic for answer in sighting.resolvers.values()] == [False, False, True]


async def test_an_unsigned_zone_has_nobody_who_vouches(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} TXT token=1")
    sighting = await here().sight(NAME, "TXT", visible=True)
    assert (said(sighting), sighting.authentic) == (["answer"] * 3, False)


async def test_only_a_resolver_that_is_named_validating_is_believed(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", signed=True)
    shop.add(f"{NAME} TXT token=1")
    trusted = here(validating=(internet.resolvers[0].place,))
    assert not (await trusted.sight(NAME, "TXT", visible=True)).authentic
    trusted = here(validating=(internet.resolvers[2].place,))
    assert (await trusted.sight(NAME, "TXT", visible=True)).authentic


@pytest.mark.parametrize("broken", ["expired", "forged", "other_key", "unsigned"])
async def test_broken_signatures_are_told_from_a_broken_resolver(internet: Internet, here: Here, broken: Break) -> None:
    shop = await internet.zone("shop.test", broken=broken)
    shop.add(f"{NAME} TXT token=1")
    sighting = await here().sight(NAME, "TXT", visible=True)
    assert (said(sighting), sighting.bogus, sighting.authentic) == (["answer", "answer", "bogus"], True, False)
    assert {answer.values for answer in sighting.authorities.values()} == {("token=1",)}


@pytest.mark.parametrize("times", [1, 2])
async def test_a_hiccup_of_a_resolver_is_no_broken_dnssec(internet: Internet, here: Here, times: int) -> None:
    """It fails once and answers when asked without validation; it must fail again with it to have said anything.
    Where it fails that question too, it has a trouble of its own."""
    shop = await internet.zone("shop.test", signed=True)
    shop.add(f"{NAME} TXT token=1")
    internet.resolvers[2].fault("servfail", times=times)
    sighting = await here().sight(NAME, "TXT", visible=True)
    assert said(sighting) == ["answer", "answer", "answer" if times == 1 else "servfail"]
    assert not sighting.bogus


async def test_dnssec_is_asked_for(internet: Internet, here: Here) -> None:
    await here().sight(NAME, "TXT", visible=True)
    (asked,) = [one.query for one in internet.resolvers[0].log if one.by == "us"]
    assert asked.ednsflags & 0x8000
    assert asked.flags & 0x0120 == 0x0120  # RD, AD
    assert asked.payload == 1232


@pytest.mark.parametrize(("resolvers", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 2)])
async def test_with_fewer_resolvers_than_the_quorum_all_must_agree(resolvers: int, quorum: int) -> None:
    async with Internet(resolvers=resolvers) as internet:
        sighting = await living_in(internet).sight(NAME, "TXT", visible=True)
        assert (len(sighting.resolvers), sighting.quorum) == (resolvers, quorum)


async def test_one_resolver_that_fails_or_lies_is_outvoted(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} TXT token=1")
    for fault in ("servfail", "nxdomain", "refused"):
        internet.resolvers[0].heal()
        internet.resolvers[0].fault(fault)
        answer = await here().query(NAME, "TXT")
        assert (answer.values, len(answer.servers)) == (("token=1",), 3)


async def test_two_that_fail_leave_nothing_known(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} TXT token=1")
    internet.resolvers[0].fault("servfail")
    internet.resolvers[1].fault("refused")
    answer = await here().query(NAME, "TXT")
    assert (answer.outcome, answer.reason) == ("error", "servfail")
    assert list(answer.servers.values()) == ["servfail", "refused", "answer"]


def an(outcome: Outcome, *values: str) -> Answer:
    return Answer(outcome=outcome, values=values)


@pytest.mark.parametrize(
    ("answers", "rdtype", "found"),
    [
        ([an("answer", "a"), an("answer", "a"), an("answer", "b")], "TXT", an("answer", "a")),
        ([an("answer", "a", "b"), an("answer", "b", "a"), failed("timeout")], "TXT", an("answer", "a", "b")),
        ([an("answer", "a"), an("answer", "b"), an("nodata")], "TXT", failed("disagree")),
        ([an("answer", "a"), an("answer", "a"), an("nodata"), an("nodata")], "TXT", failed("disagree")),
        ([an("nxdomain"), an("nodata"), an("answer", "a")], "TXT", an("nodata")),
        ([an("answer", "1"), an("answer", "2"), an("answer", "3")], "A", an("answer", "1", "2", "3")),
        ([an("answer", "1"), an("answer", "2"), an("answer", "3")], "TXT", failed("disagree")),
        ([an("answer", "a"), failed("timeout"), failed("bogus")], "TXT", failed("bogus")),
        ([failed("timeout"), failed("servfail"), failed("timeout")], "TXT", failed("timeout")),
    ],
)
def test_a_quorum_is_the_same_word_of_two(answers: list[Answer], rdtype: str, found: Answer) -> None:
    told = agreed({f"192.0.2.{n}": answer for n, answer in enumerate(answers)}, rdtype, 2)
    assert (told.outcome, told.values, told.reason) == (found.outcome, found.values, found.reason)
    assert list(told.servers.values()) == [answer.said for answer in answers]
