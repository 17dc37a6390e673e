"""One dead endpoint among a hundred: what the others wait, from before the insert to their 204, with it and without it.

`python -m benchmarks.endpoints [PER_S] [SECONDS] [ROUNDS]`

Events come at a steady rate, each for one endpoint.  Rounds take turns: all well, then one that refuses, that is
silent, that answers 503; each with a daemon of its own.  What is compared are medians over the rounds, of the others
alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncpg
import uvloop

from benchmarks.lab import Lab, daemon, lab, median, percentile, ratio, verdict
from benchmarks.sink import listener

ENDPOINTS = 100
CONCURRENCY = 100
TICK_S = 0.02
TIMEOUT_S = 2
WARM_S = 3.0
"""Until it has connected to all of them, and given the dead one up: what that costs the others counts, too."""
REFUSED = 2  # nobody listens there
MOODS = ("well", "refuses", "silent", "503")

SINK = """
import asyncio, json, time
waits = []
class Sink(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        if data.startswith(b"GET"):
            body = json.dumps(waits).encode()
            waits.clear()
            self.transport.write(b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\n\\r\\n" + body)
            self.transport.close()
        elif data.startswith(b"POST /503"):
            self.transport.write(b"HTTP/1.1 503 Service Unavailable\\r\\ncontent-length: 0\\r\\n\\r\\n")
        elif not data.startswith(b"POST /silent"):
            self.transport.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
            if data.startswith(b"POST /others"):
                waits.append(time.time() - float(data.rpartition(b'"at":')[2].rpartition(b"}")[0]))
async def main():
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
EMPTY = """
truncate jobs, job_history, job_holds, job_attempts, job_claims, webhook_deliveries, webhook_events, webhook_secrets,
    webhook_endpoints restart identity cascade"""
MAKE = """
with made as (
    insert into webhook_endpoints (org_id, name, url, events)
    select 'acme', 'e' || n, $1 || '/others', array['e' || n] from generate_series(0, $2 - 1) as n
    returning id
)
insert into webhook_secrets (endpoint_id, secret)
select id, 'whsec_' || encode(sha256(id::text::bytea), 'base64') from made"""
ONE = "update webhook_endpoints set url = $1 where name = 'e0'"
INSERT = """
insert into webhook_events (org_id, event, payload)
select 'acme', 'e' || n, $2::json from unnest($1::int[]) as n"""
SETTINGS = {
    "JOBSD_WEBHOOK__ALLOW_HTTP": "true",
    "JOBSD_WEBHOOK__ALLOW_ADDRESSES": "127.0.0.0/8",
    "JOBSD_WEBHOOK__ALLOW_PORTS": "1-65535",
    "JOBSD_WEBHOOK__TIMEOUT": f"{TIMEOUT_S}s",
    "JOBSD_DAEMON__DRAIN_TIMEOUT": "0",
}


async def main(per_s: int = 300, seconds: int = 12, rounds: int = 5) -> bool:
    found: dict[str, list[list[float]]] = {mood: [] for mood in MOODS}
    async with lab() as place, listener("-c", SINK) as taker:
        conn = await asyncpg.connect(place.dsn)
        print(f"{ENDPOINTS} endpoints, {per_s} events/s, one of them dead; {rounds} rounds of {seconds} s each in turn")
        for n in range(rounds):
            for mood in MOODS[n % len(MOODS) :] + MOODS[: n % len(MOODS)]:
                found[mood].append(await one_round(place, conn, taker.port, mood, per_s, seconds))
        await conn.close()
    return told(found)


async def one_round(
    place: Lab, conn: asyncpg.Connection, port: int, mood: str, per_s: int, seconds: int
) -> list[float]:
    """Seconds from before the insert to the 204, of each event for one of the others."""
    base = f"http://127.0.0.1:{port}"
    await conn.execute(EMPTY)
    await conn.execute(MAKE, base, ENDPOINTS)
    await conn.execute(ONE, f"http://127.0.0.1:{REFUSED}/" if mood == "refuses" else f"{base}/{mood}")
    async with daemon(place, CONCURRENCY, **SETTINGS):
        sent = await events(conn, per_s, WARM_S)
        await until_taken(port, sent)
        sent = await events(conn, per_s, seconds)
        return await until_taken(port, sent)


async def events(conn: asyncpg.Connection, per_s: int, seconds: float) -> int:
    """At a steady rate, whatever becomes of them; how many were for the others."""
    began, sent, others = time.monotonic(), 0, 0
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * per_s) - sent
        if due:
            whose = [n % ENDPOINTS for n in range(sent, sent + due)]
            await conn.execute(INSERT, whose, json.dumps({"at": time.time()}, separators=(",", ":")))
            sent += due
            others += sum(n > 0 for n in whose)
        await asyncio.sleep(TICK_S)
    return others


async def until_taken(port: int, count: int) -> list[float]:
    """What the sink saw of the others, once it has seen so many."""
    waits: list[float] = []
    while len(waits) < count:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        waits += json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        await asyncio.sleep(0.1)
    return waits


def told(found: dict[str, list[list[float]]]) -> bool:
    p99 = {mood: median([percentile(waits, 0.99) * 1e3 for waits in rounds]) for mood, rounds in found.items()}
    for mood, rounds in found.items():
        p50 = median([percentile(waits, 0.5) * 1e3 for waits in rounds])
        each = " ".join(f"{percentile(waits, 0.99) * 1e3:.1f}" for waits in rounds)
        print(f"     {mood:<8} p50 {p50:6.2f} ms, p99 {p99[mood]:6.2f} ms (rounds: {each})")
    fine = [
        verdict(f"others' p99 beside one that {word}", ratio(p99[mood], p99["well"]), "×", 1.1, at_least=False)
        for mood, word in (("refuses", "refuses"), ("silent", "is silent"), ("503", "answers 503"))
    ]
    return all(fine)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
