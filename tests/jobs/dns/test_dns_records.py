"""Tokens, CNAME, MX and the two kinds of advice: what is right, what is wrong, and what is told besides."""

from __future__ import annotations

import pytest

from jobs.dns.answer import failed
from jobs.dns.expectation import Expectation, Type
from jobs.dns.records.token import new_token, normal, published
from jobs.dns.values import normal as normal_value
from tests.jobs.dns.book import DOMAIN, Book, found

TOKEN = "abcdefghijklmnopqrstuvwxyz"
PLACE = f"_jobsd-challenge.{DOMAIN}"

# --- tokens ---


@pytest.mark.parametrize(
    "record",
    [
        f"token={TOKEN}",
        f"token={TOKEN} expiry=2027-02-08T02:03:19+00:00",
        f"token={TOKEN} expiry=never",
        f"token={TOKEN} other=1 expiry=2027-02-08",
        TOKEN,
        TOKEN.upper(),
        f'"token={TOKEN}"',
        f'"token={TOKEN[:9]}" "{TOKEN[9:]}"',
        f"  TOKEN={TOKEN.upper()}  ",
        f"token={TOKEN}======",
    ],
)
async def test_a_token_is_found_in_any_record_and_any_form(record: str) -> None:
    book = Book({(PLACE, "TXT"): ["token=zzzzzzzzzzzzzzzzzzzzzzzzzz", record, "hello world"]})
    assert (await book.judge("TOKEN", f"token={TOKEN}")).verdict == "match"


@pytest.mark.parametrize(
    "record",
    [f"token={TOKEN}a", f"token={TOKEN[:-1]}", f"expiry=never token={TOKEN}", f"{TOKEN} {TOKEN}", "v=spf1 -all"],
)
async def test_existence_of_a_record_proves_nothing(record: str) -> None:
    """A wildcard answers for every name, and other organisations have tokens of their own."""
    finding = await Book({(PLACE, "TXT"): record}).judge("TOKEN", TOKEN)
    assert (finding.verdict, finding.reason) == ("mismatch", "other_value")


async def test_the_expiry_is_told_and_changes_nothing() -> None:
    finding = await Book({(PLACE, "TXT"): f"token={TOKEN} expiry=2001-01-01"}).judge("TOKEN", TOKEN)
    assert (finding.verdict, finding.facts) == ("match", {"expiry": "2001-01-01"})


def test_tokens_are_random_and_long_enough() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {32}
    assert all(normal(token) == token for token in tokens)
    assert normal(published(next(iter(tokens)), "never")) in tokens
    assert published(TOKEN) == f"token={TOKEN}"


@pytest.mark.parametrize("value", ["short", "token=", "a" * 25, "a" * 129, "1" * 26, f"{TOKEN} {TOKEN}"])
def test_what_can_be_guessed_is_no_token(value: str) -> None:
    with pytest.raises(ValueError, match=r"no token.*new_token"):
        normal_value("TOKEN", value)


@pytest.mark.parametrize(
    ("rdtype", "name", "place"),
    [
        ("TOKEN", None, "_jobsd-challenge.shop.example"),
        ("TOKEN", "www", "_jobsd-challenge.www.shop.example"),
        ("TOKEN", "_acme-challenge", "_acme-challenge.shop.example"),
        ("TOKEN", "_jobsd-challenge.shop.example.", "_jobsd-challenge.shop.example"),
        ("DMARC", None, "_dmarc.shop.example"),
        ("DMARC", "mail", "_dmarc.mail.shop.example"),
        ("DMARC", "_dmarc.mail", "_dmarc.mail.shop.example"),
        ("SPF", "mail", "mail.shop.example"),
        ("CAA", "@", "shop.example"),
        ("TXT", "Bücher", "xn--bcher-kva.shop.example"),
    ],
)
def test_each_record_stands_in_its_place(rdtype: Type, name: str | None, place: str) -> None:
    value = {"TOKEN": TOKEN, "DMARC": "none", "SPF": "ip4:192.0.2.1"}.get(rdtype, "x.example")
    assert Expectation(type=rdtype, value=value, name=name).at(DOMAIN).name == place


