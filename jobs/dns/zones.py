"""All name servers of a zone, the zone's own and its parent's, and what each of them says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping

import dns.message

from jobs.dns import published, suffixes
from jobs.dns.answer import Answer
from jobs.dns.authority import Authorities
from jobs.dns.delegation import ROOT, Cut, Spot, Zone, within
from jobs.dns.errand import Errand
from jobs.dns.exchange import Reply
from jobs.dns.referral import leaves, own_servers, referral
from jobs.dns.walk import Walk

HOSTS_MAX = 16
"""Name servers of one zone that are asked; with 13 a referral is full."""

SPOTS_MAX = 32
"""Their addresses."""

SUFFIX_SPOTS = 3
"""Servers of a public suffix that are asked, of each family."""


class Zones:
    def __init__(self, walk: Walk, authorities: Authorities) -> None:
        self._walk = walk
        self._authorities = authorities

    async def survey(self, cut: Cut, errand: Errand) -> Zone:
        """Whom to ask: the servers of the delegation, and those which the zone names itself in its NS.

        People change one and forget the other, and resolvers use either; so a server that stands in one place only is
        asked too, and told of.
        """
        if cut.zone == ROOT or await suffixes.is_nobodys(cut.zone):
            return await self._some(cut, errand)
        spots, homeless = await self._settled(cut.hosts, errand)
        own = await self._own(cut.zone, spots[:SPOTS_MAX], errand)
        own = await self._with_addresses(cut, own, errand)
        added = {host: addresses for host, addresses in own.items() if host not in cut.hosts}
        more, more_homeless = await self._settled(added, errand)
        glued = [Spot(host, address) for host in cut.hosts for address in own.get(host, ())]
        every = tuple(dict.fromkeys([*spots, *glued, *more]))
        found = {spot.host for spot in every}
        homeless = {host: why for host, why in {**homeless, **more_homeless}.items() if host not in found}
        return Zone(
            name=cut.zone,
            spots=every[:SPOTS_MAX],
            hosts=tuple(sorted(cut.hosts.keys() | own.keys())),
            homeless={**homeless, **{str(spot): "budget" for spot in every[SPOTS_MAX:]}},
            only_parent=tuple(sorted(cut.hosts.keys() - own.keys())) if own and cut.by_parent else (),
            only_zone=tuple(sorted(added)) if cut.by_parent else (),
        )

    async def say(self, zone: Zone, name: str, rdtype: str, errand: Errand) -> tuple[Mapping[Spot, Answer], set[Spot]]:
        """What each server of `zone` says of a name in it, CNAMEs as far as the zone goes; and which of them say that
        the name lies in a zone below."""
        replies = await self._ask_all(zone.spots, name, rdtype, errand)
        below: set[Spot] = set()
        for spot, reply in replies.items():
            if isinstance(reply, dns.message.Message) and leaves(reply, name, zone.name):
                below.add(spot)
                if cut := referral(reply, name, zone.name):
                    errand.met(cut)
        return {spot: _read(reply, name, rdtype, zone.name) for spot, reply in replies.items()}, below

    async def _some(self, cut: Cut, errand: Errand) -> Zone:
        """A public suffix: a name in its zone is one that nobody has registered, and the servers are not its owner's.
        Some of each family, since this machine may have no way to the other."""
        hosts = random.sample(sorted(cut.hosts), k=min(SUFFIX_SPOTS, len(cut.hosts)))
        spots, homeless = await self._settled({host: cut.hosts[host] for host in hosts}, errand)
        random.shuffle(spots)
        six = [spot for spot in spots if ":" in spot.address]
        four = [spot for spot in spots if ":" not in spot.address]
        return Zone(name=cut.zone, spots=(*four[:SUFFIX_SPOTS], *six[:SUFFIX_SPOTS]), homeless=homeless)

    async def _own(self, zone: str, spots: Iterable[Spot], errand: Errand) -> dict[str, tuple[str, ...]]:
        """The NS set by the zone's own word; where its servers disagree, all that any of them names."""
        found: dict[str, tuple[str, ...]] = {}
        for reply in (await self._ask_all(spots, zone, "NS", errand)).values():
            cut = own_servers(reply, zone) if isinstance(reply, dns.message.Message) else None
            for host, addresses in cut.hosts.items() if cut else ():
                found[host] = tuple(dict.fromkeys((*found.get(host, ()), *addresses)))
        return found

    async def _with_addresses(
        self, cut: Cut, own: Mapping[str, tuple[str, ...]], errand: Errand
    ) -> dict[str, tuple[str, ...]]:
        """A registrar's glue is easily forgotten when a server moves, so the zone is asked for the addresses of those
        servers that are named in it."""
        inside = [host for host, addresses in own.items() if not addresses and within(host, cut.zone)]
        async with asyncio.TaskGroup() as group:
            tasks = {host: group.create_task(self._walk.records(cut, host, errand)) for host in inside[:HOSTS_MAX]}
        return {**own, **{host: task.result() for host, task in tasks.items()}}

    async def _settled(
        self, hosts: Mapping[str, tuple[str, ...]], errand: Errand
    ) -> tuple[list[Spot], Mapping[str, str]]:
        """Where those hosts are, by the addresses that came along or by looking them up; and why others have none."""
        bare = [host for host, addresses in hosts.items() if not addresses]
        async with asyncio.TaskGroup() as group:
            tasks = {host: group.create_task(self._walk.addresses(host, errand)) for host in bare[:HOSTS_MAX]}
        looked_up = {host: task.result() for host, task in tasks.items()}
        homeless = dict.fromkeys(bare[HOSTS_MAX:], "budget")
        spots = []
        for host in hosts.keys() - homeless.keys():
            addresses = hosts[host] or looked_up[host]
            if isinstance(addresses, str):
                homeless[host] = addresses
            else:
                spots += [Spot(host, address) for address in addresses]
        return sorted(spots, key=str), homeless

    async def _ask_all(self, spots: Iterable[Spot], name: str, rdtype: str, errand: Errand) -> Mapping[Spot, Reply]:
        """All at a time: a silent one costs the others nothing."""
        async with asyncio.TaskGroup() as group:
            tasks = {spot: group.create_task(self._authorities.ask(spot, name, rdtype, errand)) for spot in spots}
        return {spot: task.result() for spot, task in tasks.items()}


def _read(reply: Reply, name: str, rdtype: str, zone: str) -> Answer:
    return reply if isinstance(reply, Answer) else published.read(reply, name, rdtype, zone)
