"""One question as it goes over the wire, each time with an id and a case of its own: its reply cannot be guessed."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import dns.flags
import dns.message
import dns.rcode

HEADER = 12
CLASSIC_MAX = 512
"""The largest datagram that a server may send to a question without EDNS (RFC 1035)."""

_BARE_RCODES = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})
"""With these a server may leave the question out of its reply: it may not have understood it."""

_DICE = random.SystemRandom()

Fit = Literal["yes", "case", "no"]
"""Whether a reply belongs to a question; "case": but for the case of its letters."""


@dataclass(frozen=True, slots=True)
class Question:
    """`name` as `names.normal` gives it.  `recursive`: to a resolver, which may follow and validate; else to an
    authoritative server.  `unchecked`: the resolver shall not validate (CD)."""

    name: str
    rdtype: str
    recursive: bool = False
    unchecked: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """A question's bytes without an id; `letters` has 0x20 wherever a letter of its name stands."""

    tail: bytes
    name: int
    name_size: int
    letters: int
    rest: bytes

    def sent(self, *, keeps_case: bool) -> Sent:
        """The question as it is sent once."""
        noise = _DICE.getrandbits(self.name_size * 8) & self.letters if keeps_case else 0
        cased = (self.name ^ noise).to_bytes(self.name_size, "big")
        mark = os.urandom(2)
        return Sent(mark + self.tail + cased + self.rest, mark, cased, self.rest[:4])


@dataclass(frozen=True, slots=True)
class Sent:
    """One sending of a question."""

    wire: bytes
    mark: bytes
    name: bytes
    kind: bytes

    def fit(self, reply: bytes) -> Fit:
        """Whether `reply` has our id, is a reply to a query, and repeats the question to the letter."""
        if len(reply) < HEADER or reply[:2] != self.mark or not reply[2] & 0x80 or reply[2] & 0x78:
            return "no"
        if reply[4:6] == b"\0\0":
            return "yes" if reply[3] & 0x0F in _BARE_RCODES else "no"
        end = HEADER + len(self.name)
        if reply[4:6] != b"\0\1" or reply[end : end + 4] != self.kind:
            return "no"
        name = reply[HEADER:end]
        if name == self.name:
            return "yes"
        return "case" if name.lower() == self.name.lower() else "no"

    def plain(self, reply: bytes) -> bytes:
        """A reply that fits, without what is ours alone: the same words of two servers are the same bytes then."""
        end = HEADER + len(self.name) if reply[4:6] != b"\0\0" else HEADER
        return b"\0\0" + reply[2:HEADER] + reply[HEADER:end].lower() + reply[end:]


@lru_cache(maxsize=4096)
def packed(question: Question, payload: int | None) -> Packed:
    """`payload` is the largest datagram we say we take; None: without EDNS.

    Resolvers are asked for DNSSEC (DO) and, by the AD bit, to be told of validation (RFC 6840, 5.7); signatures of
    authoritative servers would only make datagrams longer.
    """
    flags = (dns.flags.RD | dns.flags.AD if question.recursive else 0) | (dns.flags.CD if question.unchecked else 0)
    edns = -1 if payload is None else 0
    query = dns.message.make_query(
        question.name,
        question.rdtype,
        use_edns=edns,
        want_dnssec=question.recursive and payload is not None,
        payload=payload or CLASSIC_MAX,
        flags=flags,
    )
    wire = query.to_wire()
    name = query.question[0].name.to_wire()
    assert name is not None  # noqa: S101 # it is, without a file to write to
    end = HEADER + len(name)
    return Packed(wire[2:HEADER], int.from_bytes(name, "big"), len(name), _letters(name), wire[end:])


def _letters(name: bytes) -> int:
    """0x20 at each letter of a name in wire form; a length is less than 64 and no letter stands below that."""
    return int.from_bytes(bytes(0x20 if 0x61 <= octet <= 0x7A else 0 for octet in name), "big")
