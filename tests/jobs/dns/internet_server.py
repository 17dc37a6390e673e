"""A name server on a loopback address, UDP and TCP on one port, that can be told to misbehave."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

from tests.jobs.dns.internet_faults import Fault, Transport, Troubles, replies


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it came; `name` in lower case without the final dot, `by` "us" or the address of a resolver of
    the lab, `at` the loop's time."""

    name: str
    type: str
    transport: Transport
    by: str
    at: float
    query: dns.message.Message


class Server:
    """`reply` is what it would say if it were well, `origin` the zone in whose name its faults speak.

    `log` keeps every question; `asked` counts those of ours by (name, type, transport).
    """

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.log: list[Asked] = []
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.delay_s = 0.0
        self._troubles = Troubles()
        self._heard = asyncio.Event()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def place(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    async def start(self) -> None:
        """OSError: the port is taken at that address."""
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._converse, self.address, self.port)
        try:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (self.address, self.port))
        except OSError:
            await self.stop()
            raise

    @property
    def listens(self) -> bool:
        return self._udp is not None

    async def stop(self) -> None:
        """From now on nobody listens: the port is closed."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            for writer in self._open:
                writer.close()
            await self._tcp.wait_closed()
        self._udp = self._tcp = None

    def fault(
        self, fault: Fault, *, name: str | None = None, type: str | None = None, times: int | None = None
    ) -> None:
        """From now on it answers so: to questions of that name and type, so many times."""
        self._troubles.begin(fault, name, type, times)

    def slow(self, seconds: float) -> None:
        self.delay_s = seconds
        self.fault("slow")

    def heal(self) -> None:
        """No fault any more."""
        self._troubles.end()
        self.delay_s = 0.0

    def forget(self) -> None:
        """As if nothing had been asked yet."""
        self.log.clear()
        self.asked.clear()

    async def asked_so_often(self, times: int) -> None:
        """Return when we have asked `times` questions."""
        while self.asked.total() < times:
            self._heard.clear()
            await self._heard.wait()

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        raise NotImplementedError

    def origin(self, question: dns.rrset.RRset) -> str:
        return "."

    def answers(self, wire: bytes, transport: Transport, by: str = "us") -> tuple[list[bytes], float]:
        """The datagrams (or TCP messages) that answer one query, and how late."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return [], 0.0
        if query.flags & dns.flags.QR or len(query.question) != 1:
            return [], 0.0
        question = query.question[0]
        key = (question.name.to_text().lower().rstrip("."), dns.rdatatype.to_text(question.rdtype), transport)
        self.log.append(Asked(*key, by, asyncio.get_running_loop().time(), query))
        if by == "us":
            self.asked[key] += 1
            self._heard.set()
        fault = self._troubles.of(question)
        found = replies(fault, query, self.reply, transport, self.origin(question))
        return found, self.delay_s if fault == "slow" else 0.0

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                found, late_s = self.answers(await reader.readexactly(length), "tcp")
                if late_s:
                    await asyncio.sleep(late_s)
                for wire in found:
                    writer.write(struct.pack("!H", len(wire)) + wire)
                await writer.drain()
                if not found and self._is_mute():
                    await reader.read()  # until the other side gives up
                if not found:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    def _is_mute(self) -> bool:
        """Whether TCP is to stay open without a word."""
        return any(trouble.fault in ("tcp_silent", "silent") for trouble in self._troubles.all)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override] # always this one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        found, late_s = self._server.answers(data, "udp")
        if late_s:
            asyncio.get_running_loop().call_later(late_s, self._send, found, addr)
        else:
            self._send(found, addr)

    def _send(self, found: list[bytes], addr: tuple[str, int]) -> None:
        if not self._transport.is_closing():
            for wire in found:
                self._transport.sendto(wire, addr)
