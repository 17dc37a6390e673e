"""The keys of a zone and its signatures, good ones and, on command, broken ones."""

from __future__ import annotations

import time
from typing import Literal

import dns.dnssec
import dns.dnssectypes
import dns.name
import dns.rdataset
import dns.rdatatype
import dns.rdtypes.ANY.DNSKEY
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dns.rdtypes.dnskeybase import Flag

from daemon.demo_zone import Nodes

Break = Literal[
    "expired",  # signatures that were good until yesterday
    "forged",  # signatures that verify nothing
    "other_key",  # the parent vouches for a key that the zone does not have
    "unsigned",  # the parent vouches for a key, and there are no signatures
]

DAY_S = 86_400
Signatures = dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset]
"""By owner and covered type."""


class Signing:
    """One Ed25519 key that signs everything.  `broken` says what is wrong with the zone; it may change at any time, and
    counts for what is signed after."""

    def __init__(self, broken: Break | None = None) -> None:
        self.broken = broken
        self._private, self._public = new_key()

    def ds(self, origin: str) -> str:
        """What the parent says of the key."""
        key = new_key()[1] if self.broken == "other_key" else self._public
        return dns.dnssec.make_ds(dns.name.from_text(origin), key, dns.dnssectypes.DSDigest.SHA256).to_text()

    def anchor(self) -> dns.rdtypes.ANY.DNSKEY.DNSKEY:
        return self._public

    def signed(self, origin: dns.name.Name, plain: Nodes) -> tuple[Nodes, Signatures]:
        """The same records with DNSKEY and NSEC, and the signatures of all."""
        if self.broken == "unsigned":
            return plain, {}
        zone = dns.zone.Zone(origin, relativize=False)
        for name, node in plain.items():
            for rrset in node.values():
                zone.replace_rdataset(name, rrset.to_rdataset())
        now = int(time.time())
        end = now - DAY_S if self.broken == "expired" else now + 30 * DAY_S
        dns.dnssec.sign_zone(
            zone, keys=[(self._private, self._public)], inception=min(now - 3600, end - DAY_S), expiration=end
        )
        nodes: Nodes = {}
        signatures: Signatures = {}
        for name, found in zone.nodes.items():
            for rdataset in found.rdatasets:
                if rdataset.rdtype == dns.rdatatype.RRSIG:
                    signatures[name, rdataset.covers] = self._signature(name, rdataset)
                else:
                    rrset = dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset))
                    nodes.setdefault(name, {})[rdataset.rdtype] = rrset
        return nodes, signatures

    def _signature(self, name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> dns.rrset.RRset:
        rdatas = list(rdataset)
        if self.broken == "forged":
            rdatas = [rdata.replace(signature=bytes(len(rdata.signature))) for rdata in rdatas]
        return dns.rrset.from_rdata_list(name, rdataset.ttl, rdatas)


def new_key() -> tuple[Ed25519PrivateKey, dns.rdtypes.ANY.DNSKEY.DNSKEY]:
    private = Ed25519PrivateKey.generate()
    flags = Flag.ZONE | Flag.SEP
    public = dns.dnssec.make_dnskey(private.public_key(), dns.dnssectypes.Algorithm.ED25519, flags)
    return private, public
