"""Each type of record as it is really found: by the walk from the root, on every name server, with what it leads to."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest

from jobs.dns.expectation import Expectation
from tests.jobs.dns.internet import Internet, Zone
from tests.jobs.dns.internet_checks import SHOP, VALUE, Checks
from tests.jobs.dns.internet_faults import Fault
from tests.jobs.dns.internet_zone import txt

pytestmark = pytest.mark.req("BJ-20")

ELEVEN = " ".join(f"include:n{n}.other.example" for n in range(10))
KEY = base64.b64encode(bytes(range(256)) + bytes(range(38))).decode()
OTHER = base64.b64encode(bytes(294)).decode()


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


@pytest.fixture
async def us(internet: Internet) -> Zone:
    """Ours: what customers' records lead to."""
    us = await internet.zone("us.example")
    us.add("_spf.us.example TXT v=spf1\\032ip4:192.0.2.0/24\\032-all", "mx.us.example A 192.0.2.5")
    us.set("s1._domainkey.us.example", "TXT", txt(f"v=DKIM1; k=rsa; p={KEY}"))
    return us


@pytest.fixture
async def checks(internet: Internet, us: Zone) -> Checks:
    return Checks(internet, await internet.zone(SHOP))


async def said(checks: Checks, rdtype: str, value: str, name: str | None = None) -> tuple[str, str]:
    """The verdict, and what its owner reads."""
    seen = await checks.see(Expectation(type=rdtype, value=value, name=name))  # type: ignore[arg-type] # one of them
    return seen.verdict, seen.text


async def test_a_token_is_any_of_the_records_its_strings_joined(checks: Checks) -> None:
    place = f"_jobsd-challenge.{SHOP}"
    checks.zone.set(place, "TXT", '"something else"', f'"token={VALUE[:9]}" "{VALUE[9:]}" " expiry=never"')
    assert (await said(checks, "TOKEN", VALUE))[0] == "match"
    checks.zone.set(place, "TXT", f'"token={VALUE[:-1]}"', f'"my token={VALUE}"')
    assert (await said(checks, "TOKEN", VALUE))[0] == "mismatch"


async def test_a_token_may_stand_behind_a_cname_in_another_zone(checks: Checks, us: Zone) -> None:
    checks.zone.add(f"_jobsd-challenge.{SHOP} CNAME shop._proof.us.example.")
    us.add(f"shop._proof.us.example TXT token={VALUE}")
    assert (await said(checks, "TOKEN", VALUE))[0] == "match"
    us.at(0).remove("shop._proof.us.example", "TXT")
    verdict, text = await said(checks, "TOKEN", VALUE)
    assert verdict == "indeterminate"
    assert "ns1.us.example lacks it" in text


async def test_a_cname_is_compared_in_one_form_and_may_take_a_way_round(checks: Checks) -> None:
    checks.zone.add("www.shop.test CNAME Edge.US.example.", "far.shop.test CNAME www.shop.test.")
    assert (await said(checks, "CNAME", "edge.us.example.", "www"))[0] == "match"
    verdict, text = await said(checks, "CNAME", "edge.us.example", "far")
    assert verdict == "match", text
    assert (await said(checks, "CNAME", "other.us.example", "www"))[0] == "mismatch"


async def test_a_cname_at_the_top_of_a_zone_and_one_behind_a_proxy_are_called_so(checks: Checks) -> None:
    checks.zone.add("shop.test A 192.0.2.9", "www.shop.test A 192.0.2.9")
    verdict, text = await said(checks, "CNAME", "edge.us.example")
    assert verdict == "mismatch"
    assert "top of a zone" in text
    verdict, text = await said(checks, "CNAME", "edge.us.example", "www")
    assert verdict == "mismatch"
    assert "switch the proxy off" in text


async def test_mail_must_come_to_us_first_and_others_are_only_told(checks: Checks) -> None:
    checks.zone.add("shop.test MX 10 MX.us.example.", "shop.test MX 20 mx.other.example.")
    seen = await checks.see(Expectation(type="MX", value="mx.us.example"))
    assert seen.verdict == "match"
    assert seen.notes == ("mail may go to other servers too: 20 mx.other.example",)
    checks.zone.add("shop.test MX 5 mx.first.example.")
    assert (await said(checks, "MX", "mx.us.example"))[0] == "mismatch"
    checks.zone.set("shop.test", "MX", "0 .")
    verdict, text = await said(checks, "MX", "mx.us.example")
    assert verdict == "mismatch"
    assert "takes no mail" in text


@pytest.mark.parametrize("fault", ["nodata", "nxdomain", "cname_endless"])
async def test_an_include_that_one_of_its_servers_denies_is_no_fault_of_the_domain(
    internet: Internet, us: Zone, checks: Checks, fault: Fault
) -> None:
    checks.zone.add('shop.test TXT "v=spf1 include:_spf.us.example -all"')
    assert len(us.servers) == 2
    for ill in us.servers:
        ill.fault(fault, name="_spf.us.example")
        for _ in range(4):  # whichever of them is asked first
            assert (await said(checks, "SPF", "include:_spf.us.example"))[0] != "mismatch"
        ill.heal()
    for server in us.servers:
        server.fault("nodata", name="_spf.us.example")
    assert (await said(checks, "SPF", "include:_spf.us.example"))[0] == "mismatch"


