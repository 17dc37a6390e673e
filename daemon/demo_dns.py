"""The demo's name server: knows one zone, over UDP and TCP, and one name that it cannot answer at first."""

from __future__ import annotations

import asyncio
import struct
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from daemon.demo_moods import FirstTime
from jobs.email.dkim_keys import SigningKey

ZONE = dns.name.from_text("shop.example.")
SLOW_TO_ANSWER = dns.name.from_text("flaky.shop.example.")
CONNECTIONS_MAX = 50
SILENCE_S = 10.0

_SOA = "ns.shop.example. hostmaster.shop.example. 1 3600 600 86400 60"
_RECORDS = (
    ("shop.example.", "A", "192.0.2.10"),
    ("shop.example.", "MX", "10 mail.shop.example."),
    ("shop.example.", "TXT", '"v=spf1 mx -all"'),
    ("_verify.shop.example.", "TXT", '"token=4711"'),
    ("www.shop.example.", "CNAME", "shop.example."),
    ("flaky.shop.example.", "TXT", '"token=4711"'),
)


class DnsSink:
    """Answers for shop.example and refuses the rest; every other question about flaky.shop.example is a SERVFAIL.

    `dkim`: the key that mail of the zone is signed with.
    """

    def __init__(self, dkim: SigningKey) -> None:
        known = (*_RECORDS, (f"{dkim.host}.", "TXT", f'"{dkim.record}"'))
        found = [dns.rrset.from_text(name, 60, "IN", rdtype, value) for name, rdtype, value in known]
        self._records = {(record.name, record.rdtype): record for record in found}
        self._names = {record.name for record in found}
        self._is_first = FirstTime()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen on one port, UDP and TCP; the port.  OSError: it is taken."""
        self._tcp = await asyncio.start_server(self._converse, host, port)
        found: int = self._tcp.sockets[0].getsockname()[1]
        try:
            loop = asyncio.get_running_loop()
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (host, found))
        except BaseException:
            await self.close()
            raise
        return found

    async def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        if self._tcp is not None:
            self._tcp.close()
            for writer in self._open:
                writer.close()
            await self._tcp.wait_closed()
            self._tcp = None

    def reply(self, wire: bytes) -> bytes | None:
        """The answer to one question; None to what is no question."""
        try:
            query = dns.message.from_wire(wire)
            if query.flags & dns.flags.QR or len(query.question) != 1:
                return None
            answer = dns.message.make_response(query)
            self._answer(answer, query.question[0])
            return answer.to_wire()
        except (dns.exception.DNSException, ValueError):
            return None

    def _answer(self, answer: dns.message.Message, question: dns.rrset.RRset) -> None:
        name, rdtype = question.name, question.rdtype
        if not name.is_subdomain(ZONE):
            answer.set_rcode(dns.rcode.REFUSED)
            return
        if name == SLOW_TO_ANSWER and self._is_first(name.to_text().lower()):
            answer.set_rcode(dns.rcode.SERVFAIL)
            return
        answer.flags |= dns.flags.AA
        alias = self._records.get((name, dns.rdatatype.CNAME))
        if alias is not None and rdtype != dns.rdatatype.CNAME:
            answer.answer.append(alias)
            name = alias[0].target
        if record := self._records.get((name, rdtype)):
            answer.answer.append(record)
            return
        if name not in self._names:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        answer.authority.append(dns.rrset.from_text(ZONE, 60, "IN", "SOA", _SOA))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    reply = self.reply(await reader.readexactly(size))
                    if reply is None:
                        return
                    writer.write(struct.pack("!H", len(reply)) + reply)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return  # it has what it wanted
        finally:
            self._open.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, sink: DnsSink) -> None:
        self._sink = sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's own is not derived from it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._sink.reply(data)
        if reply is not None:
            self._transport.sendto(reply, addr)
