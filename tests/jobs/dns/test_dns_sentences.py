"""The sentences that owners of domains read."""

from __future__ import annotations

import pytest

from jobs.dns.conclusion import check
from jobs.dns.expectation import Expectation, Type
from jobs.dns.sighting import Sighting
from tests.jobs.dns.book import DOMAIN, Book
from tests.jobs.dns.crowd import NOW, concluded, sighting

IT = "the TXT record of _t.shop.example"


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize(
    ("authorities", "resolvers", "text"),
    [
        (
            ["match", "match"],
            ["match", "match", "nxdomain:300"],
            "The TXT record of _t.shop.example is right on ns1.dns.example and ns2.dns.example, and 2 of 3 resolvers "
            "see it. Some resolvers (r3) still have an older answer until 2026-03-04 12:05 UTC.",
        ),
        (
            ["match", "match"],
            ["nxdomain:300", "nxdomain:60", "servfail"],
            "The TXT record of _t.shop.example is right on your name servers and spreading; visible everywhere by "
            "2026-03-04 12:05 UTC.",
        ),
        (
            ["match", "nxdomain", "timeout"],
            [],
            f"Your name servers disagree about {IT}: ns2.dns.example lacks it, while ns1.dns.example has it. The name "
            "server ns3.dns.example did not answer.",
        ),
        (
            ["match", "other", "match"],
            [],
            f"Your name servers disagree about {IT}: ns2.dns.example has another value, while ns1.dns.example and "
            "ns3.dns.example have it.",
        ),
        (["other"], [], "The TXT record of _t.shop.example is not as it should be: expected “right”, found “wrong”."),
        (
            ["nodata", "other"],
            [],
            "The TXT record of _t.shop.example is not as it should be: expected “right”, found “wrong”. Of your name "
            "servers, ns1.dns.example lacks it and ns2.dns.example has another value.",
        ),
        (
            ["nxdomain", "nxdomain"],
            ["match", "match"],
            "The TXT record of _t.shop.example is not there (the name does not exist); expected “right”.",
        ),
        (
            ["timeout", "refused"],
            ["match", "match", "match"],
            f"Resolvers see {IT} as it should be. The name server ns1.dns.example did not answer and ns2.dns.example "
            "refused to answer (REFUSED).",
        ),
        (
            [],
            ["nodata", "nodata"],
            f"As resolvers see it, {IT} is not there (the name has no record of this type); expected “right”. None of "
            "your name servers could be found.",
        ),
        (
            ["nxdomain", "servfail"],
            ["servfail", "servfail"],
            f"About {IT} no answer is certain: ns1.dns.example lacks it. The name server ns2.dns.example answered with "
            "a failure (SERVFAIL). This is not held against the domain, and is looked at again.",
        ),
        (
            ["timeout"],
            ["match", "nxdomain", "timeout"],
            f"Too few resolvers agree about {IT}: 1 see it as it should be, 1 do not, 1 could not tell. This is not "
            "held against the domain, and is looked at again.",
        ),
        (
            ["lame"],
            ["blocked", "notimp"],
            f"Nobody could say anything about {IT}: ns1.dns.example does not know the zone (lame delegation), r1 has "
            "an address that must not be asked and r2 answered with notimp. This is not held against the domain, and "
            "is looked at again.",
        ),
    ],
)
def test_each_state_has_its_sentence(authorities: list[str], resolvers: list[str], text: str) -> None:
    assert concluded(sighting(authorities, resolvers)).text == text


def test_broken_dnssec_says_what_to_do() -> None:
    text = concluded(sighting(["timeout"], ["servfail", "servfail"], bogus=True)).text
    assert text.startswith("The DNSSEC of shop.example is broken: resolvers that check signatures refuse")
    assert "DS record at your registrar" in text
    absent = concluded(sighting(["nxdomain"], ["servfail"], bogus=True)).text
    assert absent.endswith("expected “right”. Besides, its DNSSEC is broken.")


@pytest.mark.parametrize(
    ("rdtype", "value", "records", "part"),
    [
        ("SPF", "include:us.example", "v=spf1 -all", "nothing in it allows include:us.example (expected “include:us"),
        ("SPF", "include:us.example", "v=spf1 a:%{", "the SPF record at shop.example cannot be read: 'a:%{' names no"),
        (
            "SPF",
            "include:us.example",
            "v=spf1 include:a.example",
            "include:a.example leads to a.example, which has no SPF",
        ),
        ("SPF", "include:us.example", ["v=spf1", "v=spf1 -all"], "several such records where only one may be"),
        ("SPF", "include:us.example", "hello", "is not there (other records stand under its name, but not this one)"),
        (
            "MX",
            "us.example",
            "0 .",
            "the domain says that it takes no mail (a null MX) (expected “us.example”, found “0 .”)",
        ),
        ("A", "192.0.2.1", ["a", "b", "c", "d", "e"], "found “a”, “b”, “c” and 2 more"),
        ("TXT", "x", "y" * 500, f"found “{'y' * 40}…{'y' * 40}”"),
        ("TXT", "x", "{expected} {0}", "found “{expected} {0}”"),
        ("CAA", "ca.example", '0 issue "a.example"', "the CAA records at shop.example do not allow ca.example"),
    ],
)
async def test_what_was_expected_stands_beside_what_was_found(
    rdtype: Type, value: str, records: str | list[str], part: str
) -> None:
    wanted = Expectation(type=rdtype, value=value).at(DOMAIN)
    book = Book({wanted.question: records})
    answers = {"ns1 (192.0.2.1)": book.look_up(*wanted.question)}
    seen = Sighting(
        name=wanted.name, type=wanted.rdtype, zone=DOMAIN, authorities=answers, resolvers={},
        authentic=False, bogus=False, quorum=2,
    )  # fmt: skip
    assert part in (await check(wanted, seen, book.ask, NOW)).text
