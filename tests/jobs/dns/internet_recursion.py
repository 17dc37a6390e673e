"""A recursive resolver's work: from the root down, with a cache, CNAMEs followed, loops bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from daemon.demo_nameserver import Transport
from daemon.demo_zone import Name, Type
from tests.jobs.dns.internet_clock import Clock

CHAIN_MAX, DEPTH_MAX, WORK_MAX = 12, 6, 200
"""CNAME links, lookups inside lookups, and questions that one lookup may cost."""

FAILURE_TTL_S = 5
"""How long SERVFAIL is remembered (RFC 9520 allows 1 s to 5 minutes)."""

Wire = Callable[[str, bytes, Transport], list[bytes]]
"""(address, query, transport) → what came back in time, in its order."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one zone's servers say: `answer` as (set, its signatures); `proof` what is in the authority section of a
    denial.  `zone` is whose servers said it."""

    rcode: dns.rcode.Rcode
    zone: Name
    answer: tuple[dns.rrset.RRset, ...] = ()
    proof: tuple[dns.rrset.RRset, ...] = ()
    ttl_s: int = FAILURE_TTL_S

    @property
    def failed(self) -> bool:
        return self.rcode == dns.rcode.SERVFAIL


@dataclass(slots=True)
class Cut:
    """A zone's name servers and those of their addresses that are known."""

    zone: Name
    hosts: dict[Name, list[str]]
    until: float


@dataclass(slots=True)
class Work:
    """What one lookup has cost so far, and which host names it is looking for."""

    questions: int = 0
    seeking: set[Name] = field(default_factory=set)


class Recursion:
    """`roots` are the addresses of the root's servers; `ask` carries questions there and elsewhere."""

    def __init__(self, roots: Sequence[str], ask: Wire, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._roots = Cut(dns.name.root, {dns.name.from_text("a.root-servers.test."): list(roots)}, float("inf"))
        self._cuts: dict[Name, Cut] = {}
        self._found: dict[tuple[Name, Type], tuple[float, Found]] = {}

    def flush(self) -> None:
        self._cuts.clear()
        self._found.clear()

    def find(self, name: Name, rdtype: Type, work: Work | None = None) -> tuple[Found, int]:
        """The sets of that name and type, or the CNAME in their place; and for how many seconds more."""
        now = self._clock.now()
        for kind in (rdtype, dns.rdatatype.CNAME, dns.rdatatype.NONE):
            until, found = self._found.get((name, kind), (0.0, None))
            if found is not None and until > now and (kind == rdtype or found.answer or kind == dns.rdatatype.NONE):
                return found, int(until - now)
        found = self._walk(name, rdtype, work or Work())
        kind = dns.rdatatype.NONE if found.rcode == dns.rcode.NXDOMAIN else rdtype
        self._found[name, kind] = (now + found.ttl_s, found)
        return found, found.ttl_s

    def _walk(self, name: Name, rdtype: Type, work: Work) -> Found:
        """From the deepest cut that is known, downwards."""
        cut = self._deepest(name, rdtype)
        while True:
            said = self._ask_zone(cut, name, rdtype, work)
            if isinstance(said, Found):
                return said
            self._cuts[said.zone] = cut = said

    def _deepest(self, name: Name, rdtype: Type) -> Cut:
        below = name.parent() if rdtype == dns.rdatatype.DS and name != dns.name.root else name
        known = [c for c in self._cuts.values() if below.is_subdomain(c.zone) and c.until > self._clock.now()]
        return max(known, key=lambda c: len(c.zone), default=self._roots)

    def _ask_zone(self, cut: Cut, name: Name, rdtype: Type, work: Work) -> Found | Cut:
        """The first usable word of any server of the zone."""
        for address in self._addresses(cut, work):
            reply = self._question(address, name, rdtype, work)
            if reply is not None:
                said = self._meaning(reply, cut, name, rdtype)
                if said is not None:
                    return said
        return Found(dns.rcode.SERVFAIL, cut.zone)

    def _addresses(self, cut: Cut, work: Work) -> list[str]:
        found: list[str] = []
        for host, glue in cut.hosts.items():
            if not glue and host not in work.seeking and len(work.seeking) < DEPTH_MAX:
                work.seeking.add(host)
                answer, _ = self.find(host, dns.rdatatype.A, work)
                work.seeking.discard(host)
                glue = [rdata.address for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for rdata in rrset]
            found += glue
        return found

    def _question(self, address: str, name: Name, rdtype: Type, work: Work) -> dns.message.Message | None:
        """A reply that fits, over TCP where UDP has cut it short."""
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=1232, want_dnssec=True, flags=0)
        transports: tuple[Transport, ...] = ("udp", "tcp")
        for transport in transports:
            work.questions += 1
            if work.questions > WORK_MAX:
                return None
            reply = _fitting(query, self._ask(address, query.to_wire(), transport))
            if reply is None or not reply.flags & dns.flags.TC:
                return reply
        return None

    def _meaning(self, reply: dns.message.Message, cut: Cut, name: Name, rdtype: Type) -> Found | Cut | None:
        """None for what is of no use: an RCODE of trouble, a server that is no server of this zone."""
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return None
        authoritative = bool(reply.flags & dns.flags.AA)
        if authoritative and (answer := _sets(reply.answer, name, rdtype) or _sets(reply.answer, name, "CNAME")):
            return Found(dns.rcode.NOERROR, cut.zone, answer, tuple(reply.authority), answer[0].ttl)
        soa = [rrset for rrset in reply.authority if rrset.rdtype == dns.rdatatype.SOA]
        if authoritative and soa and soa[0].name.is_subdomain(cut.zone):
            ttl_s = min(soa[0].ttl, soa[0][0].minimum)
            return Found(reply.rcode(), cut.zone, (), tuple(reply.authority), ttl_s)
        for rrset in reply.authority:
            deeper = rrset.name != cut.zone and rrset.name.is_subdomain(cut.zone) and name.is_subdomain(rrset.name)
            if rrset.rdtype == dns.rdatatype.NS and deeper:
                return self._cut(rrset, reply.additional)
        return None

    def _cut(self, servers: dns.rrset.RRset, glue: Sequence[dns.rrset.RRset]) -> Cut:
        """Glue is believed only below the zone that is delegated."""
        hosts: dict[Name, list[str]] = {}
        for server in servers:
            known = [r for r in glue if r.name == server.target and server.target.is_subdomain(servers.name)]
            hosts[server.target] = [rdata.address for rrset in known for rdata in rrset]
        return Cut(servers.name, hosts, self._clock.now() + servers.ttl)


def _fitting(query: dns.message.Message, wires: Sequence[bytes]) -> dns.message.Message | None:
    """The first that answers the query."""
    for wire in wires:
        try:
            reply = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            continue
        if query.is_response(reply):
            return reply
    return None


def _sets(section: Sequence[dns.rrset.RRset], name: Name, rdtype: Type | str) -> tuple[dns.rrset.RRset, ...]:
    """The set and its signatures; empty if there is no such set."""
    kind = Type.make(rdtype)
    signatures = [r for r in section if r.name == name and r.rdtype == dns.rdatatype.RRSIG and r.covers == kind]
    found = [r for r in section if r.name == name and r.rdtype == kind]
    return (*found, *signatures) if found else ()
