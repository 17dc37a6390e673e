"""What a reply means to somebody on his way down from the root: further down, here, or nothing.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.NS
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rrset

from jobs.dns import names
from jobs.dns.answer import Answer, failed
from jobs.dns.delegation import Cut, within


@dataclass(frozen=True, slots=True)
class Inside:
    """The name lies in this zone: the one that was asked for it, or one below that its servers serve as well."""

    zone: str


@dataclass(frozen=True, slots=True)
class Alias:
    """The name is a CNAME, so its reply tells of another; the name above it is in the same zone or at the cut."""


Meaning = Cut | Inside | Alias | Answer


def meaning(reply: dns.message.Message, name: str, zone: str) -> Meaning:
    """Of a reply to the question for the SOA of `name`, from a server of `zone`."""
    if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return failed(dns.rcode.to_text(reply.rcode()).lower())
    if cut := referral(reply, name, zone):
        return cut
    if not reply.flags & dns.flags.AA:
        return failed("lame")
    kinds = {rrset.rdtype for rrset in reply.answer if names.shown(rrset.name) == name}
    if dns.rdatatype.SOA in kinds:
        return Inside(name)
    if dns.rdatatype.CNAME in kinds:
        return Alias()
    for rrset in reply.authority:
        owner = names.shown(rrset.name)
        if rrset.rdtype == dns.rdatatype.SOA and within(name, owner) and within(owner, zone):
            return Inside(owner)
    return Inside(zone)


def referral(reply: dns.message.Message, name: str, zone: str) -> Cut | None:
    """The delegation that `reply` points to in place of an answer: strictly below `zone`, so that a way down ends, and
    at or above `name`.  A server that points anywhere else is lame."""
    if any(rrset.rdtype == dns.rdatatype.SOA for rrset in reply.authority):
        return None
    for rrset in reply.authority:
        owner = names.shown(rrset.name)
        if rrset.rdtype == dns.rdatatype.NS and owner != zone and within(owner, zone) and within(name, owner):
            return cut_of(reply, rrset, owner, zone)
    return None


def leaves(reply: dns.message.Message, name: str, zone: str) -> bool:
    """Whether `reply`, to any question about `name`, says that the name lies in a zone below `zone`: by a referral, or
    by a denial in the name of another zone."""
    if referral(reply, name, zone):
        return True
    owners = [names.shown(rrset.name) for rrset in reply.authority if rrset.rdtype == dns.rdatatype.SOA]
    return any(owner != zone and within(owner, zone) and within(name, owner) for owner in owners)


def own_servers(reply: dns.message.Message, zone: str) -> Cut | None:
    """The name servers that `zone` has by its own word: the answer to a question for its NS."""
    if reply.rcode() != dns.rcode.NOERROR or not reply.flags & dns.flags.AA:
        return None
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.NS and names.shown(rrset.name) == zone:
            return replace(cut_of(reply, rrset, zone, zone), by_parent=False)
    return None


def cut_of(reply: dns.message.Message, servers: dns.rrset.RRset, zone: str, bailiwick: str) -> Cut:
    """Only addresses of hosts below `bailiwick` are believed: about others this server has no say."""
    hosts: dict[str, tuple[str, ...]] = {
        names.shown(one.target): () for one in servers if isinstance(one, dns.rdtypes.ANY.NS.NS)
    }
    for rrset in reply.additional:
        host = names.shown(rrset.name)
        if host in hosts and within(host, bailiwick):
            found = (one.address for one in rrset if isinstance(one, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA))
            hosts[host] += tuple(found)
    return Cut(zone=zone, hosts=hosts, ttl_s=servers.ttl)
