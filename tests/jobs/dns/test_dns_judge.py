"""Verdicts: a table of what was wanted, what was found, and what is said of it."""

from __future__ import annotations

import itertools

import pytest

from jobs.dns.answer import Answer, Outcome, failed
from jobs.dns.expectation import TYPES, Expectation, Type
from jobs.dns.finding import Finding
from jobs.dns.judge import judge, judge_all
from jobs.dns.sighting import Sighting
from jobs.dns.values import normal
from jobs.dns.verdict import GRAVEST_FIRST, Verdict, gravest
from tests.jobs.dns.book import Book, found

NAME = "example.test"


async def finding(rdtype: Type, expected: str, answer: Answer) -> Finding:
    return await judge(Expectation(type=rdtype, value=expected).at(NAME), answer, Book().ask)


async def said(rdtype: Type, expected: str, answer: Answer) -> tuple[Verdict, str]:
    judged = await finding(rdtype, expected, answer)
    return judged.verdict, judged.reason


@pytest.mark.parametrize(
    ("rdtype", "expected", "values"),
    [
        ("TXT", "token=abc", ["token=abc"]),
        ("TXT", "token=abc", ["v=spf1 -all", "token=abc"]),
        ("TXT", '"token=abc"', ["token=abc"]),
        ("TXT", "token=abc", ['"token=abc"']),
        ("TXT", " token=abc ", ["token=abc\n"]),
        ("TXT", '"v=DKIM1; " "p=AA"', ["v=DKIM1; p=AA"]),
        ("TXT", "v=spf1  include:x  -all", ["v=spf1 include:x -all"]),
        ("CNAME", "Target.Example.NET.", ["target.example.net"]),
        ("CNAME", "bücher.example", ["xn--bcher-kva.example"]),
        ("MX", "mx.example.net", ["10 mx.example.net"]),
        ("MX", "mx.example.net", ["20 other.example", "10 mx.example.net", "10 mx2.example.net"]),
        ("MX", "10 MX.example.net.", ["10 mx.example.net"]),
        ("MX", "20 mx2.example.net", ["10 mx.example.net", "20 mx2.example.net"]),
        ("MX", "010 mx.example.net", ["10 mx.example.net"]),
        ("A", "192.0.2.1 ", ["192.0.2.2", "192.0.2.1"]),
        ("AAAA", "2001:DB8:0::1", ["2001:db8::1"]),
    ],
)
async def test_a_record_matches_however_it_is_written(rdtype: Type, expected: str, values: list[str]) -> None:
    assert await said(rdtype, expected, found(*values)) == ("match", "")


@pytest.mark.parametrize(
    ("rdtype", "expected", "values", "reason"),
    [
        ("TXT", "token=abc", ["token=ABC"], "other_value"),
        ("TXT", "token=abc", ["token=abcd", "v=spf1 -all"], "other_value"),
        ("CNAME", "a.example.net", ["b.example.net"], "other_value"),
        ("A", "192.0.2.1", ["192.0.2.11"], "other_value"),
        ("MX", "mx.example.net", ["10 other.example"], "other_value"),
        ("MX", "mx.example.net", ["10 other.example", "20 mx.example.net"], "not_lowest"),
        ("MX", "mx.example.net", ["9 other.example", "10 mx.example.net"], "not_lowest"),
        ("MX", "10 mx.example.net", ["20 mx.example.net"], "other_preference"),
        ("MX", "mx.example.net", ["0 ."], "null_mx"),
    ],
)
async def test_another_record_in_its_place_is_a_mismatch(
    rdtype: Type, expected: str, values: list[str], reason: str
) -> None:
    assert await said(rdtype, expected, found(*values)) == ("mismatch", reason)


@pytest.mark.parametrize("outcome", ["nxdomain", "nodata"])
async def test_only_a_server_that_says_so_makes_a_record_absent(outcome: Outcome) -> None:
    assert await said("TXT", "x", Answer(outcome=outcome)) == ("absent", outcome)


SAMPLES: dict[Type, str] = {
    "TXT": "x",
    "CNAME": "x.example",
    "MX": "x.example",
    "A": "192.0.2.1",
    "AAAA": "2001:db8::1",
    "TOKEN": "a" * 26,
    "SPF": "include:x.example",
    "DKIM": "AAAA",
    "DMARC": "reject",
    "CAA": "ca.example",
    "NS": "ns.example",
}


