"""An authoritative server of the lab."""

from __future__ import annotations

import dns.message
import dns.rrset

from daemon.demo_nameserver import NameServer
from tests.jobs.dns.internet_server import Server
from tests.jobs.dns.internet_zone import SignedContents


class Authority(Server):
    """`host` is its name, "ns1.shop.test"; `zones` what it knows, by origin, "shop.test"."""

    def __init__(self, host: str, address: str, port: int) -> None:
        super().__init__(address, port)
        self.host = host
        self.zones: dict[str, SignedContents] = {}
        self._known = NameServer()
        self._known.zones = self.zones  # type: ignore[assignment] # it only reads them

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        return self._known.reply(query)

    def origin(self, question: dns.rrset.RRset) -> str:
        contents = self._known.contents(question)
        return contents.origin.to_text() if contents else "."
