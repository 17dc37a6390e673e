"""Name servers and resolvers at one address each, over UDP and TCP."""

from __future__ import annotations

import asyncio
import struct
from abc import ABC, abstractmethod
from typing import Literal, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from daemon.demo_zone import CHAIN_MAX, Contents

CONNECTIONS_MAX = 50
SILENCE_S = 10.0
PAYLOAD = 1232

Transport = Literal["udp", "tcp"]


class Listener(ABC):
    """Carries messages to `answers` and back."""

    def __init__(self) -> None:
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def listens(self) -> bool:
        return self._udp is not None

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

    @abstractmethod
    def answers(self, wire: bytes, transport: Transport) -> tuple[list[bytes], float]:
        """What goes back, and how many seconds later."""

    def keeps_open(self) -> bool:
        """Whether a connection stays open when there is nothing to say."""
        return False

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(SILENCE_S) as patience:
                while await self._reply(reader, writer):
                    patience.reschedule(asyncio.get_running_loop().time() + SILENCE_S)
        except (OSError, EOFError, TimeoutError):
            return  # it has what it wanted
        finally:
            self._open.discard(writer)
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        replies, late_s = self.answers(await reader.readexactly(size), "tcp")
        if late_s:
            await asyncio.sleep(late_s)
        for reply in replies:
            writer.write(struct.pack("!H", len(reply)) + reply)
        await writer.drain()
        if not replies and self.keeps_open():
            await reader.read()
        return bool(replies)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's own is not derived from it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        replies, late_s = self._listener.answers(data, "udp")
        if late_s:
            asyncio.get_running_loop().call_later(late_s, self._send, replies, addr)
        else:
            self._send(replies, addr)

    def _send(self, replies: list[bytes], addr: tuple[str, int]) -> None:
        if not self._transport.is_closing():
            for reply in replies:
                self._transport.sendto(reply, addr)


class NameServer(Listener):
    """It answers for the zones that it knows, by origin ("shop.test"), and refuses everything else."""

    def __init__(self, *zones: Contents) -> None:
        super().__init__()
        self.zones = {zone.origin.to_text(omit_final_dot=True): zone for zone in zones}

    def answers(self, wire: bytes, transport: Transport) -> tuple[list[bytes], float]:
        query = question(wire)
        return ([] if query is None else [fitted(self.reply(query), query, transport)]), 0.0

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query, our_payload=PAYLOAD)
        asked = query.question[0]
        contents = self.contents(asked)
        if contents is None:
            reply.set_rcode(dns.rcode.REFUSED)
            return reply
        dnssec = bool(query.ednsflags & dns.flags.DO)
        said = contents.said(asked.name, asked.rdtype, dnssec=dnssec)
        reply.flags |= dns.flags.AA if said.authoritative else 0
        reply.set_rcode(dns.rcode.NOERROR if said.exists else dns.rcode.NXDOMAIN)
        reply.answer, reply.authority, reply.additional = said.answer, said.authority, said.additional
        if dnssec:
            reply.ednsflags |= dns.flags.DO
        return reply

    def contents(self, asked: dns.rrset.RRset) -> Contents | None:
        """Those of the deepest zone that the name is in; a DS is the parent's."""
        name = asked.name
        if asked.rdtype == dns.rdatatype.DS and name != dns.name.root:
            name = name.parent()
        while True:
            found = self.zones.get(name.to_text(omit_final_dot=True).lower())
            if found is not None or name == dns.name.root:
                return found
            name = name.parent()


class Recursor(Listener):
    """A resolver that has no way to go: it knows `server`, which knows everything.  It remembers nothing."""

    def __init__(self, server: NameServer) -> None:
        super().__init__()
        self._server = server

    def answers(self, wire: bytes, transport: Transport) -> tuple[list[bytes], float]:
        query = question(wire)
        return ([] if query is None else [fitted(self.reply(query), query, transport)]), 0.0

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        """CNAMEs followed from zone to zone."""
        reply = dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD)
        asked = query.question[0]
        name = asked.name
        for _ in range(CHAIN_MAX):
            part = self._server.reply(dns.message.make_query(name, asked.rdtype))
            reply.answer += part.answer
            reply.authority = part.authority
            reply.set_rcode(part.rcode())
            if not part.answer or part.answer[-1].rdtype != dns.rdatatype.CNAME or asked.rdtype == dns.rdatatype.CNAME:
                break
            name = part.answer[-1][0].target
        return reply


def question(wire: bytes) -> dns.message.Message | None:
    """The query, if it is one."""
    try:
        query = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return None
    return None if query.flags & dns.flags.QR or len(query.question) != 1 else query


def fitted(reply: dns.message.Message, query: dns.message.Message, transport: Transport) -> bytes:
    """As much as the query says it takes over UDP, else an empty reply with TC."""
    wire = reply.to_wire(max_size=65535)
    if transport == "tcp" or len(wire) <= max(query.payload if query.edns >= 0 else 0, 512):
        return wire
    cut = dns.message.make_response(query, our_payload=PAYLOAD)
    cut.flags |= (reply.flags & dns.flags.AA) | dns.flags.TC
    return cut.to_wire()
