"""What authoritative servers do wrong is an error with its reason, and never an absence."""

from __future__ import annotations

import pytest

from jobs.dns.answer import Answer
from tests.jobs.dns.conftest import Here
from tests.jobs.dns.internet import Internet, Zone
from tests.jobs.dns.internet_faults import Fault

NAME = "_token.shop.test"


async def sight_one(
    internet: Internet, here: Here, fault: Fault | None, **settings: float
) -> tuple[Answer, Answer, Zone]:
    """What the bad and the good server of a zone are told to have said."""
    shop = await internet.zone("shop.test")
    shop.add(f"{NAME} TXT token=1")
    if fault:
        shop.servers[0].fault(fault)
    sighting = await here(**settings).sight(NAME, "TXT", visible=False)
    bad, good = (sighting.authorities[f"{server.host} ({server.address})"] for server in shop.servers)
    return bad, good, shop


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("servfail", "servfail"),
        ("refused", "refused"),
        ("notimp", "notimp"),
        ("formerr", "formerr"),
        ("lame", "lame"),
        ("referral_to_itself", "lame"),
        ("not_authoritative", "lame"),
        ("answer_and_nxdomain", "malformed"),
        ("cut_off", "unreachable"),
        ("cname_to_itself", "cname_loop"),
        ("cname_circle", "cname_loop"),
    ],
)
async def test_a_server_that_speaks_nonsense_has_said_nothing(
    internet: Internet, here: Here, fault: Fault, reason: str
) -> None:
    bad, good, _ = await sight_one(internet, here, fault)
    assert (bad.outcome, bad.reason, bad.values) == ("error", reason, ())
    assert good.values == ("token=1",)


async def test_a_server_that_does_not_answer_is_asked_three_times(internet: Internet, here: Here) -> None:
    """All of them at a time, so that one costs as much as six."""
    faults: dict[Fault, str] = {
        "silent": "timeout",
        "tcp_silent": "timeout",
        "wrong_id": "malformed",
        "wrong_question": "malformed",
        "no_question": "malformed",
        "garbage": "malformed",
    }
    shop = await internet.zone("shop.test", servers=len(faults))
    shop.add(f"{NAME} TXT token=1")
    for server, fault in zip(shop.servers, faults, strict=True):
        server.fault(fault, name=NAME, type="TXT")
    said = (await here(timeout=0.5).sight(NAME, "TXT", visible=False)).authorities
    assert [answer.reason for answer in said.values()] == list(faults.values())
    assert [server.asked[NAME, "TXT", "udp"] for server in shop.servers] == [3] * len(faults)


@pytest.mark.parametrize(
    "fault", ["formerr_edns", "truncated", "case_lowered", "case_lowered_tcp_shut", "forged_first", "extra_records"]
)
async def test_an_odd_server_is_understood(internet: Internet, here: Here, fault: Fault) -> None:
    bad, good, _ = await sight_one(internet, here, fault)
    assert (bad.values, good.values) == (("token=1",), ("token=1",))


@pytest.mark.parametrize("rdtype", ["TXT", "MX"])
async def test_a_server_that_denies_is_believed(internet: Internet, here: Here, rdtype: str) -> None:
    shop = await internet.zone("shop.test", negative_ttl=77)
    shop.at(0).add(f"{NAME} {rdtype} {'token=1' if rdtype == 'TXT' else '10 mx.shop.test.'}")
    shop.at(1).add(f"{NAME} A 192.0.2.1")
    first, second = (await here().sight(NAME, rdtype, visible=False)).authorities.values()
    assert (first.outcome, second.outcome, second.ttl_s) == ("answer", "nodata", 77)


async def test_a_server_that_wants_no_edns_and_does_not_say_so_is_asked_without_it(
    internet: Internet, here: Here
) -> None:
    """It is found out once, however the questions of a check share its patience, and kept from then on."""
    shop = await internet.zone("shop.test", servers=2)
    shop.add(f"{NAME} TXT token=1")
    shop.fault("silent_to_edns")
    resolver = here(timeout=0.3)
    said = (await resolver.sight(NAME, "TXT", visible=False)).authorities
    assert {answer.values for answer in said.values()} == {("token=1",)}
    for server in shop.servers:
        server.forget()
    await resolver.sight(NAME, "TXT", visible=False)
    assert {asked.query.edns for server in shop.servers for asked in server.log if asked.by == "us"} == {-1}