def sample(rdtype: Type) -> Expectation:
    return Expectation(type=rdtype, value=SAMPLES[rdtype], name="x")


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize(
    "reason",
    [
        "servfail",
        "refused",
        "timeout",
        "malformed",
        "lame",
        "unreachable",
        "truncated",
        "cname_loop",
        "notimp",
        "budget",
    ],
)
@pytest.mark.parametrize("rdtype", TYPES)
async def test_a_servers_trouble_is_never_the_domains_fault(rdtype: Type, reason: str) -> None:
    finding = await judge(sample(rdtype).at(NAME), failed(reason), Book().ask)
    assert (finding.verdict, finding.reason) == ("indeterminate", reason)


@pytest.mark.parametrize("rdtype", [rdtype for rdtype in TYPES if rdtype != "CAA"])
async def test_no_record_of_any_type_is_there_where_nothing_is(rdtype: Type) -> None:
    finding = await judge(sample(rdtype).at(NAME), Answer(outcome="nxdomain"), Book().ask)
    assert (finding.verdict, finding.reason) == ("absent", "nxdomain")


async def test_servers_that_say_the_same_are_judged_once() -> None:
    book = Book({("spf.example", "TXT"): "v=spf1 -all"})
    spf = [found("v=spf1 include:spf.example -all", ttl_s=ttl_s) for ttl_s in (1, 2)]
    sighting = Sighting(
        name=NAME, type="TXT", zone=NAME, authorities={"a": spf[0], "b": spf[0]}, resolvers={"c": spf[1]},
        authentic=False, bogus=False, quorum=2,
    )  # fmt: skip
    findings = await judge_all(Expectation(type="SPF", value="include:spf.example").at(NAME), sighting, book.ask)
    assert {server: (finding.verdict, finding.ttl_s) for server, finding in findings.items()} == {
        "a": ("match", 1), "b": ("match", 1), "c": ("match", 2),
    }  # fmt: skip
    assert book.asked.total() == 1


@pytest.mark.parametrize("verdicts", list(itertools.combinations_with_replacement(GRAVEST_FIRST, 3)))
def test_the_gravest_verdict_is_the_domains(verdicts: tuple[Verdict, ...]) -> None:
    expected = (
        "mismatch" if "mismatch" in verdicts
        else "absent" if "absent" in verdicts
        else "indeterminate" if "indeterminate" in verdicts
        else "match"
    )  # fmt: skip
    for order in itertools.permutations(verdicts):
        assert gravest(order) == expected


async def test_a_finding_tells_what_was_wanted_found_and_for_how_long() -> None:
    answer = Answer(outcome="answer", values=("192.0.2.2",), chain=("c.example",), ttl_s=30)
    assert (await finding("A", "192.0.2.1", answer)).as_row() == {
        "type": "A",
        "name": NAME,
        "expected": "192.0.2.1",
        "found": ("192.0.2.2",),
        "verdict": "mismatch",
        "reason": "other_value",
        "chain": ("c.example",),
        "ttl_s": 30,
        "notes": (),
        "facts": {},
        "advice": False,
    }


async def test_a_finding_stays_small_however_much_is_published() -> None:
    small = await finding("TXT", "x", found(*("y" * 60_000 for _ in range(100))))
    assert len(small.found) == 20
    assert {len(value) for value in small.found} == {1024}


async def test_a_record_beyond_what_is_shown_still_matches() -> None:
    long = "z" * 3000
    assert await said("TXT", long, found(*map(str, range(50)), long)) == ("match", "")


@pytest.mark.parametrize(
    ("rdtype", "value", "complaint"),
    [
        ("A", "2001:db8::1", "2001:db8::1"),
        ("A", "192.0.2.256", "256"),
        ("A", "host.example", "host.example"),
        ("AAAA", "192.0.2.1", "192.0.2.1"),
        ("CNAME", "a b", "not a domain name"),
        ("CNAME", "", "not a domain name"),
        ("MX", "", "not an MX"),
        ("MX", "10 mx.example 20", "not an MX"),
        ("MX", "ten mx.example", "not an MX"),
        ("MX", "65536 mx.example", "not an MX"),
        ("MX", "10 a..b", "not a domain name"),
        ("TXT", "  ", "empty"),
        ("TXT", '""', "empty"),
    ],
)
def test_a_value_that_no_record_could_have_is_refused(rdtype: Type, value: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        normal(rdtype, value)
