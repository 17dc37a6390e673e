"""A zone as one server of the lab has it: signed, if its owner wants that, with proofs of what is not there."""

from __future__ import annotations

import dns.name
import dns.rdatatype

from daemon.demo_zone import DS, Contents, Name, Nodes, Said, Set, Type, put
from tests.jobs.dns.internet_signing import Signatures, Signing

NSEC = dns.rdatatype.NSEC


class SignedContents(Contents):
    """`signing` None: like any other.  Signatures are made anew after each change, when somebody asks."""

    def __init__(self, origin: str, *, ttl: int, negative_ttl: int, signing: Signing | None) -> None:
        self.signing = signing
        self._signed: tuple[Nodes, Signatures] | None = None
        super().__init__(origin, ttl=ttl, negative_ttl=negative_ttl)

    def changed(self) -> None:
        self._signed = None
        super().changed()

    def _nodes(self) -> Nodes:
        return self._all()[0]

    def _all(self) -> tuple[Nodes, Signatures]:
        if self._signed is None:
            self._signed = self.signing.signed(self.origin, self._records) if self.signing else (self._records, {})
        return self._signed

    def _put(self, section: list[Set], at: Name, rdtype: Type, dnssec: bool, shown_as: Name | None = None) -> None:
        super()._put(section, at, rdtype, dnssec, shown_as)
        if dnssec and (signature := self._all()[1].get((at, rdtype))):
            put(section, signature, shown_as)

    def _referral(self, cut: Name, dnssec: bool) -> Said:
        said = super()._referral(cut, dnssec)
        node = self._nodes()[cut]
        if dnssec and (DS in node or NSEC in node):
            self._put(said.authority, cut, DS if DS in node else NSEC, True)
        return said

    def _denial(self, said: Said, name: Name, owner: Name | None, dnssec: bool) -> None:
        super()._denial(said, name, owner, dnssec)
        if dnssec:
            self._prove(said, name)
            if owner is None:
                self._prove(said, dns.name.from_text("*", origin=self._encloser(name)))
            elif owner != name:
                self._prove(said, owner)

    def _expanded(self, said: Said, name: Name, dnssec: bool) -> None:
        if dnssec:
            self._prove(said, name)

    def _prove(self, said: Said, name: Name) -> None:
        """The NSEC of `name`, or the one in whose gap it lies."""
        secure = sorted(known for known, node in self._nodes().items() if NSEC in node)
        before = [known for known in secure if known <= name]
        if secure:
            self._put(said.authority, before[-1] if before else secure[-1], NSEC, True)


def txt(text: str) -> str:
    """A TXT value of any length, in strings of 255 characters, as `Contents.set` takes it."""
    parts = [text[at : at + 255] for at in range(0, len(text), 255)] or [""]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
