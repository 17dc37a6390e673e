"""Which IP addresses a tenant's URL may lead to: the public ones, and those the operator excepts."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# A table of our own: `ipaddress.is_global` differs between patch levels of Python (3.11.7 calls 2002::/16, fec0::/10
# and multicast global), and a guard must not change its mind with the interpreter.  Source: the IANA special-purpose
# address registries (RFC 6890 and its updates).
_V4_DENIED = tuple(
    IPv4Network(text)
    for text in [
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    ]
)
_V6_UNICAST = IPv6Network("2000::/3")
_V6_DENIED = tuple(
    IPv6Network(text) for text in ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48"]
)
_NAT64 = IPv6Network("64:ff9b::/96")


def parse(text: str) -> Address:
    """The address of `text`, without its zone; ValueError if it is none.

    One that only wraps an IPv4 address (v4-mapped, NAT64's well-known prefix) is that IPv4 address, since that is
    where the packets go.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """True for an address on the open internet, as `parse` gives it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _V4_DENIED)
    return address in _V6_UNICAST and not any(address in network for network in _V6_DENIED)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


def is_allowed(text: str, exceptions: tuple[Network, ...]) -> bool:
    """Whether a connection to the address `text` may be made; text that is no address may not."""
    try:
        address = parse(text)
    except ValueError:
        return False
    return is_public(address) or any(address in network for network in exceptions)
