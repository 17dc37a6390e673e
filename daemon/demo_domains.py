"""The demo's fourth part: a domain is verified, breaks in two ways, and comes back; and what its owner reads."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

import sql
from daemon.demo_dns import CUSTOMER
from daemon.demo_teller import Amiss, Teller
from daemon.demo_zone import Contents

REGISTER = """insert into domains (org_id, domain) values ('acme', 'customer.example')
  returning challenge, token;"""

CHECK = """insert into jobs (kind, org_id, args) values ('domain_check', 'acme',
  '{"domain": "customer.example"}');"""

_SQL = sql.load("demo.sql")


class Domains:
    """`servers` is the customer's domain as each of its two name servers has it."""

    def __init__(self, teller: Teller, pool: asyncpg.Pool, servers: Sequence[Contents]) -> None:
        self._teller = teller
        self._pool = pool
        self._servers = servers

    async def run(self) -> None:
        self._teller.say(f"\nNow domains. A customer of acme's says that {CUSTOMER} is his:", REGISTER)
        place, value = await self._register()
        self._teller.say(
            "This is what he has to publish, so that no other customer can say so:", f"{place} TXT {value}"
        )
        await self._told("pending", checks=1)
        self._teller.say("He publishes it at both of his name servers, and clicks on “check”:", CHECK)
        self._publish(place, value, value)
        await self._check("verified")
        self._teller.say("\nns2 loses the record. For that alone nobody is let go of:")
        self._publish(place, value, None)
        await self._check("verified")
        self._teller.say("\nThen somebody writes something else at both:")
        self._publish(place, "token=of-another-shop", "token=of-another-shop")
        await self._check("degraded")
        self._teller.say(
            "It is looked at every hour now. After a day of that its owner is told, and after five days the domain is "
            "no longer verified. But he repairs it:"
        )
        self._publish(place, value, value)
        await self._check("verified")

    async def _register(self) -> tuple[str, str]:
        """Where something is to be published, and what; nothing is yet."""
        await self._pool.execute(_SQL["forget_domain"], CUSTOMER)
        for server in self._servers:
            server.clear()
        ((challenge, token),) = await self._pool.fetch(REGISTER)
        return f"{challenge}.{CUSTOMER}", f"token={token}"

    def _publish(self, place: str, *values: str | None) -> None:
        """At the first name server, and at the second."""
        for server, value in zip(self._servers, values, strict=True):
            server.set(place, "TXT", *([] if value is None else [f'"{value}"']))

    async def _check(self, state: str) -> None:
        checks = (await self._row())["checks"]
        await self._pool.execute(CHECK)
        await self._told(state, checks=checks + 1)

    async def _told(self, state: str, *, checks: int) -> None:
        """What that check has found, in the words that its owner reads."""
        row = await self._teller.seen(f"{CUSTOMER} is checked", self._row, lambda row: row["checks"] >= checks)
        if row["state"] != state:
            raise Amiss(f"{CUSTOMER} is {row['state']}, not {state}: {row['conclusion']}")
        self._teller.say(f"It is {state}, and he reads:", row["conclusion"], wraps=True)

    async def _row(self) -> asyncpg.Record:
        (row,) = await self._pool.fetch(_SQL["domain"], CUSTOMER)
        return row
