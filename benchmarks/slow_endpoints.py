"""W8: deliveries to endpoints that take ten seconds each, all of them in flight at once.

`python -m benchmarks.slow_endpoints [ENDPOINTS] [SECONDS]`
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import orjson
import uvloop

from benchmarks.lab import PAYLOAD, cpu_s, daemon, lab, until_empty, verdict
from benchmarks.sink import sink
from benchmarks.webhooks import SETTINGS

ENDPOINTS = """
insert into webhook_endpoints (name, url, signing)
select 'slow-' || n, format('http://127.1.%s.%s:%s/', n / 200, 1 + n % 200, $1::int), '{}'
from generate_series(0, $2 - 1) as n"""
EVENT = "insert into webhook_events (event, payload) values ('order.paid', $1::text::json)"
LAG = "insert into jobs (kind, args) values ('bench_lag', jsonb_build_object('seconds', $1::float8))"
COUNTS = """
select count(*) filter (where outcome = 'ok' and attempt = 1) as well, count(*) as attempts from webhook_deliveries"""


async def main(endpoints: int = 2_000, seconds: float = 10.0) -> bool:
    async with lab() as place, sink("0.0.0.0", seconds) as at:
        conn = await asyncpg.connect(place.dsn)
        await conn.execute(ENDPOINTS, at.port, endpoints)
        async with daemon(place, endpoints + 100, **SETTINGS) as process:
            idle_mib = rss_most_mib(process)
            await conn.execute(LAG, seconds + 1.0)
            began, cpu = time.perf_counter(), cpu_s(process)
            await conn.execute(EVENT, PAYLOAD)
            await at.until_seen(endpoints)
            sent_s = time.perf_counter() - began
            await until_empty(conn)
            all_s, cpu = time.perf_counter() - began, cpu_s(process) - cpu
            mib = rss_most_mib(process)
        _, most = await at.counts()
        counts = await conn.fetchrow(COUNTS)
        lag = orjson.loads(await conn.fetchval("select result::text from job_history where kind = 'bench_lag'"))
        await conn.close()
    assert counts is not None
    print(
        f"W8, {endpoints:,} endpoints that take {seconds:g} s: sent within {sent_s:.2f} s, all done after {all_s:.1f} s"
    )
    print(f"     {counts['attempts']:,} attempts; {cpu:.2f} s of CPU; resident {idle_mib:.0f} MiB before")
    print(
        f"     loop late by a median of {lag['p50']:.2f} ms, {lag['most']:.1f} at most; p99 of its own doing", end=" "
    )
    print(f"{lag['own_p99']:.1f} ms")
    return all(
        [
            verdict("W8 in flight at once", most, "", endpoints, at_least=True),
            verdict("W8 delivered at the first attempt", counts["well"], "", endpoints, at_least=True),
            verdict("W8 resident at most", mib, "MiB", 150, at_least=False),
            verdict("W8 event loop lag p99", lag["p99"], "ms", 20, at_least=False),
        ]
    )


def rss_most_mib(process: subprocess.Popen[bytes]) -> float:
    """The most that it has been so far."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*(kind(v) for kind, v in zip((int, float), sys.argv[1:], strict=False)))) else 1)
