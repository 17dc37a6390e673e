from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.values import duration
from tests.jobs.dns.internet import Internet
from tests.jobs.dns.server import DnsServer

Here = Callable[..., Resolver]


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        yield server


@pytest.fixture
def resolver(server: DnsServer) -> Resolver:
    """Asks `server` alone, and is more patient than any test machine is busy."""
    return Resolver(DnsSettings(resolvers=(server.place,), timeout=duration("60s"), tries=2))


@pytest.fixture
def hasty(server: DnsServer) -> Resolver:
    """Asks `server` alone and gives up soon: for the faults that only time reveals."""
    return Resolver(DnsSettings(resolvers=(server.place,), timeout=duration("250ms"), tries=2))


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet() as internet:
        yield internet


class _Socket(socket.socket):
    """One of a machine without IPv6."""

    def connect(self, place: Any) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        super().connect(place)


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.dns.datagram.socket.socket", _Socket)


@pytest.fixture
def here(internet: Internet) -> Here:
    """A resolver that lives in `internet`, with settings of the test's own."""
    return partial(living_in, internet)


def living_in(internet: Internet, **other: Any) -> Resolver:
    ours = {
        "roots": tuple(server.address for server in internet.root.servers),
        "authority_port": internet.port,
        "authority_rate": 10_000,
        "allow_addresses": ("127.53.0.0/16",),
    }
    return Resolver(internet.settings(**{**ours, **other}))
