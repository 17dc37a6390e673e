"""Verdicts: a table of what was wanted, what was found, and what is said of it."""

from __future__ import annotations

import itertools

import pytest

from jobs.dns.answer import Answer, Outcome, failed
from jobs.dns.judge import GRAVEST_FIRST, Finding, Type, Verdict, judge, normal_value, overall

NAME = "example.test"


def found(*values: str) -> Answer:
    return Answer(outcome="answer", values=values, ttl_s=300)


def said(rdtype: Type, expected: str, answer: Answer) -> tuple[Verdict, str]:
    finding = judge(rdtype, NAME, expected, answer)
    return finding.verdict, finding.reason


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
def test_a_record_matches_however_it_is_written(rdtype: Type, expected: str, values: list[str]) -> None:
    assert said(rdtype, expected, found(*values)) == ("match", "")


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
def test_another_record_in_its_place_is_a_mismatch(rdtype: Type, expected: str, values: list[str], reason: str) -> None:
    assert said(rdtype, expected, found(*values)) == ("mismatch", reason)


@pytest.mark.parametrize("outcome", ["nxdomain", "nodata"])
def test_only_a_server_that_says_so_makes_a_record_absent(outcome: Outcome) -> None:
    assert said("TXT", "x", Answer(outcome=outcome)) == ("absent", outcome)


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize(
    "reason",
    ["servfail", "refused", "timeout", "malformed", "lame", "unreachable", "truncated", "cname_loop", "notimp"],
)
@pytest.mark.parametrize("rdtype", ["TXT", "MX"])
def test_a_resolvers_trouble_is_never_the_domains_fault(rdtype: Type, reason: str) -> None:
    assert said(rdtype, "x", failed(reason)) == ("indeterminate", reason)


def of(verdict: Verdict) -> Finding:
    return Finding(type="TXT", name=NAME, expected="x", found=(), verdict=verdict, reason="", chain=(), ttl_s=None)


@pytest.mark.parametrize("verdicts", list(itertools.combinations_with_replacement(GRAVEST_FIRST, 3)))
def test_the_gravest_verdict_is_the_domains(verdicts: tuple[Verdict, ...]) -> None:
    expected = (
        "mismatch" if "mismatch" in verdicts
        else "absent" if "absent" in verdicts
        else "indeterminate" if "indeterminate" in verdicts
        else "match"
    )  # fmt: skip
    for order in itertools.permutations(verdicts):
        assert overall(map(of, order)) == expected


def test_a_finding_tells_what_was_wanted_found_and_for_how_long() -> None:
    answer = Answer(outcome="answer", values=("B.example",), chain=("c.example",), ttl_s=30)
    assert judge("CNAME", NAME, "A.example.", answer).as_row() == {
        "type": "CNAME",
        "name": NAME,
        "expected": "a.example",
        "found": ("B.example",),
        "verdict": "mismatch",
        "reason": "other_value",
        "chain": ("c.example",),
        "ttl_s": 30,
    }


def test_a_finding_stays_small_however_much_is_published() -> None:
    finding = judge("TXT", NAME, "x", found(*("y" * 60_000 for _ in range(100))))
    assert len(finding.found) == 20
    assert {len(value) for value in finding.found} == {1024}


def test_a_record_beyond_what_is_shown_still_matches() -> None:
    long = "z" * 3000
    assert said("TXT", long, found(*map(str, range(50)), long)) == ("match", "")


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
        normal_value(rdtype, value)
