"""A little Internet on loopback addresses: root, top-level domains, name servers, resolvers; all may be made to fail.

    async with Internet() as internet:
        shop = await internet.zone("shop.test")                       # ns1 and ns2.shop.test, delegated with glue
        shop.add('_jobsd-challenge.shop.test TXT "token=4711"')       # on both
        shop.at(1).remove("_jobsd-challenge.shop.test", "TXT")        # one of them lacks it
        shop.servers[0].fault("servfail")                             # the other answers SERVFAIL
        internet.resolvers[2].fault("silent", name="shop.test")       # and so on: internet_faults
        internet.clock.advance(60)                                    # caches of resolvers forget
        resolver = Resolver(internet.settings())

Servers are real: messages go over UDP and TCP to 127.53.x.y, all on one port, and are read and written by dnspython.
The server around it is ours, since faults must reach every byte: dnslib has neither DNSSEC nor control of TC and EDNS,
and twisted.names would bring a second event loop.  The lab's own resolvers recurse from the root down with caches and
validation, but carry their questions to the servers in memory, so that a silent one costs them no time.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, Unpack

from daemon.demo_nameserver import Transport
from jobs.dns.settings import DnsSettings
from jobs.values import duration
from tests.jobs.dns.internet_authority import Authority
from tests.jobs.dns.internet_clock import Clock
from tests.jobs.dns.internet_faults import Fault, Which
from tests.jobs.dns.internet_recursion import Recursion, Wire
from tests.jobs.dns.internet_resolver import RecursiveServer
from tests.jobs.dns.internet_server import Server
from tests.jobs.dns.internet_signing import Break, Signing
from tests.jobs.dns.internet_validation import Validator
from tests.jobs.dns.internet_zone import SignedContents

TLDS = ("test", "example")
"""The first is signed, as the root is; the second is not."""

PORTS = range(12_000, 32_000)
"""Below those that the kernel gives to whoever asks for any."""

PATIENCE_S = 2.0
"""What comes later than this a resolver of the lab does not wait for."""


class Zone:
    """One zone on its servers; `add`, `set`, `remove` and `fault` concern all of them, `at(n)` is what one knows."""

    def __init__(self, origin: str, servers: Sequence[Authority], signing: Signing | None) -> None:
        self.origin = origin
        self.servers = list(servers)
        self.signing = signing

    def at(self, server: int) -> SignedContents:
        return self.everywhere[server]

    @property
    def everywhere(self) -> list[SignedContents]:
        return [server.zones[self.origin] for server in self.servers]

    def add(self, *lines: str) -> None:
        for contents in self.everywhere:
            contents.add(*lines)

    def set(self, name: str, rdtype: str, *values: str, ttl: int | None = None) -> None:
        for contents in self.everywhere:
            contents.set(name, rdtype, *values, ttl=ttl)

    def remove(self, name: str, rdtype: str) -> None:
        self.set(name, rdtype)

    def fault(self, fault: Fault, **which: Unpack[Which]) -> None:
        for server in self.servers:
            server.fault(fault, **which)

    def heal(self) -> None:
        for server in self.servers:
            server.heal()

    @property
    def asked(self) -> Counter[tuple[str, str, str]]:
        """Questions of ours to all its servers, by (name, type, transport)."""
        return sum((server.asked for server in self.servers), Counter())


class Internet:
    """`resolvers` recursive ones, of which the last `validating` validate; `port` 0 is any.  It stops when left."""

    def __init__(self, *, resolvers: int = 3, validating: int = 1, port: int = 0) -> None:
        self.clock = Clock()
        self.zones: dict[str, Zone] = {}
        self.resolvers: list[RecursiveServer] = []
        self.port = port
        self._wanted = (resolvers, validating)
        self._servers: dict[str, Server] = {}
        self._stack = AsyncExitStack()
        self._networks = 0

    async def __aenter__(self) -> Self:
        async with self._stack:
            root = await self._root()
            await self._top_level(root)
            await self._recursive(root)
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def root(self) -> Zone:
        return self.zones["."]

    @property
    def anchor(self) -> str:
        """The root's DNSKEY as a trust anchor in a zone file."""
        assert self.root.signing
        return f". 300 IN DNSKEY {self.root.signing.anchor().to_text()}"

    def settings(self, **other: Any) -> DnsSettings:
        """Those that make a `Resolver` live here, as patient as no test machine is busy."""
        ours = {
            "resolvers": tuple(server.place for server in self.resolvers),
            "roots": tuple(server.address for server in self.root.servers),
            "authority_port": self.port,
            "authority_rate": 10_000,
            "allow_addresses": ("127.53.0.0/16", "::1/128"),
            "timeout": duration("20s"),
        }
        return DnsSettings(**{**ours, **other})

    async def server(self, host: str, address: str | None = None) -> Authority:
        """A name server of that name which knows no zone yet; its address goes into the zone of its name, if any."""
        if address is None:
            self._networks += 1
            address = f"127.53.{self._networks // 250}.{self._networks % 250 + 1}"
        server = Authority(host, address, self.port)
        await self._start(server)
        if home := self._home(host):
            home.set(host, _address_type(address), address)
        return server

    async def zone(
        self,
        origin: str,
        *,
        servers: int = 2,
        on: Sequence[Authority] = (),
        signed: bool = False,
        broken: Break | None = None,
        ttl: int = 300,
        negative_ttl: int = 60,
        shared: bool = False,
    ) -> Zone:
        """A zone that its parent delegates to `servers` servers of its own (with glue), or to those `on` which it is
        to live (without, unless their names are in it).  `broken` (see internet_signing) implies `signed`;
        `shared`: all servers know the same for ever."""
        parent = self._home(origin, above=True)
        signing = Signing(broken) if signed or broken else None
        on = on or [await self.server(f"ns{n + 1}.{origin}") for n in range(servers)]
        zone = self._host(origin, on, signing, ttl, negative_ttl, shared=shared)
        self.delegate(zone.origin, {server.host: [server.address] for server in on}, parent=parent)
        if signing and parent:
            self._vouch(zone, parent)
        return zone

    def delegate(self, origin: str, hosts: Mapping[str, Sequence[str]], *, parent: Zone | None = None) -> None:
        """What the parent says of a zone: its name servers, and the addresses of those that lie in it, true or not."""
        parent = parent or self._home(origin, above=True)
        assert parent, f"nobody is above {origin}"
        parent.set(origin, "NS", *(f"{host.rstrip('.')}." for host in hosts))
        for host, addresses in hosts.items():
            if _within(host, origin):
                for kind in ("A", "AAAA"):
                    parent.set(host, kind, *(a for a in addresses if _address_type(a) == kind))

    def resign(self, zone: Zone, broken: Break | None) -> None:
        """Sign a signed zone anew, well or badly."""
        assert zone.signing, f"{zone.origin} is not signed"
        zone.signing.broken = broken
        for contents in zone.everywhere:
            contents.changed()
        if parent := self._home(zone.origin, above=True):
            self._vouch(zone, parent)

    def flush(self) -> None:
        """All resolvers forget."""
        for resolver in self.resolvers:
            resolver.recursion.flush()

    def heal(self) -> None:
        """Nobody fails any more."""
        for server in self._servers.values():
            server.heal()

    def forget(self) -> None:
        """As if nobody had been asked anything yet."""
        for server in self._servers.values():
            server.forget()

    @property
    def asked(self) -> Counter[tuple[str, str, str]]:
        """Questions of ours to anybody, by (name, type, transport)."""
        return sum((server.asked for server in self._servers.values()), Counter())

    async def _root(self) -> Zone:
        """Its servers' port is everybody's: one that is free at the first address."""
        for port in [self.port] if self.port else random.sample(PORTS, 50):
            self.port = port
            try:
                first = await self.server("a.root-servers.test")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self._networks = 0
                continue
            second = await self.server("b.root-servers.test")
            return self._host(".", [first, second], Signing(), 300, 60, shared=True)
        raise OSError(errno.EADDRINUSE, "no free port was found")

    async def _top_level(self, root: Zone) -> None:
        servers = [await self.server(f"{letter}.nic.{TLDS[0]}") for letter in "ab"]
        for tld in TLDS:
            await self.zone(tld, on=servers, signed=tld == TLDS[0], shared=True)
        for server in root.servers:
            self.zones[TLDS[0]].set(server.host, "A", server.address)

    async def _recursive(self, root: Zone) -> None:
        count, validating = self._wanted
        roots = [server.address for server in root.servers]
        for number in range(count):
            self._networks += 1
            address = f"127.53.{self._networks // 250}.{self._networks % 250 + 1}"
            recursion = Recursion(roots, _carrier(self._servers, address), self.clock)
            validator = None
            if number >= count - validating:
                assert root.signing
                validator = Validator(root.signing.anchor(), recursion)
            resolver = RecursiveServer(address, self.port, recursion, validator)
            await self._start(resolver)
            self.resolvers.append(resolver)

    async def _start(self, server: Server) -> None:
        await server.start(server.address, server.port)
        self._stack.push_async_callback(server.close)
        self._servers[server.address] = server

    def _host(
        self,
        origin: str,
        on: Sequence[Authority],
        signing: Signing | None,
        ttl: int,
        negative_ttl: int,
        *,
        shared: bool,
    ) -> Zone:
        for server in on:
            if shared and server is not on[0]:
                server.zones[origin] = on[0].zones[origin]
                continue
            contents = SignedContents(origin, ttl=ttl, negative_ttl=negative_ttl, signing=signing)
            contents.set(origin, "NS", *(f"{host.host}." for host in on))
            server.zones[origin] = contents
        zone = self.zones[origin] = Zone(origin, on, signing)
        for server in on:
            if _within(server.host, origin):
                zone.set(server.host, _address_type(server.address), server.address)
        return zone

    def _vouch(self, zone: Zone, parent: Zone) -> None:
        assert zone.signing
        parent.set(zone.origin, "DS", zone.signing.ds(zone.origin))

    def _home(self, name: str, *, above: bool = False) -> Zone | None:
        """The deepest zone that the name is in; with `above`, the one above that of this very name."""
        fitting = [z for z in self.zones.values() if _within(name, z.origin) and not (above and z.origin == name)]
        return max(fitting, key=lambda z: len(z.origin.split(".")) if z.origin != "." else 0, default=None)


def _carrier(servers: Mapping[str, Server], asker: str) -> Wire:
    """What carries the questions of one resolver of the lab."""

    def carry(address: str, wire: bytes, transport: Transport) -> list[bytes]:
        server = servers.get(address)
        if server is None or not server.listens:
            return []
        found, late_s = server.answers(wire, transport, asker)
        return found if late_s <= PATIENCE_S else []

    return carry


def _within(name: str, origin: str) -> bool:
    return origin == "." or name == origin or name.endswith(f".{origin}")


def _address_type(address: str) -> str:
    return "AAAA" if ":" in address else "A"
