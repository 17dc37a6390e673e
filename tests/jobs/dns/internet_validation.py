"""Whether what a zone's servers say is vouched for: by a chain of DS and DNSKEY from the anchor, and by proofs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import dns.dnssec
import dns.dnssectypes
import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.DNSKEY
import dns.rrset

from daemon.demo_zone import Name, Type
from tests.jobs.dns.internet_recursion import Found, Recursion

Trust = Literal["secure", "insecure", "bogus"]
DS, NSEC, RRSIG = dns.rdatatype.DS, dns.rdatatype.NSEC, dns.rdatatype.RRSIG


class Validator:
    """`anchor` is the key of the root, believed without proof."""

    def __init__(self, anchor: dns.rdtypes.ANY.DNSKEY.DNSKEY, recursion: Recursion) -> None:
        self._recursion = recursion
        self._anchor = dns.rrset.from_rdata(dns.name.root, 300, anchor)

    def trust(self, found: Found, name: Name, rdtype: Type) -> Trust:
        trust, keys = self._zone(found.zone)
        if trust != "secure" or keys is None:
            return trust
        if found.answer:
            return "secure" if self._signed(found.answer, keys, found.zone) else "bogus"
        return "secure" if self._denied(found, name, rdtype, keys) else "bogus"

    def _zone(self, zone: Name) -> tuple[Trust, dns.rrset.RRset | None]:
        """How far the zone's keys are vouched for; they are None where it is not secure."""
        if zone == dns.name.root:
            return self._keys(zone, self._anchor)
        ds, _ = self._recursion.find(zone, DS)
        trust, above = self._zone(ds.zone)
        if trust != "secure" or above is None:
            return trust, None
        if ds.answer:
            return self._keys(zone, ds.answer[0]) if self._signed(ds.answer, above, ds.zone) else ("bogus", None)
        return ("insecure" if self._denied(ds, zone, DS, above) else "bogus"), None

    def _keys(self, zone: Name, vouched: dns.rrset.RRset) -> tuple[Trust, dns.rrset.RRset | None]:
        """The zone's DNSKEY set, if one that `vouched` (DS, or the anchor itself) speaks of signs it."""
        found, _ = self._recursion.find(zone, dns.rdatatype.DNSKEY)
        if not found.answer:
            return "bogus", None
        keys = found.answer[0]
        known = [key for key in keys if key in vouched or _digest(zone, key) in vouched]
        chosen = dns.rrset.from_rdata_list(zone, keys.ttl, known) if known else None
        if chosen is not None and self._signed(found.answer, chosen, zone):
            return "secure", keys
        return "bogus", None

    def _signed(self, sets: Sequence[dns.rrset.RRset], keys: dns.rrset.RRset, zone: Name) -> bool:
        """Whether each set has a signature beside it that one of the keys made."""
        plain = [rrset for rrset in sets if rrset.rdtype != RRSIG]
        return bool(plain) and all(self._verifies(rrset, sets, keys, zone) for rrset in plain)

    def _verifies(
        self, rrset: dns.rrset.RRset, sets: Iterable[dns.rrset.RRset], keys: dns.rrset.RRset, zone: Name
    ) -> bool:
        for signatures in sets:
            if signatures.rdtype == RRSIG and signatures.name == rrset.name and signatures.covers == rrset.rdtype:
                try:
                    dns.dnssec.validate(rrset, signatures, {zone: keys})
                except dns.exception.DNSException:
                    continue
                return True
        return False

    def _denied(self, found: Found, name: Name, rdtype: Type, keys: dns.rrset.RRset) -> bool:
        """Signed NSECs that leave no room for the name (NXDOMAIN) or the type (NODATA)."""
        if found.failed or not self._signed(found.proof, keys, found.zone):
            return False
        nsecs = [rrset for rrset in found.proof if rrset.rdtype == NSEC]
        if found.rcode == dns.rcode.NXDOMAIN:
            return any(_covers(nsec, name, found.zone) for nsec in nsecs)
        return any(_lacks(nsec, name, rdtype, found.zone) for nsec in nsecs)


def _digest(zone: Name, key: dns.rdtypes.ANY.DNSKEY.DNSKEY) -> dns.rdata.Rdata:
    return dns.dnssec.make_ds(zone, key, dns.dnssectypes.DSDigest.SHA256)


def _covers(nsec: dns.rrset.RRset, name: Name, zone: Name) -> bool:
    """Whether `name` lies in the gap; the last NSEC's gap ends at the zone's own name."""
    after = nsec[0].next
    return bool(nsec.name < name and (name < after or after == zone))


def _lacks(nsec: dns.rrset.RRset, name: Name, rdtype: Type, zone: Name) -> bool:
    """Whether the name has no such type: by its own NSEC, by a wildcard's, or since it is only the parent of others."""
    if nsec.name == name or (nsec.name.labels[0] == b"*" and name.is_subdomain(nsec.name.parent())):
        window, bit = divmod(int(rdtype), 256)
        bitmap = dict(nsec[0].windows).get(window, b"")
        return not (len(bitmap) > bit // 8 and bitmap[bit // 8] & (0x80 >> bit % 8))
    return _covers(nsec, name, zone) and nsec[0].next.is_subdomain(name)