def test_a_token_of_a_domain_whose_own_name_begins_with_an_underscore_is_below_it() -> None:
    assert Expectation(type="TOKEN", value=TOKEN).at("_x.example").name == "_jobsd-challenge._x.example"


@pytest.mark.parametrize("rdtype", ["TOKEN", "DMARC", "TXT"])
def test_a_name_outside_the_domain_is_refused(rdtype: Type) -> None:
    value = {"TOKEN": TOKEN, "DMARC": "none"}.get(rdtype, "x")
    with pytest.raises(ValueError, match=r"neither 'shop.example' nor below it"):
        Expectation(type=rdtype, value=value, name="other.example.").at(DOMAIN)


def test_what_is_wrong_with_a_value_is_told_with_its_type() -> None:
    with pytest.raises(ValueError, match=r"^MX: 'ten mx.example' is not an MX; write"):
        Expectation(type="MX", value="ten mx.example")


# --- CNAME ---


async def test_a_cname_may_go_by_way_of_others() -> None:
    book = Book({("www.shop.example", "CNAME"): "a.example", ("a.example", "CNAME"): "us.example"})
    finding = await book.judge("CNAME", "US.example.", "www")
    assert (finding.verdict, finding.chain) == ("match", ("a.example", "us.example"))
    assert finding.notes == ("it goes by way of a.example",)
    direct = await Book({("www.shop.example", "CNAME"): "us.example"}).judge("CNAME", "us.example", "www")
    assert (direct.verdict, direct.chain, direct.notes) == ("match", ("us.example",), ())


async def test_a_chain_that_ends_elsewhere_goes_in_a_circle_or_has_no_end_is_a_mismatch() -> None:
    ends = Book({("www.shop.example", "CNAME"): "a.example", ("a.example", "A"): "192.0.2.1"})
    circle = Book({("www.shop.example", "CNAME"): "a.example", ("a.example", "CNAME"): "www.shop.example"})
    endless = Book({(f"n{n}.shop.example", "CNAME"): f"n{n + 1}.shop.example" for n in range(100)})
    assert (await ends.judge("CNAME", "us.example", "www")).reason == "other_value"
    assert (await circle.judge("CNAME", "us.example", "www")).reason == "cname_loop"
    assert (await endless.judge("CNAME", "us.example", "n0")).reason == "chain_too_long"
    assert endless.asked.total() < 10


async def test_a_chain_that_cannot_be_followed_decides_nothing() -> None:
    book = Book({("www.shop.example", "CNAME"): "a.example", ("a.example", "CNAME"): failed("timeout")})
    finding = await book.judge("CNAME", "us.example", "www")
    assert (finding.verdict, finding.reason) == ("indeterminate", "timeout")


async def test_a_proxy_or_a_flattened_cname_is_called_that() -> None:
    book = Book({("www.shop.example", "A"): "192.0.2.1", ("www.shop.example", "AAAA"): "2001:db8::1"})
    finding = await book.judge("CNAME", "us.example", "www")
    assert (finding.verdict, finding.reason) == ("mismatch", "address_instead")
    assert finding.found == ("192.0.2.1", "2001:db8::1")


async def test_a_cname_at_the_top_of_a_zone_is_impossible() -> None:
    book = Book({(DOMAIN, "SOA"): "ns.example. x.example. 1 1 1 1 1", (DOMAIN, "A"): "192.0.2.1"})
    finding = await book.judge("CNAME", "us.example")
    assert (finding.verdict, finding.reason, finding.found) == ("mismatch", "apex", ("192.0.2.1",))


