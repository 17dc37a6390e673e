"""SPF: what is right, what is wrong and where, and what nobody could judge."""

from __future__ import annotations

import pytest

from jobs.dns.answer import Answer
from tests.jobs.dns.book import DOMAIN, Book, found

US = "include:spf.us.example"

Zone = dict[tuple[str, str], Answer | str | list[str]]


def zone(spf: str | list[str], **others: str | list[str]) -> Book:
    """The SPF records of the domain and of `a__example` (a.example) and others; ours is always there."""
    records: Zone = {(DOMAIN, "TXT"): spf, ("spf.us.example", "TXT"): "v=spf1 ip4:192.0.2.0/24 -all"}
    records |= {(name.replace("__", "."), "TXT"): text for name, text in others.items()}
    return Book(records)


async def said(book: Book, value: str = US) -> tuple[str, str]:
    finding = await book.judge("SPF", value)
    return finding.verdict, finding.reason


@pytest.mark.parametrize(
    ("value", "spf", "others"),
    [
        (US, "v=spf1 include:spf.us.example -all", {}),
        (US, "V=SPF1  +INCLUDE:SPF.us.Example.  ~all", {}),
        (US, "v=spf1 redirect=spf.us.example", {}),
        (US, "v=spf1 redirect=a.example", {"a__example": "v=spf1 include:spf.us.example ?all"}),
        (US, "v=spf1 include:a.example -all", {"a__example": "v=spf1 include:b.example", "b__example": f"v=spf1 {US}"}),
        (US, "v=spf1 redirect=a.example mx:m.example", {"a__example": f"v=spf1 {US}", "m__example": "x"}),
        (US, ["google-site=1", "v=spf1 include:spf.us.example -all", "v=spf10 x"], {}),
        (US, "v=spf1 exp=%{i}.x.example unknown=1 include:spf.us.example exists:%{i}.x.example ptr -all", {}),
        ("ip4:192.0.2.7", "v=spf1 include:spf.us.example -all", {}),
        ("ip4:192.0.2.0/25", "v=spf1 ip4:192.0.2.0/24 -all", {}),
        ("ip4:192.0.2.0/24", "v=spf1 ip4:192.0.2.99/24", {}),
        ("ip6:2001:DB8::1", "v=spf1 ip6:2001:db8::/32 -all", {}),
    ],
)  # fmt: skip
async def test_ours_is_allowed_anywhere_in_the_tree(value: str, spf: str | list[str], others: dict[str, str]) -> None:
    assert await said(zone(spf, **others), value) == ("match", "")


@pytest.mark.parametrize(
    ("value", "spf", "reason"),
    [
        (US, "v=spf1 -all", "not_included"),
        (US, "v=spf1", "not_included"),
        (US, "v=spf1 include:other.example -all", "not_included"),
        (US, "v=spf1 +all", "not_included"),
        (US, "v=spf1 -include:spf.us.example -all", "not_allowing"),
        (US, "v=spf1 ~include:a.example -all", "not_allowing"),
        (US, "v=spf1 -all include:spf.us.example", "after_all"),
        (US, "v=spf1 redirect=spf.us.example -all", "after_all"),
        (US, "v=spf1 include:spf.us.example includ:x.example", "syntax"),
        (US, "v=spf1 include:spf.us.example ip4:192.0.2.256", "syntax"),
        (US, "v=spf1 include:spf.us.example redirect=a.example redirect=b.example", "syntax"),
        (US, "v=spf1 include:spf.us.example include:void.example", "broken_include"),
        (US, "v=spf1 include:spf.us.example include:two.example", "broken_include"),
        (US, "v=spf1 include:spf.us.example include:plain.example", "broken_include"),
        (US, "v=spf1 include:spf.us.example redirect=void.example", "broken_include"),
        (US, "v=spf1 include:spf.us.example include:wrong.example", "syntax"),
        (US, "v=spf1 include:spf.us.example include:loop.example", "include_loop"),
        (US, f"v=spf1 include:spf.us.example include:{DOMAIN}", "include_loop"),
        ("ip4:192.0.2.0/23", "v=spf1 include:spf.us.example -all", "not_included"),
        ("ip4:198.51.100.1", "v=spf1 -ip4:198.51.100.1 -all", "not_allowing"),
        ("ip4:198.51.100.1", "v=spf1 all ip4:198.51.100.1", "after_all"),
        ("ip6:2001:db8::1", "v=spf1 ip4:192.0.2.0/24", "not_included"),
    ],
)
async def test_what_is_wrong_is_named(value: str, spf: str, reason: str) -> None:
    book = zone(
        spf,
        other__example="v=spf1 -all",
        a__example="v=spf1 include:spf.us.example",
        two__example=["v=spf1 -all", "v=spf1 +all"],
        plain__example="hello",
        wrong__example="v=spf1 ip4:1.2.3",
        loop__example="v=spf1 include:loop2.example",
        loop2__example="v=spf1 include:loop.example",
    )
    assert await said(book, value) == ("mismatch", reason)