async def test_our_include_may_stand_anywhere_in_the_tree(checks: Checks, internet: Internet) -> None:
    other = await internet.zone("other.example")
    other.add("_spf.other.example TXT v=spf1\\032include:_spf.us.example\\032-all")
    for record in (
        "v=spf1 include:_spf.us.example -all",
        "v=spf1 mx include:_spf.other.example ~all",
        "v=spf1 redirect=_spf.other.example",
    ):
        checks.zone.set(SHOP, "TXT", '"unrelated"', f'"{record}"')
        assert (await said(checks, "SPF", "include:_spf.us.example"))[0] == "match", record
        assert (await said(checks, "SPF", "ip4:192.0.2.7"))[0] == "match", record
    checks.zone.set(SHOP, "TXT", '"v=spf1 mx -all"')
    assert (await said(checks, "SPF", "include:_spf.us.example"))[0] == "mismatch"
    checks.zone.set(SHOP, "TXT", '"v=spf1 mx -all"', '"v=spf1 include:_spf.us.example -all"')
    assert (await said(checks, "SPF", "include:_spf.us.example"))[0] == "mismatch"


@pytest.mark.parametrize(
    ("record", "verdict", "words"),
    [
        (f"{ELEVEN} include:_spf.us.example", "mismatch", "more than 10 DNS lookups"),
        (f"a:v1.{SHOP} a:v2.{SHOP} a:v3.{SHOP} include:_spf.us.example", "mismatch", "more than 2 of its lookups"),
        ("include:%{d}.other.example", "indeterminate", "depends on each message"),
        ("include:gone.other.example include:_spf.us.example", "mismatch", "gone.other.example"),
    ],
)
async def test_spf_that_receivers_give_up_on_is_told_so(
    checks: Checks, internet: Internet, record: str, verdict: str, words: str
) -> None:
    other = await internet.zone("other.example")
    other.add(*(f"n{n}.other.example TXT v=spf1\\032-all" for n in range(10)))
    checks.zone.set(SHOP, "TXT", txt(f"v=spf1 {record} -all"))
    found, text = await said(checks, "SPF", "include:_spf.us.example")
    assert found == verdict, text
    assert words in text


async def test_a_dkim_key_is_compared_by_its_bytes_behind_its_cname(checks: Checks) -> None:
    place = "s1._domainkey.shop.test"
    checks.zone.add(f"{place} CNAME s1._domainkey.us.example.")
    assert (await said(checks, "DKIM", KEY, "s1"))[0] == "match"
    spaced = "  ".join(KEY[at : at + 60] for at in range(0, len(KEY), 60))
    checks.zone.remove(place, "CNAME")
    checks.zone.set(place, "TXT", txt(f"k=rsa ;  p = {spaced}"))
    assert (await said(checks, "DKIM", KEY, "s1"))[0] == "match"
    checks.zone.set(place, "TXT", txt(f"v=DKIM1; p={OTHER}"))
    assert (await said(checks, "DKIM", KEY, "s1"))[0] == "mismatch"
    checks.zone.set(place, "TXT", txt("v=DKIM1; p="))
    verdict, text = await said(checks, "DKIM", KEY, "s1")
    assert verdict == "mismatch"
    assert "revoked" in text


async def test_dmarc_is_looked_for_up_the_tree_and_several_are_none(checks: Checks) -> None:
    checks.zone.add('_dmarc.shop.test TXT "v=DMARC1; p=quarantine"')
    for name in (None, "news.eu"):
        assert (await said(checks, "DMARC", "quarantine", name))[0] == "match"
        assert (await said(checks, "DMARC", "reject", name))[0] == "mismatch"
    checks.zone.add('_dmarc.shop.test TXT "v=DMARC1; p=reject"')
    assert (await said(checks, "DMARC", "none"))[0] == "mismatch"


async def test_caa_and_name_servers_are_advice_and_decide_nothing(checks: Checks) -> None:
    checks.zone.add("shop.test CAA 0 issue other-ca.example", f"_jobsd-challenge.shop.test TXT token={VALUE}")
    token, caa, servers = (
        Expectation(type="TOKEN", value=VALUE),
        Expectation(type="CAA", value="our-ca.example"),
        Expectation(type="NS", value="ns1.shop.test ns1.elsewhere.example"),
    )
    look = await checks.look(token, caa, servers)
    assert [conclusion.verdict for conclusion in look.conclusions] == ["match", "mismatch", "mismatch"]
    assert (look.verdict, look.word) == ("match", "good")
    assert "other-ca.example" in look.text


async def test_names_beyond_ascii_are_asked_for_as_their_a_labels(checks: Checks) -> None:
    checks.zone.add("xn--bcher-kva.shop.test TXT hello", "case.shop.test TXT Hello")
    assert (await said(checks, "TXT", "hello", "Bücher"))[0] == "match"
    assert (await said(checks, "TXT", "hello", "CASE"))[0] == "mismatch"
