"""What must be allowed by a domain's SPF: an include of ours, or addresses of ours."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from jobs.dns import names

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Target:
    """Either the domain that must be included, or the network that must be allowed."""

    domain: str | None = None
    network: Network | None = None

    @property
    def text(self) -> str:
        if self.network is None:
            return f"include:{self.domain}"
        network = self.network
        whole = network.prefixlen == network.max_prefixlen
        return f"ip{network.version}:{network.network_address if whole else network}"


def read(value: str) -> Target:
    """ValueError says what may be written."""
    kind, colon, rest = value.strip().partition(":")
    match kind.lower().lstrip("+"):
        case "include" if colon:
            return Target(domain=names.normal(rest))
        case "ip4" if colon:
            return Target(network=ipaddress.IPv4Network(rest.strip()))
        case "ip6" if colon:
            return Target(network=ipaddress.IPv6Network(rest.strip()))
    raise ValueError(
        f'{value[:80]!r} is nothing SPF could allow; write "include:spf.example.net", "ip4:192.0.2.0/24" or '
        '"ip6:2001:db8::/32"'
    )


def normal(value: str) -> str:
    return read(value).text