@pytest.mark.parametrize(
    ("texts", "verdict", "reason"),
    [
        (["hello", "v=spf10 -all"], "absent", "no_record"),
        (["v=spf1 -all", "v=spf1 include:spf.us.example"], "mismatch", "several_records"),
        (['"v=spf1 include:spf.us.example -all"'], "mismatch", "quoted"),
        ([" v=spf1 include:spf.us.example"], "absent", "no_record"),
    ],
)
async def test_there_must_be_one_record_and_only_one(texts: list[str], verdict: str, reason: str) -> None:
    assert await said(zone(texts)) == (verdict, reason)


@pytest.mark.parametrize("count", [9, 10, 11])
@pytest.mark.parametrize("term", ["include:n{}.example", "a:n{}.example", "mx:n{}.example", "exists:n{}.example"])
async def test_ten_lookups_are_allowed_and_no_more(count: int, term: str) -> None:
    book = zone(f"v=spf1 {US} {' '.join(term.format(n) for n in range(count - 1))} -all")
    for n in range(count):
        for rdtype, value in (("TXT", "v=spf1 -all"), ("A", "192.0.2.1"), ("MX", "10 mx.example")):
            book.put(f"n{n}.example", rdtype, value)
    finding = await book.judge("SPF", US)
    assert finding.facts["lookups"] == count
    if count <= 10:
        assert (finding.verdict, finding.facts["complete"]) == ("match", True)
    else:
        assert (finding.verdict, finding.reason, finding.facts["complete"]) == ("mismatch", "too_many_lookups", False)
        assert finding.facts["path"] == [DOMAIN, "spf.us.example"], "what was found before the limit is told"


async def test_ptr_and_redirect_count_and_all_and_addresses_do_not() -> None:
    book = zone("v=spf1 ptr ip4:192.0.2.1 ip6:2001:db8::1 exp=x.example redirect=spf.us.example")
    finding = await book.judge("SPF", US)
    assert (finding.verdict, finding.facts["lookups"]) == ("match", 2)
    assert any("ptr" in note for note in finding.notes)


async def test_a_record_included_twice_counts_twice_and_is_asked_for_once() -> None:
    book = zone(f"v=spf1 include:a.example include:a.example {US} -all", a__example="v=spf1 a:h.example -all")
    book.put("h.example", "A", "192.0.2.1")
    finding = await book.judge("SPF", US)
    assert finding.facts["lookups"] == 5
    assert book.asked["a.example", "TXT"] == book.asked["h.example", "A"] == 1


@pytest.mark.parametrize("term", ["a:void{}.example", "mx:void{}.example", "exists:void{}.example"])
async def test_two_lookups_may_find_nothing_and_no_more(term: str) -> None:
    two = await zone(f"v=spf1 {term.format(1)} {term.format(2)} {US} -all").judge("SPF", US)
    assert (two.verdict, two.facts["voids"]) == ("match", 2)
    three = await zone(f"v=spf1 {term.format(1)} {term.format(2)} {US} {term.format(3)} -all").judge("SPF", US)
    assert (three.verdict, three.reason, three.facts["voids"]) == ("mismatch", "too_many_voids", 3)


async def test_a_host_with_ipv6_alone_is_no_void() -> None:
    book = zone(f"v=spf1 a:six.example a:six.example a:six.example {US} -all")
    book.put("six.example", "AAAA", "2001:db8::1")
    assert (await book.judge("SPF", US)).facts["voids"] == 0


async def test_an_mx_of_more_than_ten_servers_is_a_permerror() -> None:
    book = zone(f"v=spf1 mx:big.example {US} -all")
    book.put("big.example", "MX", [f"10 mx{n}.example" for n in range(10)])
    assert await said(book) == ("match", "")
    book.put("big.example", "MX", [f"10 mx{n}.example" for n in range(11)])
    assert await said(book) == ("mismatch", "too_many_mx")


@pytest.mark.parametrize(
    ("term", "value", "verdict"),
    [
        ("a:host.example", "ip4:192.0.2.9", "match"),
        ("a:host.example/24", "ip4:192.0.2.200", "match"),
        ("a:host.example", "ip4:192.0.2.200", "mismatch"),
        ("a:host.example//64", "ip6:2001:db8::77", "match"),
        ("a:host.example", "ip6:2001:db8::77", "mismatch"),
        ("mx:mail.example", "ip4:192.0.2.9", "match"),
        ("mx:mail.example/28//64", "ip6:2001:db8::77", "match"),
        ("a/24", "ip4:203.0.113.1", "match"),
        ("mx", "ip4:203.0.113.1", "mismatch"),
    ],
)
async def test_addresses_are_allowed_by_name_too(term: str, value: str, verdict: str) -> None:
    book = Book(
        {
            (DOMAIN, "TXT"): f"v=spf1 {term} -all",
            (DOMAIN, "A"): "203.0.113.99",
            (DOMAIN, "MX"): "0 .",
            ("host.example", "A"): "192.0.2.9",
            ("host.example", "AAAA"): "2001:db8::9",
            ("mail.example", "MX"): "10 host.example",
        }
    )
    assert (await said(book, value))[0] == verdict


