"""What an authoritative server's reply says of a name in its zone, and nothing that it has no say in.  Pure."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.SOA
import dns.rrset

from jobs.dns import names
from jobs.dns.answer import Answer, failed, value
from jobs.dns.delegation import within


def read(reply: dns.message.Message, name: str, rdtype: str, zone: str) -> Answer:
    """`dangling` where the reply ends at a CNAME that leaves the zone, or whose target it does not tell of: whatever it
    says about that is hearsay.  Without AA it is no authority at all: lame."""
    rcode = reply.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return failed(dns.rcode.to_text(rcode).lower())
    if not reply.flags & dns.flags.AA:
        return failed("lame")
    kind = dns.rdatatype.from_text(rdtype)
    found = {(names.shown(rrset.name), rrset.rdtype): rrset for rrset in reply.answer}
    chain, ttls = _follow(found, name, kind, zone)
    at = chain[-1] if chain else name
    if at in (name, *chain[:-1]) and chain:
        return Answer(outcome="error", reason="cname_loop", chain=chain)
    if not within(at, zone):
        return Answer(outcome="nodata", chain=chain, ttl_s=min(ttls), dangling=True)
    if records := found.get((at, kind)):
        if rcode == dns.rcode.NXDOMAIN:
            return failed("malformed")
        texts = tuple(value(rdata) for rdata in records)
        return Answer(outcome="answer", values=texts, chain=chain, ttl_s=min((records.ttl, *ttls)))
    return _denied(reply, at, zone, chain, ttls)


def _denied(reply: dns.message.Message, name: str, zone: str, chain: tuple[str, ...], ttls: tuple[int, ...]) -> Answer:
    """There is no such record, as far as the reply tells.  Nothing at all under NOERROR is a NODATA (RFC 2308, section
    2.2, type 3), unless it points below the zone, or answers what nobody asked."""
    if _denies_elsewhere(reply, name, zone):
        dangling = Answer(outcome="nodata", chain=chain, ttl_s=min(ttls, default=None), dangling=True)
        return dangling if chain else failed("lame")
    negative_ttl_s = _negative_ttl_s(reply, name, zone)
    ttl_s = None if negative_ttl_s is None else min((negative_ttl_s, *ttls))
    if reply.rcode() == dns.rcode.NXDOMAIN:
        return Answer(outcome="nxdomain", chain=chain, ttl_s=ttl_s)
    if negative_ttl_s is not None:
        return Answer(outcome="nodata", chain=chain, ttl_s=ttl_s)
    if chain:
        return Answer(outcome="nodata", chain=chain, ttl_s=min(ttls), dangling=True)
    if any(rrset.rdtype == dns.rdatatype.NS and names.shown(rrset.name) != zone for rrset in reply.authority):
        return failed("lame")
    return failed("malformed") if reply.answer else Answer(outcome="nodata")


def _denies_elsewhere(reply: dns.message.Message, name: str, zone: str) -> bool:
    """Whether a reply without the record is one in the name of other zones only: above `zone`, as a server has it that
    answers for the root or a whole top-level domain where it has lost the zone, or to the side.  It says nothing about
    `zone`, and resolvers refuse it likewise."""
    owners = [names.shown(rrset.name) for rrset in reply.authority if rrset.rdtype == dns.rdatatype.SOA]
    return bool(owners) and not any(within(name, owner) and within(owner, zone) for owner in owners)


Found = dict[tuple[str, dns.rdatatype.RdataType], dns.rrset.RRset]


def _follow(
    found: Found, name: str, kind: dns.rdatatype.RdataType, zone: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The CNAME targets from `name` on, as far as they and the zone go, and the TTLs on the way."""
    chain: tuple[str, ...] = ()
    ttls: tuple[int, ...] = ()
    at = name
    while (at, kind) not in found and within(at, zone) and (alias := found.get((at, dns.rdatatype.CNAME))):
        ttls += (alias.ttl,)
        target = alias[0]
        assert isinstance(target, dns.rdtypes.ANY.CNAME.CNAME)  # noqa: S101 # by its type
        at = names.shown(target.target)
        is_loop = at == name or at in chain
        chain += (at,)
        if is_loop:
            break
    return chain, ttls


def _negative_ttl_s(reply: dns.message.Message, name: str, zone: str) -> int | None:
    for rrset in reply.authority:
        owner = names.shown(rrset.name)
        if rrset.rdtype == dns.rdatatype.SOA and within(name, owner) and within(owner, zone):
            return min(rrset.ttl, *(soa.minimum for soa in rrset if isinstance(soa, dns.rdtypes.ANY.SOA.SOA)))
    return None
