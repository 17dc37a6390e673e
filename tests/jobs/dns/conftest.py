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
    """Asks `server` alone; patient enough for a busy machine, quick enough for the faults that only time reveals."""
    return Resolver(DnsSettings(resolvers=(server.place,), timeout=duration(0.3), tries=2))
