"""What others fell into: caches poisoned, errors taken for absence, ways to inner addresses, and ways without end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from jobs.dns.expectation import Expectation
from jobs.dns.resolver import Resolver
from tests.jobs.dns.internet import Internet, Zone
from tests.jobs.dns.internet_checks import CHALLENGE, RECORD, SHOP, VALUE, Checks
from tests.jobs.dns.internet_faults import DENIALS, FAULTS, Fault
from tests.jobs.dns.internet_zone import txt

pytestmark = pytest.mark.req("BJ-20")

HARMLESS: frozenset[Fault] = frozenset(
    {"slow", "forged_first", "truncated", "silent_udp", "formerr_edns", "extra_records", "case_lowered"}
)
"""With these a server still gives the right answer, sooner or later."""

NEED_TIME: frozenset[Fault] = frozenset(
    {
        "silent",
        "silent_udp",
        "silent_to_edns",
        "wrong_id",
        "wrong_question",
        "garbage",
        "tcp_silent",
        "no_question",
        "case_lowered",
    }
)


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


@pytest.fixture
async def checks(internet: Internet) -> Checks:
    return Checks(internet, await internet.zone(SHOP))


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - DENIALS))
async def test_1_no_fault_of_name_servers_is_taken_for_absence(checks: Checks, fault: Fault) -> None:
    """Whatever is wrong with all name servers of a good domain, it is a match or nothing is known."""
    checks.zone.add(RECORD)
    if fault in NEED_TIME:
        checks.settings = {"timeout": 0.15, "tries": 1}
    checks.zone.fault(fault)
    seen = await checks.see()
    assert seen.verdict in ("match", "indeterminate"), seen.text
    if fault in HARMLESS - NEED_TIME:
        assert seen.verdict == "match", seen.text


@pytest.mark.parametrize("fault", sorted(DENIALS))
async def test_1_nor_is_one_name_server_that_denies_it(checks: Checks, fault: Fault) -> None:
    checks.zone.add(RECORD)
    checks.zone.servers[0].fault(fault, name=CHALLENGE)
    seen = await checks.see()
    assert (seen.verdict, seen.state) == ("indeterminate", "servers_disagree")
    assert "ns1.shop.test lacks it" in seen.text


async def test_2_what_has_just_been_published_is_seen_by_the_next_check(checks: Checks) -> None:
    """By one resolver object for both: nothing that it knows of the record is kept."""
    resolver = Resolver(checks.internet.settings())
    for published in (False, True, False):
        checks.zone.set(CHALLENGE, "TXT", *([f'"token={VALUE}"'] if published else []))
        sighting = await resolver.sight(CHALLENGE, "TXT", visible=False)
        said = {answer.outcome for answer in sighting.authorities.values()}
        assert said == ({"answer"} if published else {"nxdomain"})


async def test_3_the_first_check_poisons_no_resolver(checks: Checks) -> None:
    seen = await checks.see(visible=False)
    assert seen.verdict == "absent"
    assert not any(resolver.log for resolver in checks.internet.resolvers)
    checks.zone.add(RECORD)
    assert (await checks.see()).state == "match"


async def test_3_nor_does_any_check_while_the_record_is_missing(checks: Checks) -> None:
    assert (await checks.see()).verdict == "absent"
    assert not any(asked.name == CHALLENGE for r in checks.internet.resolvers for asked in r.log)


async def test_4_a_wildcard_is_no_proof(checks: Checks) -> None:
    checks.zone.add('*.shop.test TXT "hello"')
    seen = await checks.see()
    assert (seen.verdict, seen.found) == ("mismatch", ("hello",))
    checks.zone.set("*.shop.test", "TXT", f'"token={VALUE}"')
    assert (await checks.see()).verdict == "match"


async def test_5_servers_that_mind_case_or_lose_it_are_understood(checks: Checks) -> None:
    checks.zone.add(RECORD)
    checks.zone.fault("case_lowered")
    seen = await checks.see(Expectation(type="TOKEN", value=VALUE.upper()))
    assert seen.verdict == "match"
    asked = {record.query.question[0].name.to_text() for server in checks.zone.servers for record in server.log}
    assert any(name != name.lower() for name in asked)


async def test_6_name_servers_that_are_others_than_before_are_seen(checks: Checks, internet: Internet) -> None:
    checks.zone.add(RECORD)
    before = (await checks.look()).name_servers
    hoster = await internet.zone("hoster.example")
    moved = await internet.zone(SHOP, on=hoster.servers)
    moved.add(RECORD)
    look = await Checks(internet, moved).look()
    assert look.verdict == "match"
    assert before == ("ns1.shop.test", "ns2.shop.test")
    assert look.name_servers == ("ns1.hoster.example", "ns2.hoster.example")


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["192.168.1.1", "0.0.0.0"],
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["fd00::1"],
    ],
)
async def test_7_inner_addresses_are_never_asked(checks: Checks, internet: Internet, addresses: Sequence[str]) -> None:
    """Glue leads into our own network; 127.53.0.0/16 alone is allowed here."""
    trap = await internet.server("trap.example", "127.0.0.1") if "127.0.0.1" in addresses else None
    internet.delegate(SHOP, {f"ns1.{SHOP}": addresses})
    checks.settings = {"allow_addresses": ("127.53.0.0/16",), "resolvers": (), "timeout": 0.2, "tries": 1}
    seen = await checks.see(visible=False)
    assert seen.verdict == "indeterminate"
    assert "must not be asked" in seen.text
    assert trap is None or not trap.log


async def test_7_a_good_address_is_asked_though_a_bad_one_stands_beside_it(checks: Checks, internet: Internet) -> None:
    checks.zone.add(RECORD)
    good = checks.zone.servers[0].address
    internet.delegate(SHOP, {"ns1.shop.test": [good], "ns2.shop.test": ["10.0.0.1"]})
    checks.zone.set("ns2.shop.test", "A", "10.0.0.1")
    seen = await checks.see(visible=False)
    assert set(seen.servers.values()) == {"match", "blocked"}


async def test_8_no_server_is_asked_more_often_than_allowed(internet: Internet) -> None:
    """Many domains of one hoster, all at a time."""
    hoster = await internet.zone("hoster.example", servers=1)
    (server,) = hoster.servers
    shops = [await internet.zone(f"s{n}.test", on=[server]) for n in range(12)]
    resolver = Resolver(internet.settings(authority_rate=20))
    async with asyncio.TaskGroup() as group:
        for shop in shops:
            group.create_task(resolver.sight(shop.origin, "TXT", visible=False))
    times = sorted(asked.at for asked in server.log if asked.by == "us")
    assert len(times) > 20
    assert all(later - sooner > 0.5 for sooner, later in zip(times, times[20:], strict=False))


async def test_8_a_zone_built_to_make_us_ask_on_and_on_is_left_at_its_bound(internet: Internet) -> None:
    """Each name server's name leads to a zone with ten more, none with an address."""
    for n in range(30):
        internet.delegate(f"z{n}.test", {f"ns{m}.z{(n + m + 1) % 30}.test": [] for m in range(10)})
    resolver = Resolver(internet.settings(check_questions=100))
    sighting = await resolver.sight("z0.test", "TXT", visible=False)
    assert {answer.outcome for answer in sighting.authorities.values()} == {"error"}
    assert internet.asked.total() <= 100


