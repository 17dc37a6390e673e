"""What the `[webhook]` section of the config says; also the limits of the HTTP client that handlers get."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network

from jobs.model import Ladder
from jobs.values import Duration, Size, duration, key, size
from jobs.webhook.profiles import ProfileSettings, ladder

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """ValueError, naming the field, for a value that cannot be meant."""

    allow_http: bool = key(False, "Send to http:// too; https:// only when false.")
    allow_ports: tuple[int | str, ...] = key((443, 80), 'Ports that may be connected to, as numbers or "8000-8999".')
    allow_addresses: tuple[str, ...] = key((), "Networks (CIDR) that may be connected to although they are not public.")
    dns_timeout: Duration = key(duration("3s"), "Longest wait for a host name's addresses.", minimum=0.05)
    connect_timeout: Duration = key(duration("5s"), "Longest wait for a connection, TLS included.", minimum=0.05)
    timeout: Duration = key(
        duration("20s"), "Longest time for one attempt, response body included.", minimum=0.05, maximum=240
    )
    keepalive: Duration = key(duration("15s"), "How long an idle connection is kept for reuse.", minimum=1)
    max_connections: int = key(1000, "Connections open at once.", minimum=1)
    max_connections_per_host: int = key(100, "Connections open at once to one host and port.", minimum=1)
    response_keep: Size = key(size("16KiB"), "How much of a response's body goes to the delivery log.", minimum=0)
    response_max: Size = key(
        size("64KiB"), "How much of a response's body is read before the connection is closed.", minimum=0
    )
    max_header: Size = key(size("8KiB"), "Longest single header of a response.", minimum=256)
    max_headers: int = key(100, "Most headers in a response.", minimum=1)
    user_agent: str = key("jobsd", "The User-Agent sent unless a job's headers name one.")
    permanent_statuses: tuple[int, ...] = key((), "Response statuses that end a job at once; 410 always does.")
    retry_after_max: Duration = key(duration("24h"), "Longest wait a receiver may ask for by Retry-After.", minimum=1)

    profiles: dict[str, ProfileSettings] = key(
        factory=dict, doc="Retry ladders that endpoints choose by name, besides `default` and `standard`."
    )

    def __post_init__(self) -> None:
        for text in self.allow_addresses:
            try:
                ip_network(text)
            except ValueError as error:
                raise ValueError(f"allow_addresses: {error}") from None
        for entry in self.allow_ports:
            _ports(entry)
        for status in self.permanent_statuses:
            if not 300 <= status <= 599:
                raise ValueError(f"permanent_statuses: {status} is no failure status; they are 300–599")
        if not _printable(self.user_agent):
            raise ValueError("user_agent: must be visible ASCII characters and single spaces")
        if self.response_max < self.response_keep:
            raise ValueError("response_max: is less than response_keep, so the log could never get that much")

    def ladder(self, profile: str) -> Ladder | None:
        """What an endpoint's profile stands for; None: the ladder of kind webhook."""
        return ladder(self.profiles, profile)

    @property
    def ports(self) -> frozenset[int]:
        """Every port of `allow_ports`, ranges spelled out."""
        return frozenset(port for entry in self.allow_ports for port in _ports(entry))


def _ports(entry: int | str) -> range:
    match = _RANGE.fullmatch(str(entry))
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if 1 <= first <= last <= 65535:
            return range(first, last + 1)
    raise ValueError(f'allow_ports: {entry!r} is no port; write a number from 1 to 65535 or a range like "8000-8999"')


def _printable(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
