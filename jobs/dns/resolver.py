"""The resolver handlers ask: every configured server in turn, CNAMEs to their end, never an exception for an answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import dns.resolver

from jobs.dns.answer import Answer, failed
from jobs.dns.exchange import ask, question
from jobs.dns.settings import DnsSettings, Server, server

MAX_CHAIN = 16
"""CNAME links followed before a chain counts as a loop; resolvers give up at 8 to 16."""

SILENT = frozenset({"timeout", "malformed"})
"""Reasons to ask a server again at once.  One that said SERVFAIL or REFUSED has spoken, and caches it (RFC 2308, 7)."""


class Resolver:
    """Asks the servers of `settings`, or the system's where it names none.  It caches nothing: a check that reads its
    own cache tells people that what they have just published is missing."""

    def __init__(self, settings: DnsSettings) -> None:
        self.servers = tuple(server(text) for text in settings.resolvers) or system_servers()
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def query(self, name: str, rdtype: str) -> Answer:
        """The records of type `rdtype` ("TXT") at `name` (as `names.normal` gives it), CNAMEs followed."""
        self._under_way += 1
        self._idle.clear()
        try:
            async with self._slots:
                return await self._follow(name, rdtype)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def close(self) -> None:
        """Return when the last question under way is answered; sockets live no longer than their question."""
        await self._idle.wait()

    async def _follow(self, name: str, rdtype: str) -> Answer:
        """Recursive servers follow CNAMEs themselves; one that leaves the rest to us is asked for the target."""
        chain: tuple[str, ...] = ()
        said: dict[str, str] = {}
        asked = name
        while True:
            answer = await self._ask_each(asked, rdtype, said)
            chain += answer.chain
            if not answer.dangling:
                return replace(answer, chain=chain, servers=said)
            asked = chain[-1]
            if asked in (name, *chain[:-1]) or len(chain) >= MAX_CHAIN:
                return replace(failed("cname_loop"), chain=chain, servers=said)

    async def _ask_each(self, name: str, rdtype: str, said: dict[str, str]) -> Answer:
        """The first answer any server gives; without one, the failure of the server that stands first."""
        failures: dict[Server, Answer] = {}
        for _ in range(self._settings.tries):
            for place in self.servers:
                if place in failures and failures[place].reason not in SILENT:
                    continue
                answer = await ask(place, question(name, rdtype, self._settings.edns_payload), self._settings)
                said[str(place)] = answer.said
                if answer.outcome != "error":
                    return answer
                failures[place] = answer
        return failures[self.servers[0]]


def system_servers() -> tuple[Server, ...]:
    """The name servers of /etc/resolv.conf; the local one where it names none, as the C library does."""
    try:
        found = dns.resolver.Resolver().nameservers
    except dns.resolver.NoResolverConfiguration:
        found = []
    return tuple(Server(str(address)) for address in found) or (Server("127.0.0.1"),)
