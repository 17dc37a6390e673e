"""A small DNS server on loopback, UDP and TCP on one port, that answers from its records and lies on command."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from types import TracebackType
from typing import Literal, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Fault = Literal[
    "servfail", "refused", "notimp",  # the RCODE
    "silent",  # no reply at all
    "wrong_id", "other_question", "garbage",  # replies that fit no question
    "forged_first",  # a reply with a wrong id and a wrong record, then the true one
    "truncated",  # TC over UDP, the whole over TCP
    "cut_off",  # TC over UDP, and TCP closes without a word
    "referral",  # NS of somebody else, no answer: lame
    "answer_and_nxdomain",  # contradicts itself
]  # fmt: skip


class DnsServer:
    """`async with DnsServer() as server:`, then `server.place` is "127.0.0.1:port".

    `add("www.example.test. 300 IN A 192.0.2.1")` publishes; `faults["www.example.test."]`, or `fault` for every name,
    makes it misbehave.  `asked` counts (name, type, transport); `follow` false leaves CNAME targets to the asker;
    `authentic` sets AD; `soa` false sends negative answers without one.
    """

    def __init__(self, *, zone: str = "example.test.", negative_ttl: int = 60, soa_ttl: int = 900) -> None:
        self.records: dict[tuple[dns.name.Name, int], dns.rrset.RRset] = {}
        self.faults: dict[str, Fault] = {}
        self.fault: Fault | None = None
        self.follow = True
        self.soa = True
        self.authentic = False
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.queries: list[dns.message.Message] = []
        self._heard = asyncio.Event()
        self._zone = zone
        self._negative = f"ns.{zone} admin.{zone} 1 3600 600 86400 {negative_ttl}"
        self._soa_ttl = soa_ttl

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.port: int = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), ("127.0.0.1", self.port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, *lines: str) -> None:
        """Publish records in zone-file form; lines of one name and type become one set."""
        for line in lines:
            name, ttl, _, rdtype, value = line.split(None, 4)
            rrset = dns.rrset.from_text(name, int(ttl), "IN", rdtype, value)
            known = self.records.setdefault((rrset.name, rrset.rdtype), rrset)
            known.update(rrset)  # type: ignore[no-untyped-call] # theirs

    async def asked_so_often(self, times: int) -> None:
        """Return when `times` questions have come."""
        while len(self.queries) < times:
            self._heard.clear()
            await self._heard.wait()

    def replies(self, wire: bytes, transport: str) -> list[bytes]:
        """The datagrams (or TCP messages) that answer one query."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text().lower()
        self.asked[name, dns.rdatatype.to_text(question.rdtype), transport] += 1
        self.queries.append(query)
        self._heard.set()
        fault = self.faults.get(name, self.fault)
        reply = self._answer(query)
        match fault:
            case "servfail" | "refused" | "notimp":
                reply = dns.message.make_response(query)
                reply.set_rcode(dns.rcode.from_text(fault))
            case "silent":
                return []
            case "wrong_id":
                reply.id ^= 1
            case "other_question":
                reply = self._answer(dns.message.make_query("other.example.test.", question.rdtype, id=query.id))
            case "garbage":
                return [wire[:2] + b"\x81\x80\xff\xff"]
            case "forged_first":
                forged = self._answer(query)
                forged.id ^= 1
                forged.answer = [dns.rrset.from_text(question.name, 1, "IN", "TXT", '"forged"')]
                return [_wire(forged, query, transport), _wire(reply, query, transport)]
            case "truncated" if transport == "udp":
                reply = _truncated(query)
            case "cut_off":
                if transport == "tcp":
                    return []
                reply = _truncated(query)
            case "referral":
                reply = dns.message.make_response(query)
                reply.authority = [dns.rrset.from_text(".", 3600, "IN", "NS", "a.root.example.")]
            case "answer_and_nxdomain":
                reply.set_rcode(dns.rcode.NXDOMAIN)
        return [_wire(reply, query, transport)]

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        reply = dns.message.make_response(query, recursion_available=True)
        reply.flags |= dns.flags.AD if self.authentic else 0
        name = question.name
        for _ in range(8):
            if found := self.records.get((name, question.rdtype)):
                reply.answer.append(found)
                return reply
            alias = self.records.get((name, dns.rdatatype.CNAME))
            if alias is None:
                break
            if alias not in reply.answer:
                reply.answer.append(alias)
            name = alias[0].target
            if not self.follow:
                return reply
        if not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        if self.soa:
            reply.authority.append(dns.rrset.from_text(self._zone, self._soa_ttl, "IN", "SOA", self._negative))
        return reply

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                replies = self.replies(await reader.readexactly(length), "tcp")
                for wire in replies:
                    writer.write(struct.pack("!H", len(wire)) + wire)
                await writer.drain()
                if not replies:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def _wire(reply: dns.message.Message, query: dns.message.Message, transport: str) -> bytes:
    """What fits: over UDP as much as the query says it takes, else an empty reply with TC."""
    try:
        return reply.to_wire(max_size=65535 if transport == "tcp" else max(query.payload, 512))
    except dns.exception.TooBig:
        return _truncated(query).to_wire()


def _truncated(query: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True)
    reply.flags |= dns.flags.TC
    return reply


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override] # always this one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for wire in self._server.replies(data, "udp"):
            self._transport.sendto(wire, addr)