async def test_a_closed_port_is_noticed_at_once(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test")
    await shop.servers[0].close()
    first, second = (await here(timeout=60.0).sight(NAME, "TXT", visible=False)).authorities.values()
    assert (first.reason, second.outcome) == ("unreachable", "nxdomain")


async def test_a_server_that_keeps_no_case_is_asked_over_tcp_once(internet: Internet, here: Here) -> None:
    """Then it is known, and asked in small letters."""
    shop = await internet.zone("shop.test", servers=1)
    shop.add(f"{NAME} TXT token=1")
    shop.fault("case_lowered")
    resolver = here()
    for _ in range(2):
        assert (await resolver.sight(NAME, "TXT", visible=False)).authorities.popitem()[1].values == ("token=1",)  # type: ignore[attr-defined]
    assert sum(times for (_, _, transport), times in shop.asked.items() if transport == "tcp") == 1


async def test_names_are_asked_in_letters_of_any_case_by_ids_that_nobody_guesses(
    internet: Internet, here: Here
) -> None:
    shop = await internet.zone("shop.test", servers=1)
    resolver = here()
    for _ in range(20):
        await resolver.sight("_some-rather-long-name.shop.test", "TXT", visible=False)
    asked = [one.query for one in shop.servers[0].log if one.type == "TXT"]
    assert len({query.question[0].name.to_text() for query in asked}) > 15
    assert len({query.id for query in asked}) > 15
    assert {(query.payload, query.flags) for query in asked} == {(1232, 0)}


async def test_a_family_that_this_machine_has_no_way_to_says_nothing_of_the_server(
    internet: Internet, here: Here, no_ipv6: None
) -> None:
    """Unless there is no other way to the zone either."""
    shop = await internet.zone("shop.test", servers=1)
    shop.add(f"{NAME} TXT token=1")
    address = shop.servers[0].address
    shop.set("ns1.shop.test", "AAAA", "::1")
    resolver = here(allow_addresses=("127.53.0.0/16", "::1/128"))
    said = (await resolver.sight(NAME, "TXT", visible=False)).authorities
    assert {place: answer.said for place, answer in said.items()} == {f"ns1.shop.test ({address})": "answer"}
    internet.delegate("shop.test", {"ns1.shop.test": ["::1"]})
    said = (await resolver.sight(NAME, "TXT", visible=False)).authorities
    assert {place: answer.said for place, answer in said.items()} == {"ns1.shop.test (::1)": "no_route"}


async def test_a_server_is_asked_by_ipv6_too(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", servers=1)
    try:
        six = await internet.server("six.shop.test", address="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    shop.add(f"{NAME} TXT token=1")
    six.zones["shop.test"] = shop.at(0)
    internet.delegate("shop.test", {s.host: [s.address] for s in (*shop.servers, six)})
    said = (await here(allow_addresses=("127.53.0.0/16", "::1/128")).sight(NAME, "TXT", visible=False)).authorities
    assert {answer.values for answer in said.values()} == {("token=1",)}
    assert "six.shop.test (::1)" in said


async def test_an_address_that_is_not_public_is_never_asked(internet: Internet, here: Here) -> None:
    shop = await internet.zone("shop.test", servers=1)
    shop.add(f"{NAME} TXT token=1")
    inside = await internet.server("inside.shop.test", address="127.54.0.1")
    inside.zones["shop.test"] = shop.at(0)
    internet.delegate("shop.test", {"ns1.shop.test": [shop.servers[0].address], inside.host: [inside.address]})
    internet.zones["test"].set("v6.shop.test", "AAAA", "::1")
    sighting = await here().sight(NAME, "TXT", visible=False)
    assert {place: answer.said for place, answer in sighting.authorities.items()} == {
        f"ns1.shop.test ({shop.servers[0].address})": "answer",
        f"{inside.host} ({inside.address})": "blocked",
    }
    assert not inside.asked


async def test_every_way_to_a_private_address_is_barred(internet: Internet, here: Here) -> None:
    """By glue, by a look-up, and by the zone's own word."""
    private = ["127.54.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"]
    shop = await internet.zone("shop.test", servers=1)
    hoster = await internet.zone("hoster.example", servers=1)
    hoster.set("trap.hoster.example", "A", "10.0.0.2")
    internet.delegate("shop.test", {"ns1.shop.test": [shop.servers[0].address, *private], "trap.hoster.example": []})
    shop.set("ns2.shop.test", "A", "10.0.0.3")
    shop.set("shop.test", "NS", "ns1.shop.test.", "ns2.shop.test.")
    sighting = await here().sight("shop.test", "SOA", visible=False)
    said = {place: answer.said for place, answer in sighting.authorities.items()}
    assert said.pop(f"ns1.shop.test ({shop.servers[0].address})") == "answer"
    assert set(said.values()) == {"blocked"}
    assert len(said) == len(private) + 2
