"""The DNS as handlers ask it: what a domain's own servers say, what resolvers say, never an exception for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from jobs.dns.answer import Answer
from jobs.dns.authority import Authorities
from jobs.dns.budget import Budget
from jobs.dns.check import Check
from jobs.dns.errand import Errand
from jobs.dns.exchange import Exchange
from jobs.dns.recursive import Recursives
from jobs.dns.settings import DnsSettings, Server
from jobs.dns.sighting import Sighting
from jobs.dns.walk import Walk
from jobs.dns.zones import Zones


class Resolver:
    """`async with resolver.check("example.net") as check:`, then `check.sight(name, "TXT", visible=True)`.

    No answer is kept from one check to the next: one that reads its own cache tells people that what they have just
    published is missing.
    """

    def __init__(self, settings: DnsSettings) -> None:
        self.settings = settings
        exchange = Exchange(settings)
        authorities = Authorities(settings, exchange)
        self._walk = Walk(settings, authorities)
        self._zones = Zones(self._walk, authorities)
        self._recursives = Recursives(settings, exchange)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def servers(self) -> tuple[Server, ...]:
        """The recursive resolvers."""
        return self._recursives.servers

    @asynccontextmanager
    async def check(self, domain: str) -> AsyncIterator[Check]:
        """A shared view for one check of `domain` (as `names.normal` gives it), within [dns] check_questions and
        check_timeout."""
        with self._busy():
            errand = Errand(domain=domain, budget=self._budget())
            yield Check(errand, self._walk, self._zones, self._recursives)

    async def sight(self, name: str, rdtype: str, *, visible: bool) -> Sighting:
        """One question in a check of its own (`Check.sight`)."""
        async with self.check(name) as check:
            return await check.sight(name, rdtype, visible=visible)

    async def query(self, name: str, rdtype: str) -> Answer:
        """What the recursive resolvers say of the records `rdtype` ("TXT") at `name`, CNAMEs followed.

        Three or more are asked at a time, and a quorum of them must say the same; with one or two it is the first
        answer that any of them gives.
        """
        with self._busy():
            return await self._recursives.one_answer(name, rdtype, self._budget())

    async def close(self) -> None:
        """Return when the last question under way is answered; sockets live no longer than their question."""
        await self._idle.wait()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _budget(self) -> Budget:
        return Budget(self.settings.check_questions, self.settings.check_timeout)