@pytest.mark.req("BJ-20")
@pytest.mark.parametrize("reason", ["servfail", "timeout", "budget"])
async def test_a_record_that_cannot_be_read_decides_nothing(reason: str) -> None:
    book = zone("v=spf1 include:a.example -all")
    book.fail("a.example", "TXT", reason)
    assert await said(book) == ("indeterminate", reason)
    book.put(DOMAIN, "TXT", f"v=spf1 include:a.example {US} -all")
    finding = await book.judge("SPF", US)
    assert (finding.verdict, finding.facts["complete"]) == ("match", False)
    assert finding.notes == (f"the record of a.example could not be read ({reason})",)


async def test_an_address_that_cannot_be_looked_up_hides_an_address_and_no_include() -> None:
    book = zone("v=spf1 a:h.example mx:m.example -all")
    book.fail("h.example", "A")
    book.put("m.example", "MX", "10 h.example")
    assert await said(book, "ip4:192.0.2.1") == ("indeterminate", "servfail")
    assert await said(book, US) == ("mismatch", "not_included")


@pytest.mark.parametrize(
    ("spf", "value", "expected"),
    [
        ("v=spf1 include:%{d}.spf.example -all", US, ("indeterminate", "macro")),
        ("v=spf1 redirect=%{l}.spf.example", US, ("indeterminate", "macro")),
        ("v=spf1 exists:%{i}.spf.example -all", US, ("mismatch", "not_included")),
        ("v=spf1 exists:%{i}.spf.example -all", "ip4:192.0.2.1", ("indeterminate", "macro")),
        ("v=spf1 a:%{s}.spf.example -all", "ip4:192.0.2.1", ("indeterminate", "macro")),
        ("v=spf1 ptr -all", "ip4:192.0.2.1", ("indeterminate", "macro")),
        ("v=spf1 ptr -all", US, ("mismatch", "not_included")),
        ("v=spf1 include:%{d}.spf.example include:spf.us.example -all", US, ("match", "")),
        ("v=spf1 include:%{q}.spf.example include:spf.us.example -all", US, ("mismatch", "syntax")),
    ],
)
async def test_what_depends_on_the_message_cannot_be_judged(spf: str, value: str, expected: tuple[str, str]) -> None:
    assert await said(zone(spf), value) == expected


async def test_a_record_open_to_everybody_is_told() -> None:
    finding = await zone(f"v=spf1 {US} +all").judge("SPF", US)
    assert finding.verdict == "match"
    assert any("everybody" in note for note in finding.notes)


async def test_a_domain_that_does_not_exist_has_no_spf() -> None:
    finding = await Book().judge("SPF", US)
    assert (finding.verdict, finding.reason) == ("absent", "nxdomain")


async def test_no_more_is_asked_than_the_limits_allow_however_wide_the_tree() -> None:
    names = [f"n{n}.example" for n in range(400)]
    book = zone("v=spf1 " + " ".join(f"include:{name}" for name in names))
    for name in names:
        book.put(name, "TXT", "v=spf1 " + " ".join(f"include:{other}" for other in names))
    await book.judge("SPF", US)
    assert book.asked.total() <= 30


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("spf.us.example", "nothing SPF could allow"),
        ("include:", "not a domain name"),
        ("ip4:192.0.2.1/24", "host bits"),
        ("ip4:2001:db8::1", "ip4|2001"),
        ("ip6:192.0.2.1", "192"),
        ("all", "nothing SPF could allow"),
    ],
)
async def test_what_spf_cannot_say_is_refused(value: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        await Book().judge("SPF", value)


async def test_a_record_of_thousands_of_terms_keeps_nobody_waiting() -> None:
    huge = " ".join(["v=spf1", *(f"ip4:10.0.{n % 256}.1" for n in range(4000)), US])
    assert await said(zone(huge)) == ("indeterminate", "too_large")
    finding = await zone(f"v=spf1 {US} include:huge.example", huge__example=huge).judge("SPF", US)
    assert (finding.verdict, finding.facts["complete"]) == ("match", False)


async def test_found_is_the_record_as_published() -> None:
    book = zone([f"v=spf1 {US} -all", "other"])
    assert (await book.judge("SPF", US)).found == tuple(found(f"v=spf1 {US} -all", "other").values)
