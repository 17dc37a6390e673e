"""The demo's DNS: a root, two name servers, three resolvers, each at a loopback address of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from time import monotonic

import dns.message
import dns.name
import dns.rcode

from daemon.demo_nameserver import Listener, NameServer, Recursor
from daemon.demo_zone import Contents
from jobs.email.dkim_keys import SigningKey

ZONE, CUSTOMER = "shop.example", "customer.example"
FLAKY = f"flaky.{ZONE}"
_FLAKY = dns.name.from_text(FLAKY)
WELL_S = 60.0
"""For so long its name servers are well again when a check of it has ended."""

ROOT = "127.0.0.1"
NAME_SERVERS = {f"ns1.{ZONE}": "127.0.0.2", f"ns2.{ZONE}": "127.0.0.3"}
RESOLVERS = ("127.0.0.4", "127.0.0.5", "127.0.0.6")
"""All at one port: a name server is found by its address alone."""

TTL_S = 1
"""What is repaired is seen at once."""

_RECORDS = (
    f"{ZONE} A 192.0.2.10",
    f"{ZONE} MX 10 mail.{ZONE}.",
    f'{ZONE} TXT "v=spf1 mx -all"',
    f'_verify.{ZONE} TXT "token=4711"',
    f"www.{ZONE} CNAME {ZONE}.",
    f'{FLAKY} TXT "token=4711"',
    *(f"{host} A {address}" for host, address in NAME_SERVERS.items()),
)


class DnsSink:
    """Knows shop.example and customer.example.  Whoever checks flaky.shop.example first gets SERVFAIL.

    `dkim`: the key that mail of shop.example is signed with.  `customer`: customer.example as each name server has it.
    """

    def __init__(self, dkim: SigningKey) -> None:
        self._flaky = _Flaky()
        shop = (*_RECORDS, f'{dkim.host} TXT "{dkim.record}"')
        servers = [_Moody(self._flaky, _zone(ZONE, *shop), _zone(CUSTOMER)) for _ in NAME_SERVERS]
        self.customer = [server.zones[CUSTOMER] for server in servers]
        self._listeners: dict[str, Listener] = {
            ROOT: _root(),
            **dict(zip(NAME_SERVERS.values(), servers, strict=True)),
            **{address: Recursor(servers[0]) for address in RESOLVERS},
        }
        self._stack = AsyncExitStack()

    async def start(self, host: str, port: int) -> int:
        """Listen at one port of every address, the root at `host`; the port.  OSError: it is taken at one of them."""
        async with AsyncExitStack() as opened:
            for address, listener in self._listeners.items():
                port = await listener.start(host if address == ROOT else address, port)
                opened.push_async_callback(listener.close)
            self._stack = opened.pop_all()
        return port

    async def close(self) -> None:
        await self._stack.aclose()

    def checked(self, args_json: str) -> None:
        """A check with these args has ended."""
        if f'"{FLAKY}"' in args_json:
            self._flaky.recover()


class _Flaky:
    """Whether the name that is slow to answer still is: until a check of it has ended, however long that takes."""

    def __init__(self) -> None:
        self._ill_from = 0.0

    def is_ill(self) -> bool:
        return monotonic() >= self._ill_from

    def recover(self) -> None:
        self._ill_from = monotonic() + WELL_S


class _Moody(NameServer):
    def __init__(self, flaky: _Flaky, *zones: Contents) -> None:
        super().__init__(*zones)
        self._flaky = flaky

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        if query.question[0].name == _FLAKY and self._flaky.is_ill():
            reply = dns.message.make_response(query)
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply
        return super().reply(query)


def _root() -> NameServer:
    """Of the root and of example, which refer to the name servers."""
    root, top = Contents(".", ttl=TTL_S), Contents("example", ttl=TTL_S)
    root.set("example", "NS", "a.root.")
    for zone in (ZONE, CUSTOMER):
        top.set(zone, "NS", *(f"{host}." for host in NAME_SERVERS))
    top.add(*(f"{host} A {address}" for host, address in NAME_SERVERS.items()))
    return NameServer(root, top)


def _zone(origin: str, *records: str) -> Contents:
    contents = Contents(origin, ttl=TTL_S, negative_ttl=TTL_S)
    contents.set(origin, "NS", *(f"{host}." for host in NAME_SERVERS))
    contents.add(*records)
    return contents
