"""A recursive resolver that anybody may ask; one that validates says AD, or SERVFAIL for what is forged."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.jobs.dns.internet_recursion import CHAIN_MAX, Found, Recursion
from tests.jobs.dns.internet_server import Server
from tests.jobs.dns.internet_validation import Trust, Validator


class RecursiveServer(Server):
    """`validator` None: it believes everything."""

    def __init__(self, address: str, port: int, recursion: Recursion, validator: Validator | None) -> None:
        super().__init__(address, port)
        self.recursion = recursion
        self._validator = validator

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True, our_payload=1232)
        if not query.flags & dns.flags.RD:
            reply.set_rcode(dns.rcode.REFUSED)
            return reply
        question = query.question[0]
        dnssec = bool(query.ednsflags & dns.flags.DO)
        name, trust = question.name, set[Trust]()
        for _ in range(CHAIN_MAX):
            found, left_s = self.recursion.find(name, question.rdtype)
            trust.add(self._trust(found, name, question.rdtype))
            _add(reply.answer, found.answer, left_s, dnssec)
            if found.failed or not found.answer or found.answer[0].rdtype == question.rdtype:
                _add(reply.authority, () if found.answer else found.proof, left_s, dnssec)
                break
            name = found.answer[0][0].target
        else:
            found = Found(dns.rcode.SERVFAIL, name)
        checks = not query.flags & dns.flags.CD
        if found.failed or (checks and "bogus" in trust):
            reply.answer, reply.authority = [], []
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply
        reply.set_rcode(found.rcode)
        reply.flags |= query.flags & dns.flags.CD
        if trust == {"secure"} and (dnssec or query.flags & dns.flags.AD):
            reply.flags |= dns.flags.AD
        if dnssec:
            reply.ednsflags |= dns.flags.DO
        return reply

    def _trust(self, found: Found, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Trust:
        if self._validator is None or found.failed:
            return "insecure"
        return self._validator.trust(found, name, rdtype)


def _add(section: list[dns.rrset.RRset], sets: tuple[dns.rrset.RRset, ...], left_s: int, dnssec: bool) -> None:
    """Copies, with the time that is left; proofs and signatures only for those who want them."""
    for rrset in sets:
        if dnssec or rrset.rdtype not in (dns.rdatatype.RRSIG, dns.rdatatype.NSEC):
            section.append(dns.rrset.from_rdata_list(rrset.name, min(rrset.ttl, left_s), list(rrset)))
