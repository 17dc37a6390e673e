"""What one name server knows of one zone, and what it says to a question: RFC 1034, 4.3.2, with RFC 4035, 3.1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.name
import dns.rdatatype
import dns.rrset

from tests.jobs.dns.internet_signing import Signatures, Signing

CHAIN_MAX = 8
"""CNAME links that a server follows inside its own zone."""

NAME, TYPE = dns.name.Name, dns.rdatatype.RdataType
A, AAAA, CNAME, DS, NS, NSEC, SOA = (
    dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.CNAME, dns.rdatatype.DS, dns.rdatatype.NS, dns.rdatatype.NSEC,
    dns.rdatatype.SOA,
)  # fmt: skip

Node = dict[dns.rdatatype.RdataType, dns.rrset.RRset]


@dataclass(slots=True)
class Said:
    """The sections of a reply.  A referral is not authoritative and has NS in its authority section."""

    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)
    additional: list[dns.rrset.RRset] = field(default_factory=list)
    authoritative: bool = True
    exists: bool = True


class Contents:
    """One zone as one server has it: servers of the same zone may know different things.

    Records come as lines, "www.shop.test 300 A 192.0.2.1", with or without the TTL and the final dot.  `signing` makes
    it a signed zone; signatures are made anew after each change, when somebody asks.
    """

    def __init__(self, origin: str, *, ttl: int = 300, negative_ttl: int = 60, signing: Signing | None = None) -> None:
        self.origin = dns.name.from_text(origin)
        self.ttl = ttl
        self.signing = signing
        self._plain: dict[NAME, Node] = {}
        self._served: dict[NAME, Node] | None = None
        self._signatures: Signatures = {}
        self._existing: set[NAME] = set()
        self.set(origin, "SOA", soa(origin, negative_ttl))

    def add(self, *lines: str) -> None:
        """Publish; lines of one name and type become one set."""
        for line in lines:
            rrset = parsed(line, self.ttl)
            if not rrset.name.is_subdomain(self.origin):
                raise ValueError(f"{line!r} is not in {self.origin}")
            node = self._plain.setdefault(rrset.name, {})
            node.setdefault(rrset.rdtype, rrset).update(rrset)  # type: ignore[no-untyped-call] # theirs
        self._served = None

    def set(self, name: str, rdtype: str, *values: str, ttl: int | None = None) -> None:
        """The records of that name and type, in place of those there were; without values there are none."""
        owner, kind = dns.name.from_text(name), TYPE.make(rdtype)
        node = self._plain.setdefault(owner, {})
        node.pop(kind, None)
        if values:
            node[kind] = dns.rrset.from_text(owner, ttl or self.ttl, "IN", rdtype, *values)
        if not node:
            del self._plain[owner]
        self._served = None

    def remove(self, name: str, rdtype: str) -> None:
        self.set(name, rdtype)

    def clear(self, *, below: str) -> None:
        """Forget every record at and below that name."""
        top = dns.name.from_text(below)
        self._plain = {name: node for name, node in self._plain.items() if not name.is_subdomain(top)}
        self._served = None

    def stale(self) -> None:
        """Sign anew before the next reply."""
        self._served = None

    def said(self, name: NAME, rdtype: TYPE, *, dnssec: bool) -> Said:
        """The reply to a question about a name of this zone; with `dnssec`, its signatures and proofs too."""
        nodes = self._nodes()
        if cut := self._cut(name, rdtype):
            return self._referral(cut, nodes, dnssec=dnssec)
        said = Said()
        for _ in range(CHAIN_MAX):
            owner = self._match(name)
            node = nodes.get(owner, {}) if owner else {}
            wanted = next((kind for kind in (rdtype, CNAME) if kind in node), None)
            if wanted is None or owner is None:
                self._denial(said, name, owner, dnssec=dnssec)
                return said
            self._put(said.answer, owner, wanted, dnssec, owner=name)
            if owner != name and dnssec:
                self._prove(said.authority, name)
            if wanted == rdtype:
                return said
            name = node[CNAME][0].target
            if not name.is_subdomain(self.origin) or self._cut(name, rdtype):
                return said
        return said

    def key_records(self) -> dns.rrset.RRset | None:
        """The DS that the parent must have for this zone to be trusted."""
        return self.signing.ds(self.origin, self.ttl) if self.signing else None

    def _nodes(self) -> dict[NAME, Node]:
        if self._served is None:
            signing = self.signing
            self._served, self._signatures = signing.signed(self.origin, self._plain) if signing else (self._plain, {})
            self._existing = set()
            for name in self._served:
                while name not in self._existing and name.is_subdomain(self.origin):
                    self._existing.add(name)
                    if name == self.origin:
                        break
                    name = name.parent()
        return self._served

    def _cut(self, name: NAME, rdtype: TYPE) -> NAME | None:
        """The highest delegation at or above `name`; DS belongs to the parent's side of the cut."""
        for ancestor in self._downwards(name):
            if NS in self._plain.get(ancestor, {}) and not (ancestor == name and rdtype == DS):
                return ancestor
        return None

    def _downwards(self, name: NAME) -> Iterator[NAME]:
        """Names from just below the origin down to `name`."""
        for depth in range(len(self.origin) + 1, len(name) + 1):
            yield name.split(depth)[1]

    def _referral(self, cut: NAME, nodes: dict[NAME, Node], *, dnssec: bool) -> Said:
        said = Said(authoritative=False)
        said.authority.append(nodes[cut][NS])
        if dnssec and self.signing:
            self._put(said.authority, cut, DS if DS in nodes[cut] else NSEC, True)
        for host in nodes[cut][NS]:
            for kind in (A, AAAA):
                if kind in nodes.get(host.target, {}):
                    said.additional.append(nodes[host.target][kind])
        return said

    def _match(self, name: NAME) -> NAME | None:
        """The name itself, or the wildcard that stands for it, or None."""
        if name in self._existing:
            return name
        star = dns.name.from_text("*", origin=self._encloser(name))
        return star if star in self._existing else None

    def _encloser(self, name: NAME) -> NAME:
        while name not in self._existing:
            name = name.parent()
        return name

    def _denial(self, said: Said, name: NAME, owner: NAME | None, *, dnssec: bool) -> None:
        said.exists = owner is not None
        self._put(said.authority, self.origin, SOA, dnssec)
        if dnssec:
            self._prove(said.authority, name)
            if owner is None:
                self._prove(said.authority, dns.name.from_text("*", origin=self._encloser(name)))
            elif owner != name:
                self._prove(said.authority, owner)

    def _prove(self, section: list[dns.rrset.RRset], name: NAME) -> None:
        """The NSEC of `name`, or the one whose gap it lies in."""
        nodes = self._nodes()
        secure = sorted(known for known, node in nodes.items() if NSEC in node)
        before = [known for known in secure if known <= name]
        if secure:
            self._put(section, before[-1] if before else secure[-1], NSEC, True)

    def _put(
        self, section: list[dns.rrset.RRset], at: NAME, rdtype: TYPE, dnssec: bool, *, owner: NAME | None = None
    ) -> None:
        """The set and its signature, once; under the name that was asked for where a wildcard stands for it."""
        found = [self._nodes()[at][rdtype]]
        if dnssec and (signature := self._signatures.get((at, rdtype))):
            found.append(signature)
        for rrset in found:
            if owner is not None and owner != at:
                rrset = dns.rrset.from_rdata_list(owner, rrset.ttl, list(rrset))
            if rrset not in section:
                section.append(rrset)


def soa(origin: str, negative_ttl: int, serial: int = 1) -> str:
    top = f"{origin}.".lstrip(".")
    return f"ns1.{top} hostmaster.{top} {serial} 3600 600 86400 {negative_ttl}"


def parsed(line: str, ttl: int) -> dns.rrset.RRset:
    """The records of "name [ttl] [IN] type value"."""
    name, rest = line.split(None, 1)
    word, after = rest.split(None, 1)
    if word.isdigit():
        ttl, rest = int(word), after
        word, after = rest.split(None, 1)
    if word == "IN":
        word, after = after.split(None, 1)
    return dns.rrset.from_text(dns.name.from_text(name), ttl, "IN", word, after)


def txt(text: str) -> str:
    """A TXT value of any length, in strings of 255 characters, as `Contents.set` takes it."""
    parts = [text[at : at + 255] for at in range(0, len(text), 255)] or [""]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