@pytest.mark.parametrize("length", [600, 1200, 3000])
async def test_9_what_does_not_fit_comes_over_tcp(checks: Checks, length: int) -> None:
    checks.zone.set(SHOP, "TXT", txt("x" * length), *(txt(f"filler {n} " * 20) for n in range(4)))
    seen = await checks.see(Expectation(type="TXT", value="x" * length))
    assert seen.verdict == "match"
    over = {transport for _, rdtype, transport in checks.zone.asked if rdtype == "TXT"}
    assert over == {"udp", "tcp"}
    payloads = {record.query.payload for server in checks.zone.servers for record in server.log if record.by == "us"}
    assert payloads == {1232}


async def test_9_where_tcp_is_shut_it_is_no_answer(checks: Checks) -> None:
    checks.zone.set(CHALLENGE, "TXT", txt("x" * 2000), f'"token={VALUE}"')
    checks.zone.fault("cut_off")
    seen = await checks.see()
    assert seen.verdict == "indeterminate"


async def test_delegations_in_a_circle_and_aliases_in_a_circle_end(checks: Checks, internet: Internet) -> None:
    internet.delegate("left.test", {"ns.right.test": []})
    internet.delegate("right.test", {"ns.left.test": []})
    loop = Checks(internet, Zone("left.test", [], None))
    assert (await loop.see(visible=False)).verdict == "indeterminate"
    checks.zone.add("a.shop.test CNAME b.shop.test.", "b.shop.test CNAME a.shop.test.")
    assert (await checks.see(Expectation(type="TXT", value="x", name="a"))).verdict in ("mismatch", "indeterminate")
    assert internet.asked.total() < 100


async def test_a_lame_delegation_is_named_and_the_others_are_believed(checks: Checks, internet: Internet) -> None:
    checks.zone.add(RECORD)
    stranger = await internet.server("ns.stranger.test")
    hosts = {server.host: [server.address] for server in checks.zone.servers}
    internet.delegate(SHOP, {**hosts, stranger.host: [stranger.address]})
    seen = await checks.see()
    assert seen.verdict == "match", seen.text
    assert Counter(seen.servers.values())["match"] >= 2
    assert any(server.startswith("ns.stranger.test") and word != "match" for server, word in seen.servers.items())


async def test_a_forged_reply_is_not_believed(checks: Checks) -> None:
    checks.zone.add(RECORD)
    checks.zone.fault("forged_first")
    assert (await checks.see()).verdict == "match"


async def test_records_planted_beside_an_answer_are_not_believed(checks: Checks, internet: Internet) -> None:
    victim = await internet.zone("victim.test")
    checks.zone.add(RECORD)
    checks.zone.fault("extra_records")
    assert (await checks.see()).verdict == "match"
    seen = await Checks(internet, victim).see(Expectation(type="TXT", value="planted"))
    assert seen.verdict == "absent"


async def test_name_servers_far_away_are_waited_for(checks: Checks) -> None:
    checks.zone.add(RECORD)
    for server in checks.zone.servers:
        server.slow(0.15)
    assert (await checks.see(visible=False)).verdict == "match"


async def test_what_one_tenant_publishes_does_not_make_anothers_spf_wrong(checks: Checks, internet: Internet) -> None:
    """The tree of SPF is asked of those who know, too: resolvers that deny everything change nothing."""
    us = await internet.zone("us.example")
    us.set("_spf.us.example", "TXT", '"v=spf1 ip4:192.0.2.0/24 -all"')
    checks.zone.set(SHOP, "TXT", '"v=spf1 include:_spf.us.example -all"')
    for resolver in internet.resolvers:
        resolver.fault("nxdomain")
    seen = await checks.see(Expectation(type="SPF", value="include:_spf.us.example"))
    assert seen.verdict in ("match", "indeterminate"), seen.text
