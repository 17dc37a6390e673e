"""What a DNS reply says, told apart without exceptions: an answer, no such name, no such record, or nothing usable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rrset

from jobs.dns import names

Outcome = Literal["answer", "nxdomain", "nodata", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one question.

    `values` are the records as text: a TXT's strings joined, an MX as "10 mx.example.net", names in lower case without
    the final dot.  `chain` are the CNAME targets followed, in order.  `ttl_s` says how long caches may hold this: of a
    negative answer min(SOA TTL, SOA minimum) (RFC 2308), None where no SOA came.  `authentic` is the AD flag, worth as
    much as the path to the server.  `reason` tells why there is no answer: servfail, refused or another RCODE in lower
    case; timeout, malformed, lame, unreachable, truncated, cname_loop; no_route (this machine has no way there),
    blocked (the server's address is not public), no_address and address_unknown (the server's name has none, or nobody
    could tell); bogus (DNSSEC is broken), budget (the check may ask no more), disagree (resolvers do).  `servers` maps
    each server asked to what it said.  `dangling`: it stops at a CNAME whose target is still to be asked.
    """

    outcome: Outcome
    values: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    reason: str = ""
    ttl_s: int | None = None
    authentic: bool = False
    servers: Mapping[str, str] = field(default_factory=dict)
    dangling: bool = False

    @property
    def said(self) -> str:
        return self.reason or self.outcome


def failed(reason: str) -> Answer:
    return Answer(outcome="error", reason=reason)


def read(reply: dns.message.Message) -> Answer:
    """The meaning of one reply to one question.

    A referral (NS without SOA) in place of an answer comes from a server that neither knows nor asks: lame.  Nothing at
    all under NOERROR is a NODATA (RFC 2308, section 2.2, type 3).
    """
    rcode = reply.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return failed(dns.rcode.to_text(rcode).lower())
    if not isinstance(reply, dns.message.QueryMessage):
        return failed("malformed")
    try:
        chaining = reply.resolve_chaining()
    except dns.message.ChainTooLong:
        return failed("cname_loop")
    except dns.exception.DNSException:
        return failed("malformed")
    chain = tuple(value(link[0]) for link in chaining.cnames)
    authentic = bool(reply.flags & dns.flags.AD)
    if chaining.answer is not None:
        values = tuple(value(rdata) for rdata in chaining.answer)
        return Answer(outcome="answer", values=values, chain=chain, ttl_s=chaining.minimum_ttl, authentic=authentic)
    ttl_s = _negative_ttl_s(reply, chaining.canonical_name)
    if rcode == dns.rcode.NXDOMAIN:
        return Answer(outcome="nxdomain", chain=chain, ttl_s=ttl_s, authentic=authentic)
    if ttl_s is None and not chain and any(rrset.rdtype == dns.rdatatype.NS for rrset in reply.authority):
        return failed("lame")
    return Answer(
        outcome="nodata", chain=chain, ttl_s=ttl_s, authentic=authentic, dangling=bool(chain) and ttl_s is None
    )


def _negative_ttl_s(reply: dns.message.Message, name: dns.name.Name) -> int | None:
    for rrset in reply.authority:
        if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name):
            return min(rrset.ttl, *(soa.minimum for soa in rrset if isinstance(soa, dns.rdtypes.ANY.SOA.SOA)))
    return None


def value(rdata: dns.rdata.Rdata) -> str:
    """A record as the text that it is compared and shown as."""
    match rdata:
        case dns.rdtypes.ANY.TXT.TXT():
            # Postgres takes no NUL in text, and a tenant's record may hold any byte.
            return b"".join(rdata.strings).decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
        case dns.rdtypes.ANY.MX.MX():
            return f"{rdata.preference} {names.shown(rdata.exchange)}"
        case dns.rdtypes.ANY.CNAME.CNAME():
            return names.shown(rdata.target)
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return str(rdata.address)
        case _:
            return rdata.to_text()
