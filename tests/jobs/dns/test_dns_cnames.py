"""CNAMEs are followed to their end, by whoever is in charge there."""

from __future__ import annotations

import pytest

from jobs.dns.check import MAX_LINKS
from jobs.dns.recursive import MAX_CHAIN
from tests.jobs.dns.conftest import Here
from tests.jobs.dns.internet import Internet, Zone
from tests.jobs.dns.internet_zone import SignedContents

NAME = "k1._domainkey.shop.test"


def places(zone: Zone) -> list[str]:
    return [f"{server.host} ({server.address})" for server in zone.servers]


async def test_a_chain_inside_the_zone_is_each_servers_own(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} 60 CNAME a.shop.test.", "a.shop.test 30 CNAME b.shop.test.", "b.shop.test 300 TXT key")
    shop.at(1).set("b.shop.test", "TXT", "old")
    sighting = await here().sight(NAME, "TXT", visible=False)
    assert [answer.values for answer in sighting.authorities.values()] == [("key",), ("old",)]
    assert {answer.chain for answer in sighting.authorities.values()} == {("a.shop.test", "b.shop.test")}
    assert {answer.ttl_s for answer in sighting.authorities.values()} == {30}


async def test_a_chain_into_another_zone_is_followed_to_that_zones_servers(internet: Internet, here: Here) -> None:
    shop, hoster = await internet.zone("shop.test"), await internet.zone("hoster.example")
    shop.add(f"{NAME} 60 CNAME shop.keys.hoster.example.")
    hoster.add("shop.keys.hoster.example 20 TXT key")
    sighting = await here().sight(NAME, "TXT", visible=False)
    assert sorted(sighting.authorities) == sorted(places(shop) + places(hoster))
    assert {(a.values, a.chain, a.ttl_s, a.dangling) for a in sighting.authorities.values()} == {
        (("key",), ("shop.keys.hoster.example",), 20, False)
    }
    assert sighting.zone == "shop.test"


async def test_the_server_that_lacks_the_target_is_named(internet: Internet, here: Here) -> None:
    shop, hoster = await internet.zone("shop.test"), await internet.zone("hoster.example", servers=3)
    shop.add(f"{NAME} CNAME shop.keys.hoster.example.")
    hoster.add("shop.keys.hoster.example TXT key")
    hoster.at(1).remove("shop.keys.hoster.example", "TXT")
    hoster.servers[2].fault("servfail")
    said = (await here().sight(NAME, "TXT", visible=False)).authorities
    assert [said[place].said for place in places(shop)] == ["answer", "answer"]
    assert [said[place].said for place in places(hoster)] == ["answer", "nxdomain", "servfail"]


