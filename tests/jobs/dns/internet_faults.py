"""What may be wrong with a server: each fault turns a good reply into what such a server would send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from daemon.demo_nameserver import Transport, fitted
from daemon.demo_zone import soa

Fault = Literal[
    "servfail", "refused", "notimp", "formerr",  # the RCODE
    "formerr_edns",  # FORMERR to whatever has EDNS, right answers to what has not
    "silent",  # no reply at all
    "silent_udp",  # only TCP is answered
    "silent_to_edns",  # as behind a firewall that drops what it does not know
    "slow",  # the right answer, `Server.delay_s` later
    "wrong_id", "wrong_question", "garbage",  # replies that fit no question
    "forged_first",  # a reply with a wrong id and a wrong record, then the true one
    "truncated",  # TC over UDP, the whole over TCP
    "cut_off",  # TC over UDP, and TCP closes without a word
    "tcp_silent",  # TC over UDP, and TCP takes the question and says nothing
    "lame",  # refers to the root, as a server does that has never heard of the zone
    "referral_to_itself",  # refers to the very zone that it was asked as a server of
    "not_authoritative",  # the right records from a cache of its own: no AA
    "nxdomain", "nodata",  # with the zone's SOA
    "nxdomain_without_soa",
    "cname_to_itself", "cname_circle", "cname_endless",  # but who asks for the CNAME itself gets the right one
    "case_lowered",  # the question comes back in lower case
    "case_lowered_tcp_shut",  # and TCP closes without a word
    "no_question",  # the question does not come back
    "answer_and_nxdomain",  # contradicts itself
    "extra_records",  # records of somebody else's names beside the right ones
    "root_denies",  # NXDOMAIN in the name of the root, as of a server that has lost the zone and answers for all others
    "everything_is_a_zone",  # a denial by which each name is a zone of its own
    "cut_over_tcp",  # TC over UDP, and TC with an empty answer over TCP
]  # fmt: skip

FAULTS: tuple[Fault, ...] = get_args(Fault)
DENIALS: frozenset[Fault] = frozenset({"nxdomain", "nodata", "nxdomain_without_soa", "everything_is_a_zone"})
"""With these a server says that there is no such record: an authoritative one lacks it then, for all the world."""

ALONE = frozenset({"servfail", "refused", "notimp", "formerr", "silent", "nxdomain", "nodata", "nxdomain_without_soa"})
"""Faults of a server that does not even look: a resolver with one of them asks nobody and remembers nothing."""


class Which(TypedDict, total=False):
    """The questions that a fault concerns: of this name, of this type, only so many, only ours or the resolvers'."""

    name: str
    type: str
    times: int
    by: Literal["us", "resolvers"]


@dataclass(slots=True)
class Trouble:
    """A fault, and how many more questions it concerns (None: all)."""

    fault: Fault
    which: Which
    left: int | None

    def concerns(self, question: dns.rrset.RRset, by: str) -> bool:
        which = self.which
        return (
            self.left != 0
            and ("name" not in which or dns.name.from_text(which["name"]) == question.name)
            and ("type" not in which or dns.rdatatype.from_text(which["type"]) == question.rdtype)
            and ("by" not in which or (which["by"] == "us") == (by == "us"))
        )


@dataclass(slots=True)
class Troubles:
    """Of one server; the one that came last counts first."""

    all: list[Trouble] = field(default_factory=list)

    def begin(self, fault: Fault, which: Which) -> None:
        self.all.append(Trouble(fault, which, which.get("times")))

    def end(self) -> None:
        self.all.clear()

    def of(self, question: dns.rrset.RRset, by: str) -> Fault | None:
        for trouble in reversed(self.all):
            if trouble.concerns(question, by):
                if trouble.left is not None:
                    trouble.left -= 1
                return trouble.fault
        return None


def replies(
    fault: Fault | None,
    query: dns.message.Message,
    right: Callable[[dns.message.Message], dns.message.Message],
    transport: Transport,
    origin: str,
) -> list[bytes]:
    """What goes over the wire, in order; `right` makes the right reply, and is not asked where none is needed."""
    good = dns.message.make_response(query) if fault in ALONE else right(query)
    bad = broken(fault, query, good, transport, origin)
    if bad is None:
        return []
    if isinstance(bad, bytes):
        return [bad]
    found = [fitted(bad, query, transport)]
    if fault == "forged_first":
        forged = dns.message.make_response(query)
        forged.id ^= 1
        question = query.question[0]
        forged.answer = [dns.rrset.from_text(question.name, 1, "IN", "TXT", '"forged"')]
        found.insert(0, fitted(forged, query, transport))
    return found


