from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.values import duration
from tests.jobs.dns.server import DnsServer


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
