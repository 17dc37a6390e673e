"""What the operator decides about DNS: whom to ask, and how patiently."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, fields

from jobs.dns.policy import DomainPolicy
from jobs.values import Duration, duration, key

_HOST_AND_PORT = re.compile(r"\[(?P<v6>[^\]]+)\](?::(?P<v6_port>\d+))?|(?P<v4>[^:]+)(?::(?P<v4_port>\d+))?")


@dataclass(frozen=True, slots=True)
class Server:
    """Where one resolver listens."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def server(text: str) -> Server:
    """The server of "127.0.0.1:5353", "[::1]:53", "::1" or "9.9.9.9"; ValueError for anything else.

    Host names are refused: a resolver that must be looked up first cannot be asked.
    """
    match = _HOST_AND_PORT.fullmatch(text)
    address = (match["v6"] or match["v4"]) if match else text
    port = int((match["v6_port"] or match["v4_port"] or 53) if match else 53)
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

    resolvers: tuple[str, ...] = key((), "Resolvers to ask, in this order; empty: those of the system.")
    timeout: Duration = key(duration("2s"), "How long one server may take over a question.", minimum=0.01, maximum=60)
    tries: int = key(3, "How often a server that stays silent is asked.", minimum=1, maximum=10)
    tcp_fallback: bool = key(True, "Ask again over TCP when an answer does not fit a datagram.")
    edns_payload: int = key(1232, "The largest datagram we say we take, in bytes.", minimum=512, maximum=4096)
    concurrency: int = key(100, "Questions under way at once; the others wait.", minimum=1, maximum=10_000)

    domains: DomainPolicy = key(factory=DomainPolicy, doc="Registered domains: rows of table domains.")

    def __post_init__(self) -> None:
        for text in self.resolvers:
            try:
                server(text)
            except ValueError as error:
                raise ValueError(f"resolvers: {error}") from None
        if len(self.resolvers) > 16:
            raise ValueError(f"resolvers: {len(self.resolvers)} are too many; at most 16")
        for field in fields(self):
            low, high = field.metadata["minimum"], field.metadata["maximum"]
            if low is not None and not low <= getattr(self, field.name) <= high:
                raise ValueError(f"{field.name}: {getattr(self, field.name)} is out of bounds; from {low} to {high}")