async def test_a_name_without_anything_has_no_cname() -> None:
    book = Book({("x.www.shop.example", "A"): "192.0.2.1"})
    assert (await book.judge("CNAME", "us.example", "www")).reason == "nodata"
    assert (await Book().judge("CNAME", "us.example", "www")).reason == "nxdomain"
    book.fail("www.shop.example", "A")
    assert (await book.judge("CNAME", "us.example", "www")).verdict == "absent"


# --- MX ---


async def test_other_mail_servers_are_told_and_not_held_against_the_domain() -> None:
    book = Book({(DOMAIN, "MX"): ["10 us.example", "20 old.example", "10 too.example"]})
    finding = await book.judge("MX", "us.example")
    assert finding.verdict == "match"
    assert finding.notes == ("mail may go to other servers too: 10 too.example, 20 old.example",)


async def test_a_null_mx_beside_ours_is_told() -> None:
    finding = await Book({(DOMAIN, "MX"): ["0 .", "0 us.example"]}).judge("MX", "us.example")
    assert finding.verdict == "match"
    assert "null MX" in finding.notes[0]


# --- advice ---


@pytest.mark.parametrize(
    ("records", "verdict", "reason"),
    [
        (['0 issue "ca.example"'], "match", ""),
        (['0 issue "CA.example; accounturi=https://x"', '0 issue "other.example"'], "match", ""),
        (['0 iodef "mailto:x@shop.example"'], "match", ""),
        (['0 issuewild ";"'], "match", ""),
        (['0 issue "other.example"'], "mismatch", "forbidden"),
        (['0 issue ";"'], "mismatch", "forbidden"),
        (['128 tbs "unknown"', '0 issue "ca.example"'], "mismatch", "critical"),
        (['128 issue "ca.example"'], "match", ""),
    ],
)
async def test_caa_says_whether_our_authority_may_issue(records: list[str], verdict: str, reason: str) -> None:
    finding = await Book({(DOMAIN, "CAA"): records}).judge("CAA", "ca.example; validationmethods=dns-01")
    assert (finding.verdict, finding.reason, finding.advice) == (verdict, reason, True)


async def test_caa_is_looked_for_up_the_tree_and_the_nearest_counts() -> None:
    book = Book({("www.shop.example", "A"): "192.0.2.1", (DOMAIN, "CAA"): '0 issue "other.example"'})
    finding = await book.judge("CAA", "ca.example", "www")
    assert (finding.reason, finding.facts, finding.found) == ("forbidden", {"at": DOMAIN}, ('0 issue "other.example"',))
    book.put("www.shop.example", "CAA", '0 issue "ca.example"')
    assert (await book.judge("CAA", "ca.example", "www")).verdict == "match"
    assert (await Book().judge("CAA", "ca.example")).verdict == "match", "nobody is forbidden where nothing is said"


async def test_caa_is_unknown_where_a_name_above_does_not_answer_or_there_are_too_many() -> None:
    book = Book({("www.shop.example", "A"): "192.0.2.1"})
    book.fail(DOMAIN, "CAA")
    assert (await book.judge("CAA", "ca.example", "www")).verdict == "indeterminate"
    assert (await Book().judge("CAA", "ca.example", ".".join("x" * 30))).reason == "too_deep"


async def test_other_name_servers_than_last_time_are_told() -> None:
    book = Book({(DOMAIN, "NS"): ["NS2.example.", "ns1.example."]})
    same = await book.judge("NS", "ns1.example, ns2.example")
    assert (same.verdict, same.advice) == ("match", True)
    changed = await book.judge("NS", "ns1.example ns3.example")
    assert (changed.reason, changed.facts) == ("changed", {"gone": ["ns3.example"], "new": ["ns2.example"]})


async def test_values_are_shown_as_they_were_found() -> None:
    book = Book({(DOMAIN, "TXT"): found("b", "a")})
    assert (await book.judge("TXT", "c")).found == ("b", "a")
