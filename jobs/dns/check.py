"""One check's view of the DNS: whoever asks the same gets the same answer, and all of it costs so much at most."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from jobs.dns.answer import Answer, failed
from jobs.dns.delegation import ROOT, Zone, parent, within
from jobs.dns.errand import Errand
from jobs.dns.once import Once
from jobs.dns.recursive import MAX_CHAIN, Recursives
from jobs.dns.sighting import Sighting
from jobs.dns.voices import beyond_doubt, joined, prevailing, unanimous, without_our_faults
from jobs.dns.walk import Lost, Walk
from jobs.dns.zones import Zones

MAX_LINKS = 32
"""CNAMEs into other zones that one sighting follows: servers that disagree may each lead somewhere else."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the servers of one zone say of a name in it."""

    zone: Zone | None
    answers: Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Said:
    """What they say to one question, and which of them (as `Told.answers` names them) say that the name lies in a zone
    below."""

    answers: Mapping[str, Answer]
    below: frozenset[str] = frozenset()


@dataclass(slots=True)
class Chase:
    """The CNAMEs of one sighting."""

    rdtype: str
    links: int = 0


class Check:
    """What is remembered here is forgotten with the check, so the next one sees what has changed."""

    def __init__(self, errand: Errand, walk: Walk, zones: Zones, recursives: Recursives) -> None:
        self._errand = errand
        self._walk = walk
        self._zones = zones
        self._recursives = recursives
        self._surveyed: dict[str, Zone] = {}
        self._surveys: Once[Zone] = Once()
        self._found: Once[Zone | Lost] = Once()
        self._told: Once[Told] = Once()
        self._seen: Once[Mapping[str, Answer]] = Once()
        self._one: Once[Answer] = Once()
        self._heard: Once[Answer] = Once()

    def thoroughly(self) -> Check:
        """A check that begins anew, with what this one may still spend, before anything is held against the domain:
        several servers of each zone on the way down are asked for the delegation, and all of those that a record leads
        to."""
        errand = replace(self._errand, thorough=True, cuts={})
        return Check(errand, self._walk, self._zones, self._recursives)

    @property
    def questions(self) -> int:
        """How many questions it has cost so far."""
        return self._errand.budget.sent

    async def sight(self, name: str, rdtype: str, *, visible: bool) -> Sighting:
        """What all name servers of the zone of `name` (in `names.normal` form) say, and, if `visible`, all resolvers.

        The first check of a record goes without: resolvers remember for up to an hour that a record is missing, and
        would be the last to see it.
        """
        if not visible:
            told, answers = await self._followed(name, Chase(rdtype), ())
            return self._sighting(name, rdtype, told, answers, {})
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self._followed(name, Chase(rdtype), ()))
            seeing = group.create_task(self._visible(name, rdtype))
        told, answers = publishing.result()
        return self._sighting(name, rdtype, told, answers, seeing.result())

    async def query(self, name: str, rdtype: str) -> Answer:
        """What the resolvers say with one voice (`Resolver.query`)."""

        async def ask() -> Answer:
            return await self._recursives.one_answer(name, rdtype, self._errand.budget)

        return await self._one.get(f"{name} {rdtype}", ask)

    async def published(self, name: str, rdtype: str) -> Answer:
        """What name servers say with one voice, and no resolver has heard of it; for what a record leads to, while of
        the record itself `sight` tells more.  A record counts as soon as a server that answers has it; that there is
        none counts only when all servers say so, since one that lags behind, or is ill, is no reason to find fault
        with a domain.  In a thorough check nothing counts that not all of them say."""
        if self._errand.thorough:
            _, answers = await self._followed(name, Chase(rdtype), ())
            return unanimous(answers, rdtype)
        answer = await self._first_said(name, rdtype)
        if answer.outcome in ("answer", "error"):
            return answer
        _, answers = await self._followed(name, Chase(rdtype), ())
        return beyond_doubt(answers)

    async def _first_said(self, name: str, rdtype: str) -> Answer:
        """In the domain what most servers of the zone say; elsewhere what the first one says that answers."""
        chain: tuple[str, ...] = ()
        asked = name
        while True:
            answer = await self._said(asked, rdtype)
            chain += answer.chain
            if not answer.dangling:
                return replace(answer, chain=chain)
            asked = chain[-1]
            if asked in (name, *chain[:-1]) or len(chain) >= MAX_CHAIN:
                return replace(failed("cname_loop"), chain=chain)

    async def _said(self, name: str, rdtype: str) -> Answer:
        """One link of a chain."""

        async def ask() -> Answer:
            cut = await self._walk.cut(name, self._errand)
            if isinstance(cut, Lost):
                return cut.failure
            return await self._walk.any_answer(cut, name, rdtype, self._errand)

        if within(name, self._errand.domain):
            return prevailing((await self._tell(name, rdtype)).answers)
        return await self._heard.get(f"{name} {rdtype}", ask)

    def _sighting(
        self, name: str, rdtype: str, told: Told, answers: Mapping[str, Answer], seen: Mapping[str, Answer]
    ) -> Sighting:
        zone = told.zone
        return Sighting(
            name=name,
            type=rdtype,
            zone=zone.name if zone else None,
            authorities=answers,
            resolvers=seen,
            authentic=self._recursives.vouched(seen),
            bogus=self._recursives.found_bogus(seen),
            quorum=self._recursives.quorum,
            name_servers=zone.hosts if zone else (),
            only_parent=zone.only_parent if zone else (),
            only_zone=zone.only_zone if zone else (),
        )

    async def _visible(self, name: str, rdtype: str) -> Mapping[str, Answer]:
        async def ask() -> Mapping[str, Answer]:
            return await self._recursives.each(name, rdtype, self._errand.budget)

        return await self._seen.get(f"{name} {rdtype}", ask)

    async def _followed(self, name: str, chase: Chase, trail: tuple[str, ...]) -> tuple[Told, Mapping[str, Answer]]:
        """What the servers say, each CNAME followed to its end: by the same server as long as it knows, else by those
        of the zone that it leads into, whose words stand beside."""
        told = await self._tell(name, chase.rdtype)
        answers = dict(told.answers)
        for target in dict.fromkeys(answer.chain[-1] for answer in told.answers.values() if answer.dangling):
            ends = await self._end(target, chase, (*trail, name))
            for place, answer in told.answers.items():
                if answer.dangling and answer.chain[-1] == target:
                    end = ends if isinstance(ends, Answer) else ends.get(place) or prevailing(ends)
                    answers[place] = joined(answer, end)
                    if not isinstance(ends, Answer):
                        answers = {**{other: joined(answer, end) for other, end in ends.items()}, **answers}
        return told, answers

    async def _end(self, target: str, chase: Chase, trail: tuple[str, ...]) -> Mapping[str, Answer] | Answer:
        """What is said there, by whom; or why nobody is asked."""
        chase.links += 1
        if target in trail or len(trail) >= MAX_CHAIN:
            return failed("cname_loop")
        if chase.links > MAX_LINKS:
            return failed("budget")
        _, ends = await self._followed(target, chase, trail)
        return ends

    async def _tell(self, name: str, rdtype: str) -> Told:
        async def ask() -> Told:
            zone = await self._zone_above(name)
            said = await self._say(zone, name, rdtype)
            answers = said.answers
            if said.below and not isinstance(zone, Lost):
                deeper = await self._zone_below(zone, name)
                if deeper is not zone:
                    answers = {**_denials(zone, said), **(await self._say(deeper, name, rdtype)).answers}
                    zone = deeper
            return Told(None if isinstance(zone, Lost) else zone, answers)

        return await self._told.get(f"{name} {rdtype}", ask)

    async def _say(self, zone: Zone | Lost, name: str, rdtype: str) -> Said:
        if isinstance(zone, Lost):
            return Said({_servers_of(zone.zone): zone.failure})
        said, below = await self._zones.say(zone, name, rdtype, self._errand)
        answers = {str(spot): answer for spot, answer in without_our_faults(said).items()}
        homeless = {host: failed(reason) for host, reason in zone.homeless.items()}
        return Said({**answers, **homeless}, frozenset(map(str, below)))

    async def _zone_above(self, name: str) -> Zone | Lost:
        """The domain's zone for what is below it, unless a deeper one is known by now: where a record's name ends that
        zone, its servers say so when they are asked for the record.  A thorough check asks them for each record, since
        not all of them may say so.  Any other name's zone is looked for."""
        domain = self._errand.domain
        if name == domain or not within(name, domain):
            return await self._zone_of(name)
        first = await self._zone_above(domain)
        at = domain if self._errand.thorough else name
        while at not in self._surveyed and at != domain:
            at = parent(at)
        return self._surveyed.get(at, first)

    async def _zone_of(self, name: str) -> Zone | Lost:
        """The zone of `name` with all its servers; a look-up of a server's address never comes here."""
        return await self._found.get(name, partial(self._find, name))

    async def _zone_below(self, zone: Zone, name: str) -> Zone | Lost:
        """The zone of `name`, now that some of those of `zone` have said that it lies deeper."""
        return await self._found.get(f"{name} below {zone.name}", partial(self._find, name))

    async def _find(self, name: str) -> Zone | Lost:
        cut = await self._walk.cut(name, self._errand)
        if isinstance(cut, Lost):
            return cut

        async def survey() -> Zone:
            zone = self._surveyed[cut.zone] = await self._zones.survey(cut, self._errand)
            return zone

        return await self._surveys.get(cut.zone, survey)


def _denials(zone: Zone, said: Said) -> Mapping[str, Answer]:
    """What those servers of a zone say who do not know of the zone below it, while others do: resolvers that ask them
    go no further either, so they count.  Those of a public suffix are not the owner's, and left out."""
    if not zone.hosts:
        return {}
    return {
        place: answer for place, answer in said.answers.items() if place not in said.below and answer.outcome != "error"
    }


def _servers_of(zone: str) -> str:
    return "the root servers" if zone == ROOT else f"the servers of {zone}"
