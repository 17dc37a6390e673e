"""What the operator decides about DNS: whom to ask, and how patiently."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, fields

from jobs.dns.policy import DomainPolicy
from jobs.values import Duration, duration, key

PORT = 53

_HOST_AND_PORT = re.compile(r"\[(?P<v6>[^\]]+)\](?::(?P<v6_port>\d+))?|(?P<v4>[^:]+)(?::(?P<v4_port>\d+))?")


@dataclass(frozen=True, slots=True)
class Server:
    """Where one server listens."""

    address: str
    port: int = PORT

    def __str__(self) -> str:
        if self.port == PORT:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def server(text: str) -> Server:
    """The server of "127.0.0.1:5353", "[::1]:53", "::1" or "9.9.9.9"; ValueError for anything else.

    Host names are refused: a resolver that must be looked up first cannot be asked.
    """
    match = _HOST_AND_PORT.fullmatch(text)
    address = (match["v6"] or match["v4"]) if match else text
    port = int((match["v6_port"] or match["v4_port"] or PORT) if match else PORT)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(
            f'{text!r} is not a resolver; write an address like "127.0.0.1:5353", "9.9.9.9" or "[::1]:53"'
        ) from None
    if not 0 < port < 65536:
        raise ValueError(f"{text!r} is not a resolver: a port is 1 to 65535")
    return Server(address, port)


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """The `[dns]` section."""

    resolvers: tuple[str, ...] = key(
        (),
        "Recursive resolvers: what the world sees. Name three or more that do not depend on each other, one of them "
        "validating; empty: those of the system.",
    )
    quorum: int = key(
        2, "So many resolvers must say the same; where there are fewer, all of them.", minimum=1, maximum=16
    )
    validating: tuple[str, ...] = key(
        (),
        "Those of `resolvers` whose word on DNSSEC is believed (the AD bit), so the way to them must be safe; empty: "
        "whichever sets it.",
    )
    timeout: Duration = key(duration("2s"), "How long one server may take over a question.", minimum=0.01, maximum=60)
    tries: int = key(3, "How often a server that stays silent is asked.", minimum=1, maximum=10)
    tcp_fallback: bool = key(True, "Ask again over TCP when an answer does not fit a datagram.")
    edns_payload: int = key(1232, "The largest datagram we say we take, in bytes.", minimum=512, maximum=4096)
    concurrency: int = key(500, "Questions under way at once; the others wait.", minimum=1, maximum=10_000)
    roots: tuple[str, ...] = key(
        (), "Addresses of the root servers, from which the name servers of a zone are found; empty: IANA's."
    )
    authority_port: int = key(
        PORT, "The port of authoritative servers; another than 53 is for tests.", minimum=1, maximum=65535
    )
    authority_rate: int = key(
        20, "Most questions in any second to one address of a name server, by one daemon.", minimum=1, maximum=100_000
    )
    allow_addresses: tuple[str, ...] = key(
        (), "Networks (CIDR) in which name servers are asked although they are not public."
    )
    check_questions: int = key(
        1000, "Most questions that one check may send; what is over it cannot be told.", minimum=10, maximum=100_000
    )
    check_timeout: Duration = key(
        duration("60s"), "Longest time for the questions of one check.", minimum=0.1, maximum=600
    )

    domains: DomainPolicy = key(factory=DomainPolicy, doc="Registered domains: rows of table domains.")

    def __post_init__(self) -> None:
        for name, texts in (("resolvers", self.resolvers), ("validating", self.validating)):
            for text in texts:
                try:
                    server(text)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        if len(self.resolvers) > 16:
            raise ValueError(f"resolvers: {len(self.resolvers)} are too many; at most 16")
        known = {server(text) for text in self.resolvers}
        for text in self.validating:
            if known and server(text) not in known:
                raise ValueError(f"validating: {text!r} is none of dns.resolvers")
        for text in self.roots:
            _check_address(text)
        for text in self.allow_addresses:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"allow_addresses: {error}") from None
        for field in fields(self):
            low, high = field.metadata["minimum"], field.metadata["maximum"]
            if low is not None and not low <= getattr(self, field.name) <= high:
                raise ValueError(f"{field.name}: {getattr(self, field.name)} is out of bounds; from {low} to {high}")


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(
            f'roots: {text!r} is not an address; write one like "198.41.0.4", without a port (dns.authority_port)'
        ) from None
