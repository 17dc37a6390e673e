"""An authoritative server: it knows its zones and refuses everything else."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.jobs.dns.internet_server import Server
from tests.jobs.dns.internet_zone import Contents


class Authority(Server):
    """`host` is its name, "ns1.shop.test"; `zones` what it knows, by origin, "shop.test"."""

    def __init__(self, host: str, address: str, port: int) -> None:
        super().__init__(address, port)
        self.host = host
        self.zones: dict[str, Contents] = {}

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query, our_payload=1232)
        question = query.question[0]
        contents = self._contents(question)
        if contents is None:
            reply.set_rcode(dns.rcode.REFUSED)
            return reply
        dnssec = bool(query.ednsflags & dns.flags.DO)
        said = contents.said(question.name, question.rdtype, dnssec=dnssec)
        reply.flags |= dns.flags.AA if said.authoritative else 0
        reply.set_rcode(dns.rcode.NOERROR if said.exists else dns.rcode.NXDOMAIN)
        reply.answer, reply.authority, reply.additional = said.answer, said.authority, said.additional
        if dnssec:
            reply.ednsflags |= dns.flags.DO
        return reply

    def origin(self, question: dns.rrset.RRset) -> str:
        contents = self._contents(question)
        return contents.origin.to_text() if contents else "."

    def _contents(self, question: dns.rrset.RRset) -> Contents | None:
        """Those of the deepest zone that the name is in; a DS is the parent's."""
        fitting = [
            contents
            for contents in self.zones.values()
            if question.name.is_subdomain(contents.origin)
            and not (question.rdtype == dns.rdatatype.DS and question.name == contents.origin)
        ]
        return max(fitting, key=lambda contents: len(contents.origin), default=None)
