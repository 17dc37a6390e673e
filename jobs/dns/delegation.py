"""Zones and their name servers, as a parent and the zone itself tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

ROOT = "."


@dataclass(frozen=True, slots=True)
class Spot:
    """One address of one name server; a root server's has no host."""

    host: str
    address: str

    def __str__(self) -> str:
        return f"{self.host} ({self.address})" if self.host else self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A delegation: a zone's name servers with the addresses that came along, `by_parent` or by the zone itself."""

    zone: str
    hosts: Mapping[str, tuple[str, ...]]
    ttl_s: int = 0
    by_parent: bool = True

    def beside(self, other: Cut) -> Cut:
        """Both, where servers of the parent differ: each name server and address that any of them tells of."""
        hosts = {
            host: tuple(dict.fromkeys((*self.hosts.get(host, ()), *other.hosts.get(host, ()))))
            for host in (*self.hosts, *other.hosts)
        }
        return replace(self, hosts=hosts)

    @property
    def glue(self) -> tuple[Spot, ...]:
        return tuple(Spot(host, address) for host, addresses in self.hosts.items() for address in addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A zone with all that answers for it.  `hosts`: its name servers, by its own word and its parent's; `homeless`:
    one without an address, and why."""

    name: str
    spots: tuple[Spot, ...]
    hosts: tuple[str, ...] = ()
    homeless: Mapping[str, str] = field(default_factory=dict)
    only_parent: tuple[str, ...] = ()
    only_zone: tuple[str, ...] = ()


def within(name: str, zone: str) -> bool:
    """Whether `name` is `zone` or below it.  A label may hold an escaped dot ("a\\.b"), which ends nothing."""
    return zone in (ROOT, name) or (name.endswith("." + zone) and not name.endswith("\\." + zone))


def parent(name: str) -> str:
    """`name` without its first label."""
    return name.partition(".")[2] or ROOT


def depth(name: str) -> int:
    """How many labels `name` has."""
    return 0 if name == ROOT else name.count(".") + 1
