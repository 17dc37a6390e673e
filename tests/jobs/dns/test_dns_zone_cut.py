"""The way from the root to all servers of a name's zone."""

from __future__ import annotations

import pytest

from jobs.dns.sighting import Sighting
from jobs.dns.walk import TOP_AGE_S
from jobs.dns.zones import SUFFIX_SPOTS
from tests.jobs.dns.conftest import Here
from tests.jobs.dns.internet import Internet, Zone

TOKEN = "_token.shop.test"


def servers(zone: Zone) -> set[str]:
    return {f"{server.host} ({server.address})" for server in zone.servers}


def values(sighting: Sighting) -> set[tuple[str, ...]]:
    return {answer.values for answer in sighting.authorities.values()}


async def test_every_server_of_the_zone_is_asked_and_no_resolver(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", servers=3)
    shop.add(f"{TOKEN} 120 TXT token=1")
    sighting = await here().sight(TOKEN, "TXT", visible=False)
    assert (sighting.zone, set(sighting.authorities), values(sighting)) == (
        "shop.test",
        servers(shop),
        {("token=1",)},
    )
    assert {answer.ttl_s for answer in sighting.authorities.values()} == {120}
    assert (sighting.resolvers, sighting.authentic, sighting.bogus) == ({}, False, False)
    assert not any(resolver.asked for resolver in internet.resolvers)
    assert shop.asked[TOKEN, "TXT", "udp"] == 3


@pytest.mark.parametrize("name", ["shop.test", "_a.shop.test", "x.y.z.shop.test", "y.z.shop.test"])
async def test_a_name_belongs_to_the_zone_above_it(internet: Internet, here: Here, name: str) -> None:
    """Also several labels below, and where the labels between have no records of their own."""
    shop = await internet.zone("shop.test")
    shop.add("x.y.z.shop.test TXT deep")
    sighting = await here().sight(name, "TXT", visible=False)
    assert (sighting.zone, set(sighting.authorities)) == ("shop.test", servers(shop))


@pytest.mark.parametrize("asked_as_part_of", ["shop.test", "x.sub.shop.test"])
async def test_a_zone_within_the_domain_has_servers_of_its_own(
    internet: Internet, here: Here, asked_as_part_of: str
) -> None:
    await internet.zone("shop.test")
    sub = await internet.zone("sub.shop.test")
    sub.add("x.sub.shop.test TXT deep")
    async with here().check(asked_as_part_of) as check:
        sighting = await check.sight("x.sub.shop.test", "TXT", visible=False)
    assert (sighting.zone, set(sighting.authorities), values(sighting)) == (
        "sub.shop.test",
        servers(sub),
        {("deep",)},
    )


async def test_a_zone_that_its_parents_servers_serve_too_is_one(internet: Internet, here: Here) -> None:
    """Nobody ever refers to it, so its name servers are known from its own word only."""
    shop = await internet.zone("shop.test", servers=1)
    other = await internet.server("ns.elsewhere.example")
    sub = await internet.zone("sub.shop.test", on=[*shop.servers, other])
    internet.zones["example"].set(other.host, "A", other.address)
    sub.add("x.sub.shop.test TXT deep")
    sighting = await here().sight("x.sub.shop.test", "TXT", visible=False)
    assert (sighting.zone, set(sighting.authorities), values(sighting)) == (
        "sub.shop.test",
        servers(sub),
        {("deep",)},
    )
    assert (sighting.only_parent, sighting.only_zone) == ((), ())


async def test_servers_without_glue_are_looked_up(internet: Internet, here: Here) -> None:
    hoster = await internet.zone("hoster.example")
    guest = await internet.zone("guest.test", on=hoster.servers)
    guest.add("_a.guest.test TXT hello")
    sighting = await here().sight("_a.guest.test", "TXT", visible=False)
    assert (sighting.zone, set(sighting.authorities), values(sighting)) == (
        "guest.test",
        servers(hoster),
        {("hello",)},
    )


async def test_zones_whose_servers_are_named_in_each_other_end_the_search(internet: Internet, here: Here) -> None:
    one, other = await internet.zone("one.test"), await internet.zone("other.test")
    for zone in (one, other):
        for server in zone.servers:
            internet.zones["test"].remove(server.host, "A")
    internet.delegate("one.test", {"ns1.other.test": []})
    internet.delegate("other.test", {"ns1.one.test": []})
    resolver = here()
    for name in ("one.test", "other.test"):
        async with resolver.check(name) as check:
            sighting = await check.sight(name, "TXT", visible=False)
            assert {answer.reason for answer in sighting.authorities.values()} == {"address_unknown"}
            assert check.questions < 30
    assert not one.asked + other.asked


@pytest.mark.parametrize("asleep", ["parent", "zone"])
async def test_servers_that_only_one_side_knows_are_asked_and_told_of(
    internet: Internet, here: Here, asleep: str
) -> None:
    shop = await internet.zone("shop.test")
    new = await internet.server("ns9.shop.test")
    if asleep == "zone":
        internet.delegate("shop.test", {s.host: [s.address] for s in (*shop.servers, new)})
    else:
        for contents in shop.everywhere:
            contents.set("shop.test", "NS", *(f"{s.host}." for s in (*shop.servers, new)))
    sighting = await here().sight(TOKEN, "TXT", visible=False)
    added = f"{new.host} ({new.address})"
    assert sighting.authorities.keys() == servers(shop) | {added}
    assert sighting.name_servers == ("ns1.shop.test", "ns2.shop.test", "ns9.shop.test")
    assert sighting.authorities[added].reason == "refused"
    told = (("ns9.shop.test",), ()) if asleep == "zone" else ((), ("ns9.shop.test",))
    assert (sighting.only_parent, sighting.only_zone) == told


async def test_glue_and_the_zones_own_address_are_both_asked(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", servers=1)
    moved = await internet.server("old.shop.test")
    internet.delegate("shop.test", {"ns1.shop.test": [moved.address]})
    moved.zones["shop.test"] = shop.at(0)
    sighting = await here().sight(TOKEN, "TXT", visible=False)
    assert sighting.authorities.keys() == {
        f"ns1.shop.test ({moved.address})",
        f"ns1.shop.test ({shop.servers[0].address})",
    }


async def test_a_name_server_without_an_address_is_told_of(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", servers=1)
    for contents in shop.everywhere:
        contents.set("shop.test", "NS", "ns1.shop.test.", "gone.shop.test.", "typo.nowhere.example.")
    sighting = await here().sight("shop.test", "SOA", visible=False)
    reasons = {place: answer.reason for place, answer in sighting.authorities.items()}
    assert reasons == {
        **dict.fromkeys(servers(shop), ""),
        "gone.shop.test": "no_address",
        "typo.nowhere.example": "no_address",
    }


@pytest.mark.parametrize(("name", "zone"), [("nobody.test", "test"), ("shop.nowhere", ".")])
async def test_what_nobody_registered_does_not_exist(internet: Internet, here: Here, name: str, zone: str) -> None:
    sighting = await here().sight(name, "TXT", visible=False)
    assert (sighting.zone, sighting.name_servers) == (zone, ())
    assert {answer.outcome for answer in sighting.authorities.values()} == {"nxdomain"}


async def test_a_public_suffix_of_several_labels_is_not_its_owners_zone(internet: Internet, here: Here) -> None:
    """Here one whose parent's servers serve it too, and one with servers of its own that have no glue."""
    uk = await internet.zone("uk", servers=5)
    await internet.zone("co.uk", on=uk.servers)
    hoster = await internet.zone("hoster.example", servers=5)
    await internet.zone("github.io", on=hoster.servers)
    for name, zone in (("shop.co.uk", "co.uk"), ("shop.github.io", "github.io")):
        sighting = await here().sight(name, "TXT", visible=False)
        assert (sighting.zone, sighting.name_servers, len(sighting.authorities)) == (zone, (), SUFFIX_SPOTS)
        assert {answer.outcome for answer in sighting.authorities.values()} == {"nxdomain"}


async def test_a_machine_without_ipv6_finds_its_way(internet: Internet, here: Here, no_ipv6: None) -> None:
    """However many addresses it has no way to."""
    await internet.zone("shop.test")
    roots = (*(f"2001:db8::{n}" for n in range(50)), *(server.address for server in internet.root.servers))
    sighting = await here(roots=roots).sight(TOKEN, "TXT", visible=False)
    assert (sighting.zone, len(sighting.authorities)) == ("shop.test", 2)


async def test_what_a_registrar_changes_is_seen_by_the_next_check(internet: Internet, here: Here) -> None:
    """Only delegations of top-level domains are kept from one check to the next."""
    old = await internet.zone("shop.test", ttl=86400)
    old.add(f"{TOKEN} TXT old")
    resolver = here()
    assert values(await resolver.sight(TOKEN, "TXT", visible=False)) == {("old",)}
    internet.root.servers[0].forget()
    internet.root.servers[1].forget()
    hoster = await internet.zone("hoster.example")
    new = await internet.zone("shop.test", on=hoster.servers)
    new.add(f"{TOKEN} TXT new")
    internet.delegate("shop.test", {server.host: [] for server in hoster.servers})
    sighting = await resolver.sight(TOKEN, "TXT", visible=False)
    assert (set(sighting.authorities), values(sighting)) == (servers(hoster), {("new",)})
    assert not [name for name, _, _ in internet.root.asked if name.endswith(".test")]


async def test_addresses_of_other_peoples_servers_are_kept_for_minutes_and_of_ones_own_not_at_all(
    internet: Internet, here: Here
) -> None:
    hoster = await internet.zone("hoster.example", servers=1)
    guest = await internet.zone("guest.test", on=hoster.servers)
    resolver = here()
    await resolver.sight("guest.test", "TXT", visible=False)
    hoster.servers[0].forget()
    await resolver.sight("guest.test", "TXT", visible=False)
    assert not hoster.asked["ns1.hoster.example", "A", "udp"]
    async with resolver.check("hoster.example") as check:
        await check.sight("guest.test", "TXT", visible=False)
    assert guest.asked["ns1.hoster.example", "A", "udp"]


async def test_a_check_of_a_top_level_domain_believes_nothing_of_before(internet: Internet, here: Here) -> None:
    resolver = here()
    await resolver.sight("shop.test", "TXT", visible=False)
    internet.forget()
    for times in (1, 2):
        await resolver.sight("test", "TXT", visible=False)
        assert internet.root.asked["test", "SOA", "udp"] == times
    assert TOP_AGE_S <= 3600


async def test_one_silent_server_on_the_way_down_costs_one_try(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{TOKEN} TXT token=1")
    for zone in (internet.root, internet.zones["test"], shop):
        zone.servers[0].fault("silent", type="SOA")
    sighting = await here(timeout=0.3).sight(TOKEN, "TXT", visible=False)
    assert (sighting.zone, values(sighting)) == ("shop.test", {("token=1",)})


@pytest.mark.parametrize("where", [".", "test"])
async def test_nothing_is_known_where_the_way_down_is_barred(internet: Internet, here: Here, where: str) -> None:
    await internet.zone("shop.test")
    for server in internet.zones[where].servers:
        server.fault("servfail")
    sighting = await here().sight(TOKEN, "TXT", visible=False)
    named = "the root servers" if where == "." else "the servers of test"
    assert {place: answer.reason for place, answer in sighting.authorities.items()} == {named: "servfail"}
    assert (sighting.zone, sighting.name_servers) == (None, ())


async def test_a_zone_whose_servers_are_all_dead_is_still_named(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    shop.fault("silent")
    async with here(timeout=0.4).check("shop.test") as check:
        sighting = await check.sight(TOKEN, "TXT", visible=False)
    assert (sighting.zone, set(sighting.authorities)) == ("shop.test", servers(shop))
    assert {answer.reason for answer in sighting.authorities.values()} == {"timeout"}