def broken(
    fault: Fault | None, query: dns.message.Message, good: dns.message.Message, transport: Transport, origin: str
) -> dns.message.Message | bytes | None:
    """The reply such a server makes, None for none; `good` may be changed."""
    empty = dns.message.make_response(query)
    question = query.question[0]
    match fault:
        case None | "slow" | "forged_first":
            return good
        case "servfail" | "refused" | "notimp" | "formerr":
            empty.set_rcode(dns.rcode.from_text(fault))
            return empty
        case "formerr_edns":
            if query.edns < 0:
                return good
            empty.use_edns(False)
            empty.set_rcode(dns.rcode.FORMERR)
            return empty
        case "silent":
            return None
        case "silent_udp":
            return good if transport == "tcp" else None
        case "silent_to_edns":
            return None if query.edns >= 0 else good
        case "wrong_id":
            good.id ^= 1
            return good
        case "wrong_question":
            good.question = dns.message.make_query("other.test", question.rdtype).question
            return good
        case "garbage":
            return query.to_wire()[:2] + b"\x81\x80\xff\xff"
        case "truncated" | "cut_off" | "tcp_silent":
            if transport == "tcp":
                return good if fault == "truncated" else None
            empty.flags |= dns.flags.TC
            return empty
        case "cut_over_tcp":
            empty.flags |= dns.flags.TC | dns.flags.AA
            return empty
        case "root_denies":
            empty.flags |= dns.flags.AA
            empty.set_rcode(dns.rcode.NXDOMAIN)
            empty.authority = [dns.rrset.from_text(".", 60, "IN", "SOA", soa("", 60))]
            return empty
        case "everything_is_a_zone":
            empty.flags |= dns.flags.AA
            owner = question.name.to_text()
            there = [dns.rrset.from_text(owner, 60, "IN", "SOA", soa(owner.rstrip("."), 60))]
            empty.answer, empty.authority = (there, []) if question.rdtype == dns.rdatatype.SOA else ([], there)
            return empty
        case "lame" | "referral_to_itself":
            zone = "." if fault == "lame" else origin
            host = f"ns1.{origin.lstrip('.')}" if fault == "referral_to_itself" else "a.root-servers.test."
            empty.authority = [dns.rrset.from_text(zone, 3600, "IN", "NS", host)]
            return empty
        case "not_authoritative":
            good.flags &= ~dns.flags.AA
            return good
        case "nxdomain" | "nodata" | "nxdomain_without_soa":
            empty.flags |= dns.flags.AA
            empty.set_rcode(dns.rcode.NOERROR if fault == "nodata" else dns.rcode.NXDOMAIN)
            if fault != "nxdomain_without_soa":
                empty.authority = [dns.rrset.from_text(origin, 60, "IN", "SOA", soa(origin.rstrip("."), 60))]
            return empty
        case "cname_to_itself" | "cname_circle" | "cname_endless":
            if question.rdtype == dns.rdatatype.CNAME:
                return good
            empty.flags |= dns.flags.AA
            empty.answer = [dns.rrset.from_text(question.name, 60, "IN", "CNAME", _next(question.name, fault, origin))]
            return empty
        case "case_lowered_tcp_shut" if transport == "tcp":
            return None
        case "case_lowered" | "case_lowered_tcp_shut":
            lower = dns.name.from_text(question.name.to_text().lower())
            good.question = dns.message.make_query(lower, question.rdtype).question
            return good
        case "no_question":
            good.question = []
            return good
        case "answer_and_nxdomain":
            good.set_rcode(dns.rcode.NXDOMAIN)
            return good
        case "extra_records":
            good.answer.append(dns.rrset.from_text("victim.test.", 60, "IN", "TXT", '"planted"'))
            good.additional.append(dns.rrset.from_text("victim.test.", 60, "IN", "A", "192.0.2.66"))
            return good


def _next(name: dns.name.Name, fault: Fault, origin: str) -> str:
    """Where the alias leads: to the same name, to its twin that leads back, or to one more each time."""
    top = origin.lstrip(".")
    match fault:
        case "cname_to_itself":
            return name.to_text()
        case "cname_circle":
            return f"left.{top}" if name.labels[0].lower() == b"right" else f"right.{top}"
        case _:
            head = name.labels[0].decode()
            return f"n{int(head[1:]) + 1 if head[1:].isdigit() else 0}.{top}"
