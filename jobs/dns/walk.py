"""The way from the root down to the zone of a name, and to the addresses of a name server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dns.message

from jobs.dns import published, roots
from jobs.dns.answer import Answer, failed
from jobs.dns.authority import Authorities
from jobs.dns.delegation import ROOT, Cut, Spot, depth, parent, within
from jobs.dns.errand import Errand
from jobs.dns.kept import Kept
from jobs.dns.referral import Alias, Inside, Meaning, meaning, own_servers
from jobs.dns.settings import DnsSettings
from jobs.dns.shut import Shut

TOP_KEPT, TOP_AGE_S = 2_000, 3600.0
HOSTS_KEPT, HOST_AGE_S = 20_000, 300.0
SPOTS_TRIED = 8
"""Servers of one zone that are tried for one question on the way."""

BESIDE_BARE = 4
"""Servers without glue that a thorough check looks up to hear what they say beside the first."""

NEVER_ASKED = frozenset({"no_route", "blocked"})
"""Failures without a question: they cost no try."""

DEPTH_OF_TENANTS = 2
"""Labels of the least name that can be somebody's own."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Not even the top-level domain could be found: what was wrong with the servers of `zone`."""

    zone: str
    failure: Answer


class Walk:
    """Delegations of top-level domains are kept by their TTL, for an hour at most, and addresses of name servers for
    five minutes.  Nothing that is at or below the checked domain is kept, so that the next check sees what its owner or
    his registrar has changed in the meantime; nor is the delegation of any zone below a top-level domain."""

    def __init__(self, settings: DnsSettings, authorities: Authorities) -> None:
        self._authorities = authorities
        self._tries = settings.tries
        self._root = Cut(zone=ROOT, hosts={"": settings.roots or roots.ADDRESSES})
        self._tops: Kept[Cut] = Kept(TOP_KEPT, TOP_AGE_S)
        self._hosts: Kept[tuple[str, ...]] = Kept(HOSTS_KEPT, HOST_AGE_S)
        self._shut = Shut()

    async def cut(self, name: str, errand: Errand) -> Cut | Lost:
        """The zone that `name` lies in, by its delegation.  Where a zone's servers do not say whether there is another
        one below, it is as far as it goes: whoever asks them for the name hears what is wrong with them."""
        cut = self._deepest(name, errand)
        asked = name
        while True:
            server, found = await self._onward(cut, asked, errand)
            match found:
                case Cut():
                    cut = self._met(found, errand)
                case Inside(zone) if zone != cut.zone and server is not None:
                    return await self._in_place(zone, server, cut, errand)
                case Alias() if parent(asked) != cut.zone and asked != cut.zone:
                    asked = parent(asked)
                case Answer() if depth(cut.zone) < DEPTH_OF_TENANTS:
                    self._tops.forget(cut.zone)
                    return Lost(cut.zone, found)
                case _:
                    return cut

    async def addresses(self, host: str, errand: Errand) -> tuple[str, ...] | str:
        """Those of a name server outside of what is asked about; or why there are none.

        Nobody who looks for one waits for somebody else who does: two zones whose servers are named in each other would
        wait for ever.
        """
        ours = within(host, errand.domain)
        if not ours and (kept := self._hosts.get(host)):
            return kept
        onward = errand.leads_to(host)
        if onward is None or "\\" in host or host == ROOT:
            return "address_unknown"
        cut = await self.cut(host, onward)
        if isinstance(cut, Lost):
            return "address_unknown"
        answers = await self._both(cut, host, onward)
        found = tuple(value for answer in answers for value in answer.values)
        failed_too = any(answer.outcome == "error" for answer in answers)
        if not found:
            return "address_unknown" if failed_too else "no_address"
        if not ours and not failed_too:
            self._hosts.put(host, found, min(HOST_AGE_S if a.ttl_s is None else a.ttl_s for a in answers))
        return found

    async def records(self, cut: Cut, host: str, errand: Errand) -> tuple[str, ...]:
        """Addresses of a host by the word of the zone that it lies in."""
        return tuple(value for answer in await self._both(cut, host, errand) for value in answer.values)

    async def any_answer(self, cut: Cut, name: str, rdtype: str, errand: Errand) -> Answer:
        """What the first server of a zone says that says anything usable."""

        def said(reply: dns.message.Message, asked: str, zone: str) -> Answer:
            return published.read(reply, asked, rdtype, zone)

        _, answer = await self._first(cut, name, rdtype, errand, said)
        assert isinstance(answer, Answer)  # noqa: S101 # as `said` gives it
        return answer

    async def _both(self, cut: Cut, host: str, errand: Errand) -> list[Answer]:
        """A and AAAA, at a time."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.any_answer(cut, host, rdtype, errand)) for rdtype in ("A", "AAAA")]
        return [task.result() for task in tasks]

    async def _onward(self, cut: Cut, name: str, errand: Errand) -> tuple[Spot | None, Meaning]:
        """What the servers of a zone say of where `name` lies, and who says so.  Zones at the top are everybody's, so
        what is found out about them by waiting is told to all checks."""
        at_top = depth(cut.zone) < DEPTH_OF_TENANTS
        if at_top and (failure := self._shut.failure(cut.zone)):
            return None, failure
        server, found = await self._first(cut, name, "SOA", errand, meaning)
        if at_top and isinstance(found, Answer):
            self._shut.found(cut.zone, found)
        elif at_top:
            self._shut.open(cut.zone)
        if errand.thorough and not errand.trail and name != cut.zone and not isinstance(found, Answer):
            found = await self._beside(cut, name, found, errand)
        return server, found

    async def _beside(self, cut: Cut, name: str, found: Meaning, errand: Errand) -> Meaning:
        """`found` and what other servers of the same zone say: one of them that knows of no delegation, or of an old
        one, leads away from servers that know better."""
        spots = list(cut.glue)
        for host in () if spots else self._bare(cut, errand)[:BESIDE_BARE]:
            spots += await self._spots(cut, host, errand)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._authorities.ask(spot, name, "SOA", errand, tries=1))
                for spot in self._ordered(spots, errand)[:SPOTS_TRIED]
            ]
        replies = [reply for task in tasks if isinstance(reply := task.result(), dns.message.Message)]
        for cut_below in (said for reply in replies if isinstance(said := meaning(reply, name, cut.zone), Cut)):
            if not isinstance(found, Cut):
                found = cut_below
            if cut_below.zone == found.zone:
                found = found.beside(cut_below)
        return found

    async def _in_place(self, zone: str, server: Spot, above: Cut, errand: Errand) -> Cut:
        """A zone whose parent's servers answer for it themselves, so that nobody ever refers to it."""
        reply = await self._authorities.ask(server, zone, "NS", errand)
        cut = own_servers(reply, zone) if isinstance(reply, dns.message.Message) else None
        return errand.met(cut or Cut(zone=zone, hosts=above.hosts, by_parent=False))

    async def _first(
        self,
        cut: Cut,
        name: str,
        rdtype: str,
        errand: Errand,
        read: Callable[[dns.message.Message, str, str], Meaning],
    ) -> tuple[Spot | None, Meaning]:
        """The first usable meaning of any server's reply, and whose it is; else the last one's failure.

        One try each and then from the beginning, since somebody who is silent costs `timeout` each time.
        """
        settled: set[Spot] = set()
        failure = failed("no_address")
        tried = 0
        while True:
            before = tried
            for host in (None, *self._bare(cut, errand)):
                for spot in self._ordered(await self._spots(cut, host, errand), errand):
                    if spot in settled:
                        continue
                    if tried >= max(self._tries, SPOTS_TRIED):
                        return None, failure
                    reply = await self._authorities.ask(spot, name, rdtype, errand, tries=1)
                    found = reply if isinstance(reply, Answer) else read(reply, name, cut.zone)
                    if not isinstance(found, Answer) or found.outcome != "error":
                        return spot, found
                    failure = found
                    tried += found.reason not in NEVER_ASKED
                    if not errand.silences[spot.address]:
                        settled.add(spot)
            if tried == before or tried >= self._tries or failure.reason == "budget":
                return None, failure

    def _bare(self, cut: Cut, errand: Errand) -> list[str]:
        """Servers without glue, which are looked up only when the others have failed."""
        bare = [host for host, glue in cut.hosts.items() if not glue]
        return bare[: 2 if errand.trail else SPOTS_TRIED]

    async def _spots(self, cut: Cut, host: str | None, errand: Errand) -> Sequence[Spot]:
        """Those of a host without glue; None: all that have some."""
        if host is None:
            return cut.glue
        found = await self.addresses(host, errand)
        return () if isinstance(found, str) else [Spot(host, address) for address in found]

    def _ordered(self, spots: Sequence[Spot], errand: Errand) -> list[Spot]:
        """Those who answer and can be asked at once first, and not always the same."""
        shuffled = random.sample(spots, k=len(spots))
        return sorted(shuffled, key=lambda spot: (errand.silences[spot.address], self._authorities.wait_s(spot)))

    def _met(self, cut: Cut, errand: Errand) -> Cut:
        cut = errand.met(cut)
        if depth(cut.zone) == 1 and cut.zone != errand.domain:
            self._tops.put(cut.zone, cut, cut.ttl_s)
        return cut

    def _deepest(self, name: str, errand: Errand) -> Cut:
        at = name
        while at != ROOT:
            top = self._tops.get(at) if depth(at) == 1 and at != errand.domain else None
            if cut := errand.cuts.get(at) or top:
                return cut
            at = parent(at)
        return self._root
