"""`ctx.dns` that asks nobody: answers are canned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from jobs.dns.answer import Answer, failed
from jobs.dns.check import Check
from jobs.dns.once import Once
from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.dns.sighting import Sighting

QUESTIONS_MAX = 100_000


class FakeDns(Resolver):
    """`questions` are what was asked, (name, type) each; what nobody has an answer for does not exist.  A domain's name
    servers and the resolvers say the same; a check asks each question once."""

    def __init__(self) -> None:
        super().__init__(DnsSettings(resolvers=("192.0.2.53",)))  # an address of nobody (RFC 5737), never asked
        self.questions: list[tuple[str, str]] = []
        self._answers: dict[tuple[str, str], Answer] = {}

    def answer(self, name: str, rdtype: str, *values: str) -> None:
        """The records at `name`; none: the name exists and has no such record."""
        found = Answer(outcome="answer", values=values) if values else Answer(outcome="nodata")
        self._answers[name.lower(), rdtype.upper()] = found

    def fail(self, name: str, rdtype: str, reason: str = "servfail") -> None:
        """No server can tell."""
        self._answers[name.lower(), rdtype.upper()] = failed(reason)

    def clear(self) -> None:
        self.questions.clear()

    @asynccontextmanager
    async def check(self, domain: str) -> AsyncIterator[Check]:
        yield FakeCheck(self, domain)

    async def query(self, name: str, rdtype: str) -> Answer:
        if len(self.questions) >= QUESTIONS_MAX:
            raise AssertionError(f"over {QUESTIONS_MAX:,} questions were asked")
        self.questions.append((name, rdtype))
        await asyncio.sleep(0)  # as one that waits for a server gives way
        found = self._answers.get((name.lower(), rdtype.upper()), Answer(outcome="nxdomain"))
        return replace(found, servers={"fake": found.said})


class FakeCheck(Check):
    """One check of `domain`, whose zone it is."""

    def __init__(self, dns: FakeDns, domain: str) -> None:
        self._dns = dns
        self._domain = domain
        self._answers: Once[Answer] = Once()
        self._before = len(dns.questions)

    def thoroughly(self) -> FakeCheck:
        """All servers say the same here, so nothing more can be found out."""
        return self

    @property
    def questions(self) -> int:
        return len(self._dns.questions) - self._before

    async def sight(self, name: str, rdtype: str, *, visible: bool) -> Sighting:
        answer = await self.query(name, rdtype)
        return Sighting(
            name=name,
            type=rdtype,
            zone=self._domain,
            authorities={f"ns.{self._domain} (192.0.2.53)": answer},
            resolvers={"192.0.2.53": answer} if visible else {},
            authentic=False,
            bogus=False,
            quorum=1,
            name_servers=(f"ns.{self._domain}",),
        )

    async def query(self, name: str, rdtype: str) -> Answer:
        return await self._answers.get(f"{name} {rdtype}", lambda: self._dns.query(name, rdtype))

    async def published(self, name: str, rdtype: str) -> Answer:
        return await self.query(name, rdtype)
