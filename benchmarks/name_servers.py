"""A little DNS for `benchmarks.dns`: a root, two name servers with so many domains, and three resolvers.

`python -m benchmarks.name_servers DOMAINS` prints the port that all of them listen at.
"""

from __future__ import annotations

import asyncio
import random
import sys

import uvloop

from daemon.demo_nameserver import Listener, NameServer, Recursor
from daemon.demo_zone import Contents

ROOT = "127.54.0.1"
NAME_SERVERS = ("127.54.0.2", "127.54.0.3")
RESOLVERS = ("127.54.0.4", "127.54.0.5", "127.54.0.6")
PORTS = range(12_000, 32_000)

TOKEN = "abcdefghijklmnopqrstuvwxyz234567"
KEY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAuO5gcP3MyIW1kTOSyPkAu7o1VmvZnH2zU0Pf5vQWcJtJpJ2W" * 2
HOSTS = tuple(f"ns{n}.us.example." for n in (1, 2))


def domain(number: int) -> str:
    return f"shop-{number}.example"


def knowing(domains: int) -> tuple[NameServer, NameServer]:
    """The root's server, and one that has every domain as its owner was asked to set it up."""
    root, top = Contents("."), Contents("example")
    root.set("example", "NS", "a.root-servers.example.")
    top.set("us.example", "NS", *HOSTS)
    for host, address in zip(HOSTS, NAME_SERVERS, strict=True):
        top.set(host, "A", address)
    zones = [_ours()]
    for number in range(domains):
        top.set(domain(number), "NS", *HOSTS)
        zones.append(_shop(domain(number)))
    return NameServer(root, top), NameServer(*zones)


def _ours() -> Contents:
    zone = Contents("us.example")
    zone.set("us.example", "NS", *HOSTS)
    for host, address in zip(HOSTS, NAME_SERVERS, strict=True):
        zone.set(host, "A", address)
    zone.set("_spf.us.example", "TXT", '"v=spf1 ip4:192.0.2.0/24 -all"')
    zone.set("s1._domainkey.us.example", "TXT", f'"v=DKIM1; k=rsa; p={KEY}"')
    return zone


def _shop(origin: str) -> Contents:
    zone = Contents(origin)
    zone.set(origin, "NS", *HOSTS)
    zone.set(f"_jobsd-challenge.{origin}", "TXT", f'"token={TOKEN}"')
    zone.set(origin, "MX", "10 mx.us.example.")
    zone.set(origin, "TXT", '"v=spf1 include:_spf.us.example -all"')
    zone.set(f"s1._domainkey.{origin}", "CNAME", "s1._domainkey.us.example.")
    zone.set(f"_dmarc.{origin}", "TXT", '"v=DMARC1; p=reject"')
    zone.set(f"www.{origin}", "CNAME", "edge.us.example.")
    return zone


async def main(domains: int) -> None:
    root, known = knowing(domains)
    places: dict[str, Listener] = {
        ROOT: root,
        **{address: _like(known) for address in NAME_SERVERS},
        **{address: Recursor(known) for address in RESOLVERS},
    }
    port = await _port(root)
    for address, listener in places.items():
        if listener is not root:
            await listener.start(address, port)
    print(port, flush=True)
    await asyncio.Event().wait()


async def _port(root: NameServer) -> int:
    while True:
        try:
            return await root.start(ROOT, random.choice(PORTS))
        except OSError:
            continue


def _like(known: NameServer) -> NameServer:
    server = NameServer()
    server.zones = known.zones
    return server


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
