"""DMARC: which record counts (the walk up the tree), and whether its policy is strict enough."""

from __future__ import annotations

import pytest

from jobs.dns.answer import Answer, failed
from jobs.dns.records.dmarc import is_record, targets
from jobs.dns.values import normal
from tests.jobs.dns.book import Book

RUA = "rua=mailto:d@x.example"


async def said(
    policies: dict[str, str | list[str]], required: str = "quarantine", domain: str = "a.mail.shop.example"
) -> tuple[str, str]:
    finding = await tree(policies).judge("DMARC", required, domain=domain)
    return finding.verdict, finding.reason


def tree(policies: dict[str, str | list[str]]) -> Book:
    """domain → its DMARC records; all domains on the way exist."""
    book = Book({(f"_dmarc.{domain}", "TXT"): records for domain, records in policies.items()})
    book.put("a.mail.shop.example", "A", "192.0.2.1")
    return book


OWN = "a.mail.shop.example"


@pytest.mark.parametrize(
    ("record", "required", "expected"),
    [
        ("v=DMARC1; p=quarantine", "quarantine", ("match", "")),
        ("v=DMARC1; p=reject", "quarantine", ("match", "")),
        ("v=DMARC1;p=REJECT;", "reject", ("match", "")),
        (" v = DMARC1 ; p = reject", "reject", ("match", "")),
        ("v=DMARC1; unknown=1; ;; rua=mailto:x; p=reject", "reject", ("match", "")),
        ("v=DMARC1; p=none", "none", ("match", "")),
        (f"v=DMARC1; {RUA}", "none", ("match", "")),
        ("v=DMARC1", "none", ("match", "")),
        ("v=DMARC1; p=none; sp=reject", "quarantine", ("mismatch", "weak_policy")),
        ("v=DMARC1; p=quarantine", "reject", ("mismatch", "weak_policy")),
        (f"v=DMARC1; {RUA}", "quarantine", ("mismatch", "weak_policy")),
        ("v=DMARC1; p=reject; t=y", "reject", ("mismatch", "testing")),
        ("v=DMARC1; p=none; t=y", "none", ("match", "")),
        ("v=DMARC1; p=rejcet", "quarantine", ("mismatch", "invalid_policy")),
        (f"v=DMARC1; p=rejcet; {RUA}", "none", ("match", "")),
        (f"v=DMARC1; p=rejcet; {RUA}", "reject", ("mismatch", "weak_policy")),
        ("v=dmarc1; p=reject", "none", ("absent", "no_record")),
        ("v=DMARC10; p=reject", "none", ("absent", "no_record")),
        ("p=reject; v=DMARC1", "none", ("absent", "no_record")),
        ('"v=DMARC1; p=reject"', "none", ("mismatch", "quoted")),
    ],
)
async def test_the_domains_own_record(record: str, required: str, expected: tuple[str, str]) -> None:
    assert await said({OWN: record}, required) == expected


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ({"shop.example": "v=DMARC1; p=reject"}, ("match", "")),
        ({"shop.example": "v=DMARC1; p=reject; sp=none"}, ("mismatch", "weak_policy")),
        ({"shop.example": "v=DMARC1; p=none; sp=reject"}, ("match", "")),
        ({"shop.example": "v=DMARC1; p=reject; np=none"}, ("match", "")),
        ({"mail.shop.example": "v=DMARC1; p=reject", "shop.example": "v=DMARC1; p=none"}, ("mismatch", "weak_policy")),
        ({"mail.shop.example": "v=DMARC1; p=reject; psd=n", "shop.example": "v=DMARC1; p=none"}, ("match", "")),
        ({"example": "v=DMARC1; p=reject; psd=y"}, ("match", "")),
        ({"shop.example": "v=DMARC1; p=none", "example": "v=DMARC1; p=reject; psd=y"}, ("mismatch", "weak_policy")),
        ({"mail.shop.example": "v=DMARC1; p=none", "example": "v=DMARC1; p=reject; psd=y"}, ("match", "")),
        ({OWN: "v=DMARC1; p=none", "shop.example": "v=DMARC1; p=reject"}, ("mismatch", "weak_policy")),
        ({OWN: ["v=DMARC1; p=reject", "v=DMARC1; p=reject"]}, ("mismatch", "several_records")),
        ({OWN: ["v=DMARC1; p=none", "v=DMARC1; p=none"], "shop.example": "v=DMARC1; p=reject"}, ("match", "")),
        ({"shop.example": ["v=DMARC1; p=reject", "v=DMARC1; p=none"]}, ("mismatch", "several_records")),
        ({"shop.example": "v=DMARC1; p=reject; sp=rejcet"}, ("mismatch", "invalid_policy")),
        ({}, ("absent", "nxdomain")),
    ],
)
async def test_the_walk_up_finds_the_record_that_counts(
    policies: dict[str, str | list[str]], expected: tuple[str, str]
) -> None:
    assert await said(policies) == expected


