"""The SSRF guard: judges a URL before it is used, every address of its name, and each socket before it exists."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from jobs.webhook.addresses import is_allowed, networks
from jobs.webhook.names import Lookup, Names
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.target import Target, parse
from jobs.webhook.trip import current

_TARGETS_KEPT = 4096  # a verdict on a URL's text cannot change while these settings last


class Blocked(OSError):
    """The guard refused.  The message is for tenants: it never holds an address, or the log would be a port scanner."""


class Guard:
    """One reading of the settings: schemes, ports and address exceptions.  `lookup` None: the system's resolver.

    With a proxy, names are the proxy's to resolve and to judge; URLs and literal addresses are judged here all the
    same, and then the proxy is the only thing that is connected to.
    """

    def __init__(self, settings: WebhookSettings, lookup: Lookup | None = None) -> None:
        self._schemes = ("http", "https") if settings.allow_http else ("https",)
        self._ports = settings.ports
        self._exceptions = networks(settings.allow_addresses)
        self._proxy = settings.proxy_host
        self._proxy_addresses = frozenset[str]()
        self._names = Names(settings.dns_timeout, lookup)
        self._targets = lru_cache(maxsize=_TARGETS_KEPT)(self._target)

    def target(self, text: str) -> Target:
        """What the URL `text` leads to; BadUrl, or Blocked for a scheme, port or literal address not allowed."""
        return self._targets(text)

    def _target(self, text: str) -> Target:
        target = parse(text)
        if target.scheme not in self._schemes:
            raise Blocked("only https:// URLs are allowed")
        if not any(target.port in ports for ports in self._ports):
            raise Blocked(f"port {target.port} is not allowed")
        if target.is_literal:
            self._judge(target.host)
        return target

    async def addresses(self, target: Target) -> list[str]:
        """Every address of the target; Blocked if any single one is not allowed, Unresolved if there is none.  With a
        proxy, a name has none that we would know of."""
        if target.is_literal:
            return [target.host]
        return [] if self._proxy is not None else await self.resolve(target.host)

    async def resolve(self, host: str) -> list[str]:
        """The addresses of the name `host`, all of them judged: an attacker's name may have one good and one bad."""
        if self._proxy is not None:
            return await self._resolve_proxy(host)
        found = await self._names.of(host)
        for address in found:
            self._judge(address)
        return found

    async def _resolve_proxy(self, host: str) -> list[str]:
        """The operator's own choice, so its addresses are not judged; no other name is looked up here."""
        if host.rstrip(".") != self._proxy:
            raise Blocked("only the proxy is connected to")
        found = await self._names.of(host)
        self._proxy_addresses = frozenset(found)
        return found

    def make_socket(self, addr_info: tuple[Any, ...]) -> socket.socket:
        """The connector's last step before a connection: judges the very address that is connected to."""
        family, kind, protocol, _name, address = addr_info
        trip = current()
        try:
            self._judge_peer(address[0])
        except Blocked:
            trip.was_blocked = True
            raise
        trip.dialled = True
        return socket.socket(family, kind, protocol)

    def close(self) -> None:
        self._names.close()

    def _judge_peer(self, address: str) -> None:
        if self._proxy is None:
            self._judge(address)
        elif address != self._proxy and address not in self._proxy_addresses:
            raise Blocked("only the proxy is connected to")

    def _judge(self, address: str) -> None:
        if not is_allowed(address, self._exceptions):
            raise Blocked("the URL's host is not on the public internet")


class GuardedResolver(AbstractResolver):
    """The guard as the connector's resolver.  It is not asked about IP literals; `make_socket` sees those."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        trip = current()
        trip.resolving = True
        with trip.phase("dns"):
            found = await self._guard.resolve(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing to do: the guard outlives the connector and is closed by its owner."""
