"""The lab itself: its servers, resolvers and faults are what the tests that stand on them take them for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import pytest

from tests.jobs.dns.internet import Internet
from tests.jobs.dns.internet_faults import FAULTS
from tests.jobs.dns.internet_server import Server
from tests.jobs.dns.internet_signing import Break
from tests.jobs.dns.internet_zone import txt

TOKEN = "_token.shop.test"


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


async def ask(
    server: Server, name: str, rdtype: str = "TXT", *, flags: int = dns.flags.RD, tcp: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=1232, flags=flags | dns.flags.AD)
    way = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await way(query, server.address, 20, server.port)


def values(reply: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]


async def test_every_resolver_finds_what_is_published_from_the_root_down(internet: Internet) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{TOKEN} TXT hello")
    for resolver in internet.resolvers:
        assert values(await ask(resolver, TOKEN)) == ['"hello"']
    assert {asked.by for asked in internet.root.servers[0].log} <= {r.address for r in internet.resolvers}
    assert not internet.root.servers[0].asked


async def test_servers_of_one_zone_may_know_different_things(internet: Internet) -> None:
    shop = await internet.zone("shop.test", servers=3)
    shop.add(f"{TOKEN} TXT hello")
    shop.at(1).remove(TOKEN, "TXT")
    shop.at(2).set(TOKEN, "TXT", '"other"')
    said = [values(await ask(server, TOKEN)) for server in shop.servers]
    assert said == [['"hello"'], [], ['"other"']]
    assert [(await ask(server, TOKEN)).rcode() for server in shop.servers] == [0, dns.rcode.NXDOMAIN, 0]
    assert [(await ask(server, TOKEN)).flags & dns.flags.AA for server in shop.servers] == [dns.flags.AA] * 3


async def test_a_parent_refers_to_the_child_with_glue_and_to_strangers_without(internet: Internet) -> None:
    hoster = await internet.zone("hoster.example")
    await internet.zone("shop.test")
    guest = await internet.zone("guest.test", on=hoster.servers)
    guest.add("guest.test A 192.0.2.1")
    tld = internet.zones["test"].servers[0]
    own, strange = await ask(tld, "shop.test", "NS"), await ask(tld, "guest.test", "A")
    assert not (own.flags | strange.flags) & dns.flags.AA
    assert [rrset.name.to_text() for rrset in own.additional] == ["ns1.shop.test.", "ns2.shop.test."]
    assert (strange.answer, strange.additional) == ([], [])
    assert values(await ask(internet.resolvers[0], "guest.test", "A")) == ["192.0.2.1"]


async def test_a_resolver_keeps_no_such_name_for_as_long_as_the_zone_says(internet: Internet) -> None:
    shop = await internet.zone("shop.test", negative_ttl=60)
    first = internet.resolvers[0]
    assert (await ask(first, TOKEN)).rcode() == dns.rcode.NXDOMAIN
    shop.add(f"{TOKEN} 120 TXT hello")
    internet.clock.advance(59)
    denied = await ask(first, TOKEN)
    assert denied.rcode() == dns.rcode.NXDOMAIN
    assert denied.authority[0].ttl == 1
    internet.clock.advance(1)
    assert values(await ask(first, TOKEN)) == ['"hello"']
    shop.remove(TOKEN, "TXT")
    internet.clock.advance(119)
    assert (await ask(first, TOKEN)).answer[0].ttl == 1
    internet.clock.advance(1)
    assert (await ask(first, TOKEN)).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("name", [TOKEN, "missing.shop.test", "alias.shop.test", "any.wild.shop.test", "shop.test"])
async def test_what_is_signed_is_vouched_for(internet: Internet, name: str) -> None:
    shop = await internet.zone("shop.test", signed=True)
    shop.add(f"{TOKEN} TXT hello", f"alias.shop.test CNAME {TOKEN}.", "*.wild.shop.test TXT wild")
    replies = [await ask(resolver, name) for resolver in internet.resolvers]
    assert [bool(reply.flags & dns.flags.AD) for reply in replies] == [False, False, True]
    assert {reply.rcode() for reply in replies} == {dns.rcode.NXDOMAIN if name.startswith("missing") else 0}


async def test_what_is_not_signed_is_not_vouched_for_and_answered(internet: Internet) -> None:
    for origin in ("shop.test", "shop.example"):
        (await internet.zone(origin)).add(f"{origin} TXT hello")
        reply = await ask(internet.resolvers[2], origin)
        assert (values(reply), reply.flags & dns.flags.AD) == (['"hello"'], 0)


@pytest.mark.parametrize("broken", ["expired", "forged", "other_key", "unsigned"])
async def test_what_is_signed_badly_is_refused_unless_asked_for_unchecked(internet: Internet, broken: Break) -> None:
    shop = await internet.zone("shop.test", broken=broken)
    shop.add(f"{TOKEN} TXT hello")
    plain, _, validating = internet.resolvers
    assert values(await ask(plain, TOKEN)) == ['"hello"']
    assert (await ask(validating, TOKEN)).rcode() == dns.rcode.SERVFAIL
    assert (await ask(validating, "missing.shop.test")).rcode() == dns.rcode.SERVFAIL
    assert values(await ask(validating, TOKEN, flags=dns.flags.RD | dns.flags.CD)) == ['"hello"']
    internet.resign(shop, None)
    internet.flush()
    assert (await ask(validating, TOKEN)).flags & dns.flags.AD


async def test_a_long_answer_comes_over_tcp(internet: Internet) -> None:
    shop = await internet.zone("shop.test")
    shop.set(TOKEN, "TXT", txt("x" * 1500))
    cut = await ask(shop.servers[0], TOKEN)
    assert (bool(cut.flags & dns.flags.TC), cut.answer) == (True, [])
    assert len(values(await ask(shop.servers[0], TOKEN, tcp=True))[0]) > 1500
    assert shop.servers[0].asked == {(TOKEN, "TXT", "udp"): 1, (TOKEN, "TXT", "tcp"): 1}
    assert values(await ask(internet.resolvers[0], TOKEN, tcp=True))


@pytest.mark.parametrize("fault", ["servfail", "silent", "refused", "lame", "wrong_id", "not_authoritative", "cut_off"])
async def test_a_resolver_asks_the_next_server_when_one_fails(internet: Internet, fault: str) -> None:
    shop = await internet.zone("shop.test")
    shop.add(f"{TOKEN} TXT hello")
    shop.servers[0].fault(fault)  # type: ignore[arg-type] # one of them
    assert values(await ask(internet.resolvers[0], TOKEN)) == ['"hello"']
    shop.servers[1].fault(fault)  # type: ignore[arg-type] # one of them
    internet.flush()
    assert (await ask(internet.resolvers[0], TOKEN)).rcode() == dns.rcode.SERVFAIL


async def test_loops_of_aliases_and_of_delegations_end(internet: Internet) -> None:
    shop = await internet.zone("shop.test")
    shop.add("a.shop.test CNAME b.shop.test.", "b.shop.test CNAME a.shop.test.")
    internet.delegate("left.test", {"ns.right.test": []})
    internet.delegate("right.test", {"ns.left.test": []})
    for name in ("a.shop.test", "left.test"):
        assert (await ask(internet.resolvers[0], name)).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_is_a_reply_or_none_and_heals(internet: Internet, fault: str) -> None:
    shop = await internet.zone("shop.test", servers=1)
    shop.add(f"{TOKEN} TXT hello")
    (server,) = shop.servers
    server.fault(fault, name=TOKEN)  # type: ignore[arg-type] # one of them
    query = dns.message.make_query(TOKEN, "TXT", use_edns=0).to_wire()
    for transport in ("udp", "tcp"):
        found, _ = server.answers(query, transport)
        assert len(found) == (2 if fault == "forged_first" else len(found) and 1)
    assert values(await ask(server, "shop.test", "SOA"))
    server.heal()
    assert values(await ask(server, TOKEN)) == ['"hello"']


async def test_a_fault_may_concern_few_questions(internet: Internet) -> None:
    shop = await internet.zone("shop.test", servers=1)
    (server,) = shop.servers
    server.fault("servfail", type="TXT", times=1)
    codes = [(await ask(server, "shop.test", rdtype)).rcode() for rdtype in ("A", "TXT", "TXT")]
    assert codes == [0, dns.rcode.SERVFAIL, 0]


async def test_a_stopped_server_is_a_closed_port(internet: Internet) -> None:
    shop = await internet.zone("shop.test", servers=1)
    await shop.servers[0].close()
    query = dns.message.make_query("shop.test", "SOA")
    with pytest.raises((OSError, dns.exception.Timeout)):
        await dns.asyncquery.tcp(query, shop.servers[0].address, 20, internet.port)
