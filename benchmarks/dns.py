"""DNS: full checks of domains against name servers on loopback, and how evenly a day's checks of a million are planned.

`python -m benchmarks.dns [CHECKS] [ROUNDS] [DOMAINS]`

A full check looks for a token, an MX, SPF with its include, DKIM behind a CNAME, DMARC and a CNAME: on both name
servers, found from the root down, and by three resolvers.  The servers run in a process of their own.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import uvloop

from benchmarks.lab import cpu_s, lab, median, verdict
from benchmarks.name_servers import KEY, RESOLVERS, ROOT, TOKEN, domain
from benchmarks.sink import listener
from jobs.dns.expectation import Expectation
from jobs.dns.look import look
from jobs.dns.policy import DomainPolicy
from jobs.dns.resolver import Resolver
from jobs.dns.settings import DnsSettings
from jobs.dns.state import daily_s

DOMAINS = 200
TOGETHER = 20
"""Checks under way at a time."""

MINUTES = 1440
EXPECT = (
    Expectation(type="TOKEN", value=TOKEN),
    Expectation(type="MX", value="mx.us.example"),
    Expectation(type="SPF", value="include:_spf.us.example"),
    Expectation(type="DKIM", value=KEY, name="s1"),
    Expectation(type="DMARC", value="quarantine"),
    Expectation(type="CNAME", value="edge.us.example", name="www"),
)

SLOT = """
select pg_get_expr(adbin, adrelid) from pg_attrdef join pg_attribute on attrelid = adrelid and attnum = adnum
where adrelid = 'domains'::regclass and attname = 'slot'"""
"""How a domain's part of the day comes about, as its column has it."""


@dataclass(slots=True)
class Seen:
    """Of each round: checks a minute by the clock, which the servers beside us slow down, and what one costs whom (ms
    of CPU)."""

    per_minute: list[float] = field(default_factory=list)
    ours_ms: list[float] = field(default_factory=list)
    servers_ms: list[float] = field(default_factory=list)


async def main(checks: int = 1_000, rounds: int = 3, domains: int = 1_000_000) -> bool:
    seen = Seen()
    for _ in range(rounds):
        await one_round(checks, seen)
    per_core = 60_000 / median(seen.ours_ms)
    busiest = await busiest_minute(domains)
    print(
        f"DNS, {checks:,} full checks of {len(EXPECT)} records, {rounds} rounds, medians; {TOGETHER} at a time: one "
        f"costs us {median(seen.ours_ms):.1f} ms of CPU and the servers {median(seen.servers_ms):.1f}; "
        f"{median(seen.per_minute):,.0f} a minute by the clock"
    )
    return all(
        [
            verdict("DNS full checks by a minute of one core", per_core, "checks", 1_000, at_least=True),
            verdict(f"DNS busiest minute of {domains:,} domains", busiest, "× mean", 1.2, at_least=False),
        ]
    )


async def one_round(checks: int, seen: Seen) -> None:
    async with listener("-m", "benchmarks.name_servers", str(DOMAINS)) as servers:
        settings = DnsSettings(
            resolvers=tuple(f"{address}:{servers.port}" for address in RESOLVERS),
            roots=(ROOT,),
            authority_port=servers.port,
            authority_rate=100_000,
            allow_addresses=("127.54.0.0/24",),
        )
        resolver = Resolver(settings)
        await work(resolver, iter(range(TOGETHER)))
        numbers = iter(range(checks))
        began, ours_s, servers_s = time.perf_counter(), own_cpu_s(), cpu_s(servers.process)
        async with asyncio.TaskGroup() as group:
            for _ in range(TOGETHER):
                group.create_task(work(resolver, numbers))
        seen.per_minute.append(checks / (time.perf_counter() - began) * 60)
        seen.ours_ms.append((own_cpu_s() - ours_s) / checks * 1e3)
        seen.servers_ms.append((cpu_s(servers.process) - servers_s) / checks * 1e3)
        await resolver.close()


async def work(resolver: Resolver, numbers: Iterator[int]) -> None:
    """One check after another, as long as there are numbers."""
    for number in numbers:
        name = domain(number % DOMAINS)
        wanted = [expectation.at(name) for expectation in EXPECT]
        found = await look(resolver, name, wanted, lambda: datetime.now(UTC), visible=True)
        assert found.verdict == "match", found.text


async def busiest_minute(domains: int) -> float:
    """Of a day some time after all were verified at one moment: its largest minute by its mean one."""
    async with lab() as place:
        conn = await asyncpg.connect(place.dsn)
        formula = await conn.fetchval(SLOT)
        rows = await conn.fetch(
            f"select {formula} as slot "
            "from (select 'shop-' || n || '.example' as domain from generate_series(1, $1) as n) as registered",
            domains,
        )
        await conn.close()
    every_s = DomainPolicy().every
    start = time.time() + 3 * every_s
    minutes: Counter[int] = Counter()
    for row in rows:
        at = daily_s(start - 2 * every_s, row["slot"], every_s)
        while at < start + every_s:
            if at >= start:
                minutes[int((at - start) // 60)] += 1
            at = daily_s(at, row["slot"], every_s)
    return max(minutes.values()) / (minutes.total() / MINUTES)


def own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
