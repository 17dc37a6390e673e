"""What one name server knows of one zone, and what it says to a question (RFC 1034, 4.3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import dns.name
import dns.rdatatype
import dns.rrset

CHAIN_MAX = 8
"""CNAME links that a server follows inside its own zone."""

Name = dns.name.Name
Type = dns.rdatatype.RdataType
Set = dns.rrset.RRset
A, AAAA, CNAME, DS, NS, SOA = (
    dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.CNAME, dns.rdatatype.DS, dns.rdatatype.NS, dns.rdatatype.SOA,
)  # fmt: skip

Nodes = dict[Name, dict[Type, Set]]


@dataclass(slots=True)
class Said:
    """The sections of a reply.  A referral is not authoritative; without `exists` there is no such name."""

    answer: list[Set] = field(default_factory=list)
    authority: list[Set] = field(default_factory=list)
    additional: list[Set] = field(default_factory=list)
    authoritative: bool = True
    exists: bool = True


class Contents:
    """One zone as one server has it: servers of the same zone may know different things.

    Records come as lines, "www.shop.test 300 A 192.0.2.1", with or without the TTL.
    """

    def __init__(self, origin: str, *, ttl: int = 300, negative_ttl: int = 60) -> None:
        self.origin = dns.name.from_text(origin)
        self.ttl = ttl
        self._records: Nodes = {}
        self._existing: AbstractSet[Name] = frozenset()
        self.set(origin, "SOA", soa(origin, negative_ttl))

    def add(self, *lines: str) -> None:
        """Publish; lines of one name and type become one set."""
        for line in lines:
            rrset = parsed(line, self.ttl)
            if not rrset.name.is_subdomain(self.origin):
                raise ValueError(f"{line!r} is not in {self.origin}")
            node = self._records.setdefault(rrset.name, {})
            node.setdefault(rrset.rdtype, rrset).update(rrset)  # type: ignore[no-untyped-call] # theirs
        self.changed()

    def set(self, name: str, rdtype: str, *values: str, ttl: int | None = None) -> None:
        """The records of that name and type, in place of those there were; without values there are none."""
        owner, kind = dns.name.from_text(name), Type.make(rdtype)
        node = self._records.setdefault(owner, {})
        node.pop(kind, None)
        if values:
            node[kind] = dns.rrset.from_text(owner, self.ttl if ttl is None else ttl, "IN", rdtype, *values)
        if not node:
            del self._records[owner]
        self.changed()

    def remove(self, name: str, rdtype: str) -> None:
        self.set(name, rdtype)

    def clear(self, *, below: str | None = None) -> None:
        """Forget every record at and below that name, or at and below every name but the zone's own."""
        top = self.origin if below is None else dns.name.from_text(below)
        kept = {self.origin} if below is None else set[Name]()
        self._records = {
            name: node for name, node in self._records.items() if name in kept or not name.is_subdomain(top)
        }
        self.changed()

    def changed(self) -> None:
        """What was made out of the records is made anew before the next reply."""
        self._existing = frozenset()

    def said(self, name: Name, rdtype: Type, *, dnssec: bool = False) -> Said:
        """The reply to a question about a name of this zone.  `dnssec`: signatures are wanted, if there are any."""
        if not self._existing:
            self._existing = self._with_ancestors()
        if cut := self._cut(name, rdtype):
            return self._referral(cut, dnssec)
        said = Said()
        for _ in range(CHAIN_MAX):
            owner = self._match(name)
            node: Mapping[Type, Set] = self._nodes().get(owner, {}) if owner else {}
            kind = next((kind for kind in (rdtype, CNAME) if kind in node), None)
            if owner is None or kind is None:
                self._denial(said, name, owner, dnssec)
                return said
            self._put(said.answer, owner, kind, dnssec, shown_as=name)
            if owner != name:
                self._expanded(said, name, dnssec)
            if kind == rdtype:
                return said
            name = node[CNAME][0].target
            if not name.is_subdomain(self.origin) or self._cut(name, rdtype):
                return said
        return said

    def _nodes(self) -> Nodes:
        return self._records

    def _with_ancestors(self) -> AbstractSet[Name]:
        """All names that exist, those among them that are only parents of others."""
        found: set[Name] = set()
        for name in self._nodes():
            while name not in found and name.is_subdomain(self.origin):
                found.add(name)
                if name == self.origin:
                    break
                name = name.parent()
        return found

    def _cut(self, name: Name, rdtype: Type) -> Name | None:
        """The highest delegation at or above `name`; DS belongs to the parent's side of the cut."""
        for ancestor in self._downwards(name):
            if NS in self._records.get(ancestor, {}) and not (ancestor == name and rdtype == DS):
                return ancestor
        return None

    def _downwards(self, name: Name) -> Iterator[Name]:
        """Names from just below the origin down to `name`."""
        for depth in range(len(self.origin) + 1, len(name) + 1):
            yield name.split(depth)[1]

    def _referral(self, cut: Name, dnssec: bool) -> Said:
        """With the addresses that this zone has of those it refers to."""
        said = Said(authoritative=False)
        self._put(said.authority, cut, NS, False)
        for host in self._records[cut][NS]:
            for kind in (A, AAAA):
                if kind in self._records.get(host.target, {}):
                    self._put(said.additional, host.target, kind, False)
        return said

    def _match(self, name: Name) -> Name | None:
        """The name itself, or the wildcard that stands for it, or None."""
        star = dns.name.from_text("*", origin=self._encloser(name))
        return next((known for known in (name, star) if known in self._existing), None)

    def _encloser(self, name: Name) -> Name:
        """The closest ancestor that exists."""
        while name not in self._existing:
            name = name.parent()
        return name

    def _denial(self, said: Said, name: Name, owner: Name | None, dnssec: bool) -> None:
        """No such name, or where `owner` stands for it, no such record."""
        said.exists = owner is not None
        self._put(said.authority, self.origin, SOA, dnssec)

    def _expanded(self, said: Said, name: Name, dnssec: bool) -> None:
        """A wildcard has stood for `name`."""

    def _put(self, section: list[Set], at: Name, rdtype: Type, dnssec: bool, shown_as: Name | None = None) -> None:
        put(section, self._nodes()[at][rdtype], shown_as)


def put(section: list[Set], rrset: Set, shown_as: Name | None) -> None:
    """Once, and under the name that was asked for where a wildcard stands for it."""
    if shown_as is not None and shown_as != rrset.name:
        rrset = dns.rrset.from_rdata_list(shown_as, rrset.ttl, list(rrset))
    if rrset not in section:
        section.append(rrset)


def soa(origin: str, negative_ttl: int) -> str:
    top = f"{origin}.".lstrip(".")
    return f"ns1.{top} hostmaster.{top} 1 3600 600 86400 {negative_ttl}"


def parsed(line: str, ttl: int) -> Set:
    """The records of "name [ttl] type value"."""
    name, rest = line.split(None, 1)
    word, after = rest.split(None, 1)
    if word.isdigit():
        ttl = int(word)
        word, after = after.split(None, 1)
    return dns.rrset.from_text(dns.name.from_text(name), ttl, "IN", word, after)
