"""Published? and visible?: every row of the table of what name servers and resolvers may say, in the lab."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import dns.name
import dns.rdatatype
import pytest

from tests.jobs.dns.internet import Internet
from tests.jobs.dns.internet_checks import CHALLENGE, RECORD, SHORT, VALUE, Checks, wait_s
from tests.jobs.dns.internet_faults import Fault
from tests.jobs.dns.internet_signing import Break

pytestmark = pytest.mark.req("BJ-20")

NS1, NS2 = "ns1.shop.test", "ns2.shop.test"
SAID = ("servfail", "refused", "lame", "not_authoritative", "cut_off", "formerr", "notimp")
"""Faults that are known at once."""


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


@pytest.fixture
async def checks(internet: Internet) -> Checks:
    """A new domain of two name servers, which nobody has asked about yet."""
    return Checks(internet, await internet.zone("shop.test", negative_ttl=60))


async def test_right_on_all_and_seen_by_all_is_verified_and_looked_at_daily(checks: Checks) -> None:
    checks.zone.add(RECORD)
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.accept) == ("match", "match", True)
    assert set(seen.servers.values()) == {"match"}
    assert len(seen.servers) == 2 + 3
    step = await checks.step()
    assert (step.memory.state, step.notice) == ("verified", "verified")
    assert 0.1 * 86400 < wait_s(step, checks.now) <= 1.2 * 86400


@pytest.mark.parametrize("signed", [False, True])
async def test_right_on_all_and_not_yet_seen_is_accepted_and_says_by_when_it_will_be(
    internet: Internet, signed: bool
) -> None:
    checks = Checks(internet, await internet.zone("shop.test", negative_ttl=60, signed=signed))
    await remembered_as_missing(checks)
    checks.zone.add(RECORD)
    internet.clock.advance(20)
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.accept) == ("match", "spreading", True)
    assert seen.visible_by == checks.now + timedelta(seconds=40)
    assert "spreading; visible everywhere by 2026-11-22 12:01 UTC" in seen.text
    assert (await checks.step()).memory.state == "verified"
    internet.clock.advance(40)
    assert (await checks.see()).state == "match"


async def test_right_on_those_that_answer_and_not_yet_seen_waits_for_the_caches(checks: Checks) -> None:
    await remembered_as_missing(checks)
    checks.zone.add(RECORD)
    checks.zone.servers[1].fault("servfail")
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.accept) == ("indeterminate", "spreading", False)
    step = await checks.step()
    assert step.memory.state == "pending"
    assert wait_s(step, checks.now) == 60
    checks.internet.clock.advance(60)
    assert (await checks.step()).memory.state == "verified"


async def test_name_servers_that_differ_are_named(checks: Checks) -> None:
    checks.zone.add(RECORD)
    checks.memory = (await checks.step()).memory
    checks.zone.at(1).remove(CHALLENGE, "TXT")
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.recheck_s) == ("indeterminate", "servers_disagree", 600)
    assert f"Your name servers disagree about the verification token at {CHALLENGE}: {NS2} lacks it" in seen.text
    assert f"while {NS1} has it" in seen.text
    assert sorted(word for server, word in seen.servers.items() if server.startswith("ns")) == ["match", "nxdomain"]
    step = await checks.step()
    assert (step.memory.state, wait_s(step, checks.now)) == ("verified", 600)
    checks.zone.at(1).set(CHALLENGE, "TXT", '"token=other"')
    assert f"{NS2} has another value" in (await checks.see()).text


async def test_another_value_is_told_beside_the_right_one(checks: Checks) -> None:
    checks.zone.set(CHALLENGE, "TXT", '"token=somebodyelses"')
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.accept) == ("mismatch", "mismatch", False)
    assert f"expected “token={VALUE}”, found “token=somebodyelses”" in seen.text
    step = await checks.step()
    assert (step.memory.state, wait_s(step, checks.now)) == ("pending", 60)


@pytest.mark.parametrize("there", [False, True], ids=["NXDOMAIN", "NODATA"])
async def test_what_no_name_server_has_is_absent(checks: Checks, there: bool) -> None:
    if there:
        checks.zone.add(f"{CHALLENGE} A 192.0.2.1")
    seen = await checks.see()
    assert (seen.verdict, seen.state) == ("absent", "absent")
    assert ("the name has no record of this type" if there else "the name does not exist") in seen.text
    assert set(seen.servers.values()) == {"nodata" if there else "nxdomain"}


@pytest.mark.parametrize("fault", SAID)
async def test_name_servers_that_do_not_answer_us_are_made_up_for_by_resolvers(checks: Checks, fault: Fault) -> None:
    checks.zone.add(RECORD)
    checks.zone.fault(fault, by="us")
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.accept) == ("match", "authority_unreachable", True)
    assert f"Resolvers see the verification token at {CHALLENGE} as it should be." in seen.text
    assert NS1 in seen.text.lower()
    assert NS2 in seen.text.lower()
    assert (await checks.step()).memory.state == "verified"


async def test_firewalls_that_let_nothing_through_are_made_up_for_too(checks: Checks) -> None:
    checks.zone.add(RECORD)
    checks.zone.fault("silent", by="us")
    checks.settings = {"timeout": 0.1, "tries": 2}
    seen = await checks.see()
    assert (seen.verdict, seen.state) == ("match", "authority_unreachable")
    assert f"{NS1} did not answer and {NS2} did not answer" in seen.text.lower()


@pytest.mark.parametrize("broken", ["expired", "forged", "other_key", "unsigned"])
@pytest.mark.parametrize("reached", [True, False], ids=["reached", "unreachable"])
async def test_broken_dnssec_is_told_as_exactly_that(internet: Internet, broken: Break, reached: bool) -> None:
    checks = Checks(internet, await internet.zone("shop.test", broken=broken))
    checks.zone.add(RECORD)
    if not reached:
        checks.zone.fault("refused", by="us")
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.accept) == ("indeterminate", "dnssec_broken", False)
    assert seen.text.startswith("The DNSSEC of shop.test is broken: resolvers that check signatures refuse")
    internet.resign(checks.zone, None)
    internet.flush()
    checks.zone.heal()
    assert (await checks.see()).state == "match"


@pytest.mark.parametrize("fault", SAID)
async def test_where_nobody_can_tell_nothing_changes(checks: Checks, fault: Fault) -> None:
    checks.zone.add(RECORD)
    verified = (await checks.step()).memory
    checks.internet.flush()
    checks.zone.fault(fault)
    waits = []
    for _ in range(6):
        step = await checks.step()
        assert step.memory.state == "verified"
        assert step.notice is None
        waits.append(wait_s(step, checks.now))
        checks.internet.clock.advance(waits[-1])
    assert waits == [300, 600, 1200, 2400, 3600, 3600]
    seen = await checks.see()
    assert (seen.verdict, seen.state) == ("indeterminate", "indeterminate")
    assert "This is not held against the domain" in seen.text
    checks.zone.heal()
    checks.internet.clock.advance(60)
    step = await checks.step()
    assert (step.memory.since, step.notice) == (verified.since, None)


async def test_silence_of_everybody_is_no_answer_either(checks: Checks) -> None:
    checks.zone.add(RECORD)
    checks.zone.fault("silent")
    for resolver in checks.internet.resolvers:
        resolver.fault("silent")
    checks.settings = {"timeout": SHORT, "tries": 1}
    seen = await checks.see()
    assert (seen.verdict, seen.state) == ("indeterminate", "indeterminate")
    assert "did not answer" in seen.text


@pytest.mark.parametrize("resolver", [0, 1, 2])
@pytest.mark.parametrize("fault", ["servfail", "nxdomain", "refused", "cname_to_itself", "nodata"])
async def test_one_resolvers_hiccup_changes_nothing(checks: Checks, fault: Fault, resolver: int) -> None:
    checks.zone.add(RECORD)
    checks.internet.resolvers[resolver].fault(fault)
    seen = await checks.see()
    assert (seen.verdict, seen.state, seen.accept) == ("match", "match", True)


@pytest.mark.parametrize("fault", ["servfail", "nxdomain", "refused", "cname_to_itself", "nodata"])
async def test_nor_does_that_of_all_resolvers(checks: Checks, fault: Fault) -> None:
    checks.zone.add(RECORD)
    for resolver in checks.internet.resolvers:
        resolver.fault(fault)
    assert (await checks.step()).memory.state == "verified"


async def remembered_as_missing(checks: Checks) -> None:
    """Every resolver has asked for the record before it was there."""
    for resolver in checks.internet.resolvers:
        resolver.recursion.find(dns.name.from_text(CHALLENGE), dns.rdatatype.TXT)
