"""One datagram to one server and the first that fits it back, through a socket of its own."""

from __future__ import annotations

import asyncio
import errno
import socket

from jobs.dns.question import Fit, Sent
from jobs.dns.settings import Server

LARGEST = 4096
"""More than [dns] edns_payload may say we take."""

_OUR_SIDE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class NoRoute(OSError):
    """This machine has no way to such an address (IPv6, mostly): that says nothing of the server."""


class Misfits(TimeoutError):
    """Something came, but nothing that fits the question."""


async def over_udp(place: Server, sent: Sent, timeout_s: float) -> tuple[Fit, bytes]:
    """The first reply that fits; TimeoutError or OSError.

    A reply that fits nothing may be forged, and the true one still on its way, so we go on listening.  The socket is
    new for each question and connected: the kernel picks a random port, drops other senders, and reports a closed port.
    """
    loop = asyncio.get_running_loop()
    misfits = 0
    with _connected(place) as sock:
        sock.send(sent.wire)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    reply = await loop.sock_recv(sock, LARGEST)
                    fit = sent.fit(reply)
                    if fit != "no":
                        return fit, reply
                    misfits += 1
        except TimeoutError:
            raise Misfits if misfits else TimeoutError from None


async def over_tcp(place: Server, sent: Sent, timeout_s: float) -> bytes:
    """The reply that fits; ConnectionError if the server talks of something else.  TimeoutError, OSError, EOFError."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(place.address, place.port)
        try:
            writer.write(len(sent.wire).to_bytes(2, "big") + sent.wire)
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(2), "big")
            reply = await reader.readexactly(size)
        finally:
            writer.transport.abort()
    if sent.fit(reply) == "no":
        raise ConnectionError("a reply to another question")
    return reply


def _connected(place: Server) -> socket.socket:
    sock = None
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in place.address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect((place.address, place.port))
    except OSError as error:
        if sock is not None:
            sock.close()
        if error.errno in _OUR_SIDE:
            raise NoRoute(*error.args) from error
        raise
    return sock
