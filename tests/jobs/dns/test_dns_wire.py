"""What strangers send us is read, or refused, and never more than that."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.dns import published, referral
from jobs.dns.answer import Answer, read
from jobs.dns.delegation import Cut, depth, parent, within
from jobs.dns.exchange import decoded
from jobs.dns.question import Question, packed


def _sets(*lines: str) -> list[dns.rrset.RRset]:
    parts = (line.split(None, 4) for line in lines)
    return [dns.rrset.from_text(owner, int(ttl), "IN", kind, value) for owner, ttl, _, kind, value in parts]


NAME, ZONE = "_token.shop.test", "shop.test"
RECORDS = _sets(
    f'{NAME}. 60 IN TXT "token=1" "\\255\\000"',
    f"{NAME}. 60 IN CNAME x.{ZONE}.",
    f"x.{ZONE}. 60 IN CNAME {NAME}.",
    f"{ZONE}. 60 IN NS ns1.{ZONE}.",
    f"sub.{ZONE}. 60 IN NS ns1.sub.{ZONE}.",
    "test. 60 IN NS a.nic.test.",
    f"{ZONE}. 60 IN SOA ns1.{ZONE}. root.{ZONE}. 1 2 3 4 5",
    "test. 60 IN SOA a.nic.test. root.test. 1 2 3 4 5",
    f"ns1.{ZONE}. 60 IN A 192.0.2.1",
    f"ns1.{ZONE}. 60 IN AAAA 2001:db8::1",
)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Any of those records in any section, with any flags; and then perhaps some octets changed."""
    query = dns.message.make_query(NAME, draw(st.sampled_from(["TXT", "SOA", "NS", "A"])), use_edns=0)
    reply = dns.message.make_response(query)
    reply.flags |= draw(st.sampled_from([0, dns.flags.AA]))
    reply.set_rcode(draw(st.sampled_from([dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL])))
    for section in (reply.answer, reply.authority, reply.additional):
        section += draw(st.lists(st.sampled_from(RECORDS), max_size=4))
    wire = bytearray(reply.to_wire())
    for at, octet in draw(st.lists(st.tuples(st.integers(4, len(wire) - 1), st.integers(0, 255)), max_size=3)):
        wire[at] = octet
    return bytes(wire)


@given(replies())
def test_any_reply_has_a_meaning_or_none(wire: bytes) -> None:
    try:
        reply = decoded(wire)
    except dns.exception.DNSException:
        return
    for answer in (read(reply), published.read(reply, NAME, "TXT", ZONE)):
        assert isinstance(answer, Answer)
        assert bool(answer.reason) == (answer.outcome == "error")
        assert bool(answer.values) == (answer.outcome == "answer")
        assert not answer.dangling or answer.chain
    found = referral.meaning(reply, NAME, ZONE)
    match found:
        case Cut(zone=zone):
            assert within(zone, ZONE)
            assert within(NAME, zone)
            assert zone != ZONE
            assert all(within(host, ZONE) for host, addresses in found.hosts.items() if addresses)
        case referral.Inside(zone):
            assert within(NAME, zone)
            assert within(zone, ZONE)
        case Answer():
            assert found.outcome == "error"


@given(st.binary(max_size=100))
def test_what_fits_our_question_has_our_id_and_our_letters(noise: bytes) -> None:
    sent = packed(Question(NAME, "TXT"), 1232).sent(keeps_case=True)
    assert sent.fit(noise) == "no"
    good = dns.message.make_response(dns.message.from_wire(sent.wire)).to_wire()
    assert sent.fit(good) == "yes"
    assert sent.fit(good + noise) == "yes"
    assert sent.fit(sent.wire) == "no"  # our own question, come back
    other = bytes([good[0] ^ 1]) + good[1:]
    assert sent.fit(other) == "no"


@pytest.mark.parametrize(
    ("rcode", "fits"), [("SERVFAIL", "yes"), ("REFUSED", "yes"), ("NOERROR", "no"), ("NXDOMAIN", "no")]
)
def test_only_a_failure_may_leave_the_question_out(rcode: str, fits: str) -> None:
    sent = packed(Question(NAME, "TXT"), None).sent(keeps_case=True)
    reply = dns.message.make_response(dns.message.from_wire(sent.wire))
    reply.question = []
    reply.set_rcode(dns.rcode.from_text(rcode))
    assert sent.fit(reply.to_wire()) == fits


def test_the_same_words_of_two_servers_are_read_once() -> None:
    plain = set()
    for _ in range(5):
        sent = packed(Question(NAME, "TXT"), 1232).sent(keeps_case=True)
        reply = dns.message.make_response(dns.message.from_wire(sent.wire))
        reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "TXT", '"token=1"'))
        plain.add(sent.plain(reply.to_wire()))
    assert len(plain) == 1
    assert published.read(dns.message.from_wire(plain.pop()), NAME, "TXT", ZONE).reason == "lame"


@pytest.mark.parametrize(
    ("name", "zone", "is_within"),
    [
        ("a.b", "b", True),
        ("b", "b", True),
        ("b", ".", True),
        (".", ".", True),
        ("ab", "b", False),
        ("b", "a.b", False),
        (".", "b", False),
        ("a\\.b", "b", False),  # one label with a dot in it
    ],
)
def test_a_name_lies_in_the_zones_above_it(name: str, zone: str, is_within: bool) -> None:
    assert within(name, zone) is is_within


def test_the_root_is_above_everything() -> None:
    assert [parent("a.b"), parent("b"), parent(".")] == ["b", ".", "."]
    assert [depth("."), depth("b"), depth("a.b")] == [0, 1, 2]