async def test_a_server_with_a_chain_of_its_own_is_followed_there(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    old, new = await internet.zone("old.example"), await internet.zone("new.example")
    shop.add(f"{NAME} CNAME k.new.example.")
    shop.at(1).set(NAME, "CNAME", "k.old.example.")
    old.add("k.old.example TXT old")
    new.add("k.new.example TXT new")
    said = (await here().sight(NAME, "TXT", visible=False)).authorities
    assert [said[place].values for place in places(shop)] == [("new",), ("old",)]
    assert {said[place].values for place in places(old)} == {("old",)}
    assert {said[place].values for place in places(new)} == {("new",)}


async def test_what_a_server_says_of_somebody_elses_zone_is_hearsay(internet: Internet, here: Here) -> None:
    """Its owner could else prove with his own server what another domain publishes."""
    shop = await internet.zone("shop.test", servers=1)
    victim = await internet.zone("victim.example")
    shop.add(f"{NAME} CNAME t.victim.example.")
    planted = SignedContents("victim.example", ttl=300, negative_ttl=60, signing=None)
    planted.add("t.victim.example TXT planted")
    shop.servers[0].zones["victim.example"] = planted
    said = (await here().sight(NAME, "TXT", visible=False)).authorities
    assert sorted(said) == sorted(places(shop) + places(victim))
    assert {answer.outcome for answer in said.values()} == {"nxdomain"}


async def test_a_target_below_a_cut_of_the_same_zone_is_asked_there(internet: Internet, here: Here) -> None:
    shop, sub = await internet.zone("shop.test"), await internet.zone("sub.shop.test")
    shop.add(f"{NAME} CNAME x.sub.shop.test.")
    sub.add("x.sub.shop.test TXT key")
    async with here().check("shop.test") as check:
        said = (await check.sight(NAME, "TXT", visible=False)).authorities
    assert sorted(said) == sorted(places(shop) + places(sub))
    assert {answer.values for answer in said.values()} == {("key",)}


async def test_what_a_record_leads_to_is_asked_of_one_server_elsewhere(internet: Internet, here: Here) -> None:
    shop, hoster = await internet.zone("shop.test"), await internet.zone("hoster.example", servers=3)
    shop.add("shop.test TXT v=spf1", "in.shop.test CNAME out.hoster.example.", "lost.shop.test CNAME in.shop.test.")
    shop.at(1).remove("shop.test", "TXT")
    hoster.add("out.hoster.example TXT key")
    hoster.servers[0].fault("servfail")
    hoster.servers[1].fault("refused")
    async with here().check("shop.test") as check:
        for name in ("out.hoster.example", "in.shop.test", "lost.shop.test"):
            assert (await check.published(name, "TXT")).values == ("key",)
        assert (await check.published("lost.shop.test", "TXT")).chain == ("in.shop.test", "out.hoster.example")
        assert (await check.published("shop.test", "TXT")).values == ("v=spf1",)
        assert (await check.published("shop.test", "MX")).outcome == "nodata"
        assert (await check.published("gone.hoster.example", "TXT")).outcome == "error", (
            "two of its servers say nothing"
        )
    assert hoster.servers[2].asked["out.hoster.example", "TXT", "udp"] == 1
    for server in hoster.servers:
        server.heal()
    async with here().check("shop.test") as check:
        assert (await check.published("gone.hoster.example", "TXT")).outcome == "nxdomain"
    assert not any(resolver.asked for resolver in internet.resolvers)


async def test_what_leads_in_a_circle_is_not_published(internet: Internet, here: Here) -> None:
    one, other = await internet.zone("one.test"), await internet.zone("other.test")
    one.add("a.one.test CNAME b.other.test.")
    other.add("b.other.test CNAME a.one.test.")
    async with here().check("one.test") as check:
        answer = await check.published("a.one.test", "TXT")
    assert (answer.reason, answer.chain) == ("cname_loop", ("b.other.test", "a.one.test"))


async def test_a_cname_asked_for_is_not_followed(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} CNAME shop.keys.hoster.example.")
    said = (await here().sight(NAME, "CNAME", visible=False)).authorities
    assert {(answer.values, answer.chain) for answer in said.values()} == {(("shop.keys.hoster.example",), ())}


@pytest.mark.parametrize("links", [1, 2, 5])
async def test_a_circle_through_several_zones_ends(internet: Internet, here: Here, links: int) -> None:
    names = [f"{n}.zone{n}.test" for n in range(links)]
    for n, name in enumerate(names):
        zone = await internet.zone(f"zone{n}.test", servers=1)
        zone.add(f"{name} CNAME {names[(n + 1) % links]}.")
    async with here().check(names[0]) as check:
        said = (await check.sight(names[0], "TXT", visible=False)).authorities
        assert {answer.reason for answer in said.values()} == {"cname_loop"}
        assert {place.partition(" ")[0] for place in said} == {f"ns1.zone{n}.test" for n in range(links)}
        assert check.questions < 20 * links


async def test_an_endless_chain_ends(internet: Internet, here: Here) -> None:
    left, right = await internet.zone("left.test", servers=1), await internet.zone("right.test", servers=1)
    for n in range(0, 100, 2):
        left.add(f"n{n}.left.test CNAME n{n + 1}.right.test.")
        right.add(f"n{n + 1}.right.test CNAME n{n + 2}.left.test.")
    async with here().check("left.test") as check:
        said = (await check.sight("n0.left.test", "TXT", visible=False)).authorities
        assert {answer.reason for answer in said.values()} == {"cname_loop"}
        assert check.questions < 4 * MAX_CHAIN + 20


async def test_servers_that_all_lead_elsewhere_are_not_followed_for_ever(internet: Internet, here: Here) -> None:
    """Two servers, each with a chain of its own at every link: two to the power of sixteen ways."""
    zone = await internet.zone("maze.test")
    out = await internet.zone("maze.example", on=zone.servers)
    for n in range(20):
        for server, letter in enumerate("ab"):
            for contents, origin, other in ((zone, "test", "example"), (out, "example", "test")):
                for label in (f"a{n}", f"b{n}"):
                    contents.at(server).add(f"{label}.maze.{origin} CNAME {letter}{n + 1}.maze.{other}.")
    async with here().check("maze.test") as check:
        said = (await check.sight("a0.maze.test", "TXT", visible=False)).authorities
        assert {answer.outcome for answer in said.values()} == {"error"}
        assert check.questions < 10 * MAX_LINKS