async def test_a_domain_that_does_not_exist_has_a_policy_of_its_own() -> None:
    record: dict[str, str | list[str]] = {"shop.example": "v=DMARC1; p=none; sp=none; np=reject"}
    assert await said(record, "reject", "gone.shop.example") == ("match", "")
    assert await said(record, "reject") == ("mismatch", "weak_policy")
    finding = await tree(record).judge("DMARC", "reject", domain="gone.shop.example")
    assert finding.facts == {"at": "shop.example", "tag": "np", "policy": "reject"}


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize(
    "failing", [("_dmarc.shop.example", "TXT"), ("_dmarc.example", "TXT"), ("gone.shop.example", "A")]
)
async def test_a_walk_that_cannot_be_finished_decides_nothing(failing: tuple[str, str]) -> None:
    book = tree({"shop.example": "v=DMARC1; p=reject; np=none"})
    book.answers[failing] = failed("timeout")
    finding = await book.judge("DMARC", "reject", domain="gone.shop.example")
    assert (finding.verdict, finding.reason) == ("indeterminate", "timeout")


async def test_existence_is_asked_for_only_where_it_matters() -> None:
    book = tree({"shop.example": "v=DMARC1; p=reject; np=reject"})
    await book.judge("DMARC", "reject", domain=OWN)
    assert (OWN, "A") not in book.asked


async def test_its_own_record_ends_the_walk() -> None:
    book = tree({OWN: "v=DMARC1; p=reject"})
    await book.judge("DMARC", "reject", domain=OWN)
    assert book.asked.total() == 0


def test_a_walk_asks_eight_times_at_most() -> None:
    assert targets("a.mail.shop.example") == ["a.mail.shop.example", "mail.shop.example", "shop.example", "example"]
    deep = "a.b.c.d.e.f.g.h.i.j.mail.shop.example"
    assert targets(deep)[:3] == [deep, "g.h.i.j.mail.shop.example", "h.i.j.mail.shop.example"]
    assert targets(deep)[-1] == "example"
    assert [len(targets(".".join("a" * labels))) for labels in (1, 2, 7, 8, 9, 60)] == [1, 2, 7, 8, 8, 8]
    assert targets("a.b.c.d.e.f.g.h")[1] == "b.c.d.e.f.g.h"


async def test_several_records_at_home_are_told_beside_the_match() -> None:
    finding = await tree({OWN: ["v=DMARC1; p=none"] * 2, "shop.example": "v=DMARC1; p=reject"}).judge(
        "DMARC", "reject", domain=OWN
    )
    assert finding.found == ("v=DMARC1; p=reject",)
    assert "several DMARC records" in finding.notes[0]


async def test_what_old_receivers_make_of_it_is_told() -> None:
    finding = await tree({OWN: "v=DMARC1; pct=20"}).judge("DMARC", "none", domain=OWN)
    assert [note.partition(" ")[0] for note in finding.notes] == ["pct=20", "p="]


@pytest.mark.parametrize("value", ["reject", "p=reject", "v=DMARC1; p=Reject; rua=mailto:x", " REJECT "])
def test_a_policy_may_be_given_alone_or_as_a_record(value: str) -> None:
    assert normal("DMARC", value) == "p=reject"


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="quarantine"):
        normal("DMARC", "strict")


def test_only_the_version_decides_what_a_record_is() -> None:
    assert is_record("v=DMARC1")
    assert not is_record("DMARC1; p=none")


async def test_an_error_at_home_is_no_walk() -> None:
    book = tree({"shop.example": "v=DMARC1; p=reject"})
    book.put(f"_dmarc.{OWN}", "TXT", Answer(outcome="error", reason="servfail"))
    assert (await book.judge("DMARC", "reject", domain=OWN)).verdict == "indeterminate"
    assert book.asked.total() == 0
