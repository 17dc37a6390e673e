"""The recursive resolvers: what the world sees, and whether DNSSEC vouches for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import dns.resolver

from jobs.dns.answer import Answer, failed, read
from jobs.dns.budget import Budget
from jobs.dns.exchange import SILENT, Exchange
from jobs.dns.question import Question
from jobs.dns.settings import DnsSettings, Server, server

MAX_CHAIN = 16
"""CNAME links followed before a chain counts as a loop; resolvers give up at 8 to 16."""

VOTERS = 3
"""From so many resolvers on they are asked at a time and must agree; fewer stand in for each other, as those of a
resolv.conf do, or a single one that is down would leave everything unknown."""


class Recursives:
    """The servers of `settings`, or the system's where it names none."""

    def __init__(self, settings: DnsSettings, exchange: Exchange) -> None:
        named = tuple(server(text) for text in settings.resolvers) or system_servers()
        self.servers = tuple(dict.fromkeys(named))  # one that is named twice has one vote
        self.quorum = min(settings.quorum, len(self.servers))
        self._validating = frozenset(str(server(text)) for text in settings.validating)
        self._tries = settings.tries
        self._exchange = exchange

    async def one_answer(self, name: str, rdtype: str, budget: Budget) -> Answer:
        """What they say with one voice."""
        if len(self.servers) < VOTERS:
            return await self._in_turn(name, rdtype, budget)
        return agreed(await self.each(name, rdtype, budget), rdtype, self.quorum)

    async def each(self, name: str, rdtype: str, budget: Budget) -> Mapping[str, Answer]:
        """What each of them says, asked at a time."""
        async with asyncio.TaskGroup() as group:
            tasks = {
                str(place): group.create_task(self._settled(place, name, rdtype, budget)) for place in self.servers
            }
        return {place: task.result() for place, task in tasks.items()}

    def vouched(self, answers: Mapping[str, Answer]) -> bool:
        """Whether one that validates has found the records signed, and unchanged."""
        return any(answer.authentic and answer.outcome != "error" for answer in self._believed(answers))

    def found_bogus(self, answers: Mapping[str, Answer]) -> bool:
        """Whether one refuses them for their signatures, and none vouches for them."""
        return any(answer.reason == "bogus" for answer in self._believed(answers)) and not self.vouched(answers)

    def _believed(self, answers: Mapping[str, Answer]) -> list[Answer]:
        return [answer for place, answer in answers.items() if not self._validating or place in self._validating]

    async def _settled(self, place: Server, name: str, rdtype: str, budget: Budget) -> Answer:
        """What one says.  A SERVFAIL has many causes: it is DNSSEC's if the resolver answers when told not to validate
        (CD) and fails again when it may, so that a hiccup between two questions is not taken for one."""
        answer = await self._patiently(place, name, rdtype, budget)
        if answer.reason != "servfail":
            return answer
        unchecked = await self._patiently(place, name, rdtype, budget, unchecked=True)
        if unchecked.outcome == "error":
            return answer
        again = await self._patiently(place, name, rdtype, budget)
        return failed("bogus") if again.reason == "servfail" else again

    async def _patiently(
        self, place: Server, name: str, rdtype: str, budget: Budget, *, unchecked: bool = False
    ) -> Answer:
        answer = failed("timeout")
        for _ in range(self._tries):
            answer = await self._follow(place, name, rdtype, budget, unchecked=unchecked)
            if answer.reason not in SILENT:
                break
        return answer

    async def _in_turn(self, name: str, rdtype: str, budget: Budget) -> Answer:
        """The first answer that any server gives; without one, the failure of the server that stands first."""
        failures: dict[Server, Answer] = {}
        said: dict[str, str] = {}
        for _ in range(self._tries):
            for place in self.servers:
                if place in failures and failures[place].reason not in SILENT:
                    continue
                answer = await self._follow(place, name, rdtype, budget)
                said[str(place)] = answer.said
                if answer.outcome != "error":
                    return replace(answer, servers=said)
                failures[place] = answer
        return replace(failures[self.servers[0]], servers=said)

    async def _follow(
        self, place: Server, name: str, rdtype: str, budget: Budget, *, unchecked: bool = False
    ) -> Answer:
        """Recursive servers follow CNAMEs themselves; one that leaves the rest to us is asked for the target."""
        chain: tuple[str, ...] = ()
        asked = name
        while True:
            question = Question(asked, rdtype, recursive=True, unchecked=unchecked)
            reply = await self._exchange.ask(place, question, budget, tries=1)
            answer = reply if isinstance(reply, Answer) else read(reply)
            chain += answer.chain
            if not answer.dangling:
                return replace(answer, chain=chain)
            asked = chain[-1]
            if asked in (name, *chain[:-1]) or len(chain) >= MAX_CHAIN:
                return replace(failed("cname_loop"), chain=chain)


def agreed(answers: Mapping[str, Answer], rdtype: str, quorum: int) -> Answer:
    """What at least `quorum` of them say, if nothing else is said as often.

    Two ways of not having a record (no such name, no such record) are one.  Addresses may differ from one resolver to
    the next by design: all of them are the answer.
    """
    said = {place: answer.said for place, answer in answers.items()}
    usable = [answer for answer in answers.values() if answer.outcome != "error"]
    votes = Counter(_vote(answer) for answer in usable)
    (first, most), (_, next_most) = [*votes.most_common(2), (None, 0), (None, 0)][:2]
    if most >= quorum and most > next_most:
        chosen = [answer for answer in usable if _vote(answer) == first]
        return replace(chosen[0], authentic=any(answer.authentic for answer in chosen), servers=said)
    absent = [answer for answer in usable if answer.outcome in ("nxdomain", "nodata")]
    there = [answer for answer in usable if answer.outcome == "answer"]
    if len(absent) >= quorum > len(there):
        return replace(absent[0], outcome="nodata", servers=said)
    if rdtype in ("A", "AAAA") and len(there) >= quorum > len(absent):
        values = tuple(dict.fromkeys(value for answer in there for value in answer.values))
        return replace(there[0], values=values, servers=said)
    if len(usable) >= quorum:
        return replace(failed("disagree"), servers=said)
    reasons = [answer.reason for answer in answers.values() if answer.outcome == "error"]
    return replace(failed("bogus" if "bogus" in reasons else reasons[0]), servers=said)


def _vote(answer: Answer) -> tuple[str, frozenset[str]]:
    return answer.outcome, frozenset(answer.values)


def system_servers() -> tuple[Server, ...]:
    """The name servers of /etc/resolv.conf; the local one where it names none, as the C library does."""
    try:
        found = dns.resolver.Resolver().nameservers
    except dns.resolver.NoResolverConfiguration:
        found = []
    return tuple(Server(str(address)) for address in found) or (Server("127.0.0.1"),)
