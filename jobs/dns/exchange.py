"""One question to one server and its reply, over UDP and, where that does not fit, TCP."""

from __future__ import annotations

import asyncio
import socket

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.rdatatype

from jobs.dns.answer import Answer, failed, read
from jobs.dns.settings import DnsSettings, Server


def question(name: str, rdtype: str, payload: int) -> dns.message.QueryMessage:
    """A query with a random id that asks for recursion and, by its AD bit, to be told of validation (RFC 6840, 5.7)."""
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=payload)
    query.flags |= dns.flags.AD
    return query


async def ask(server: Server, query: dns.message.Message, settings: DnsSettings) -> Answer:
    """What `server` says to `query`.  Whatever the network or the server does wrong is an answer of outcome "error"."""
    try:
        reply = await _over_udp(server, query, settings.timeout)
        if reply is None:
            return failed("malformed")
        if not reply.flags & dns.flags.TC:
            return read(reply)
        if not settings.tcp_fallback:
            return failed("truncated")
        return read(await dns.asyncquery.tcp(query, server.address, settings.timeout, server.port))
    except (TimeoutError, dns.exception.Timeout):
        return failed("timeout")
    except (OSError, EOFError):
        return failed("unreachable")
    except dns.exception.DNSException:
        return failed("malformed")


async def _over_udp(server: Server, query: dns.message.Message, timeout_s: float) -> dns.message.Message | None:
    """The first reply that fits the query; None if only replies that do not came in time, TimeoutError if none did.

    A reply that fits nothing may be forged, and the true one still on its way, so we go on listening.  The socket is
    connected and its port new for each question: the kernel drops other senders, and reports a closed port.
    """
    backend = dns.asyncbackend.get_backend("asyncio")
    family = dns.inet.af_for_address(server.address)
    place = (server.address, server.port)
    misfits = 0
    opening = backend.make_socket(family, socket.SOCK_DGRAM, 0, None, place)  # type: ignore[no-untyped-call] # theirs
    async with await opening as sock:
        await dns.asyncquery.send_udp(sock, query, None)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        reply, _received, _sender = await dns.asyncquery.receive_udp(sock)
                    except dns.exception.DNSException:
                        misfits += 1
                        continue
                    if isinstance(reply, dns.message.Message) and query.is_response(reply):
                        return reply
                    misfits += 1
        except TimeoutError:
            if misfits:
                return None
            raise
