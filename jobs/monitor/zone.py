"""A name's check: the records of one type, asked of one name server or of those of `[dns]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings, Server
from jobs.monitor.reach import Reach
from jobs.monitor.reading import Look, Unwell
from jobs.monitor.target import Target

_SILENT = frozenset({"timeout", "unreachable", "no_route"})
_OURS = _SILENT | {"refused", "budget"}
"""Of our own name servers: nothing is known of the name where these do not answer us."""


async def check_zone(
    reach: Reach, target: Target, look: Look, *, resolver: Resolver, settings: DnsSettings, expect: Sequence[str]
) -> None:
    """Unwell if there is no such record, or another one than all of `expect`."""
    if target.host:
        reach.judge(target.host)
        look.address = target.host
        resolver = Resolver(replace(settings, resolvers=(str(Server(target.host, target.port)),)))
    with look.phase("dns"):
        answer = await resolver.query(target.name, target.type)
    match answer.outcome:
        case "error":
            said = "no name server answers" if answer.reason in _SILENT else f"the name server says {answer.reason}"
            raise Unwell(f"dns_{answer.reason}", said, ours=answer.reason in _OURS and not target.host)
        case "nxdomain" | "nodata":
            there = "no such name" if answer.outcome == "nxdomain" else f"no {target.type} record"
            raise Unwell(f"dns_{answer.outcome}", f"there is {there}")
    missing = [value for value in expect if _normal(value) not in set(map(_normal, answer.values))]
    if missing:
        found = ", ".join(answer.values)[:300]
        raise Unwell("dns_mismatch", f"{', '.join(missing)[:300]} is not there; what is: {found}")


def _normal(value: str) -> str:
    return value.lower().rstrip(".")
