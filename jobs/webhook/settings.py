"""What the `[webhook]` section of the config says; also the limits of the HTTP client that handlers get."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from jobs.model import Ladder
from jobs.values import Duration, Secret, Size, duration, key, size
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
    max_connections: int = key(
        10_000, "Connections in use at once; no more than the process may open files.", minimum=1
    )
    max_connections_per_host: int = key(100, "Connections in use at once to one host and port.", minimum=1)
    response_keep: Size = key(size("16KiB"), "How much of a response's body goes to the delivery log.", minimum=0)
    response_max: Size = key(
        size("64KiB"), "How much of a response's body is read before the connection is closed.", minimum=0
    )
    max_header: Size = key(size("8KiB"), "Longest single header of a response.", minimum=256)
    max_headers: int = key(100, "Most headers in a response.", minimum=1)
    user_agent: str = key("jobsd", "The User-Agent sent unless a job's headers name one.")
    permanent_statuses: tuple[int, ...] = key((), "Response statuses that end a job at once; 410 does anyway.")
    retry_after_max: Duration = key(
        duration("24h"), "Longest wait a receiver may ask for by Retry-After.", minimum=1, maximum=86400
    )
    obey_delivery_header: bool = key(
        False, "Obey the response header webhook-delivery: abort-message or disable (proposed for Standard Webhooks)."
    )
    payload_max: Size = key(
        size("256KiB"), "Largest body that is sent; a larger one makes a dead letter.", minimum=1, maximum=256 * 1024
    )
    payload_warn: Size = key(
        size("20KiB"), "A larger body than this is told of in the log, once an hour for each destination."
    )
    ca_file: Path | None = key(None, "A PEM file of certificate authorities that are believed besides the system's.")
    proxy: Secret | None = key(
        None, "http://[user:password@]host:port: connect by way of this proxy (CONNECT), which then resolves the names."
    )

    own_secrets: bool = key(
        False,
        "Rows and endpoints of an organisation may name only those secrets that begin with it and two hyphens: "
        "secret://acme--crm.",
    )
    disable_after: Duration = key(
        duration("5d"),
        "An endpoint that has only failed for so long is disabled; a fifth and three fifths of it before, it is warned "
        'of. "0": it is left alone.',
        minimum=0,
    )

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
        if self.proxy is not None:
            _check_proxy(self.proxy, allow_http=self.allow_http)
        if self.response_max < self.response_keep:
            raise ValueError("response_max: is less than response_keep, so the log could never get that much")

    def ladder(self, profile: str) -> Ladder | None:
        """What an endpoint's profile stands for; None: the ladder of kind webhook."""
        return ladder(self.profiles, profile)

    @property
    def proxy_host(self) -> str | None:
        """The name or address of the proxy's machine, if there is one."""
        return None if self.proxy is None else (urlsplit(self.proxy).hostname or "").rstrip(".")

    @property
    def ports(self) -> tuple[range, ...]:
        """Those of `allow_ports`."""
        return tuple(_ports(entry) for entry in self.allow_ports)


def _ports(entry: int | str) -> range:
    match = _RANGE.fullmatch(str(entry))
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if 1 <= first <= last <= 65535:
            return range(first, last + 1)
    raise ValueError(f'allow_ports: {entry!r} is no port; write a number from 1 to 65535 or a range like "8000-8999"')


def _check_proxy(text: str, *, allow_http: bool) -> None:
    """Never repeats the value: it may hold a password."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and parts.hostname and parts.port and not (parts.path + parts.query).strip("/")
    except ValueError:
        usable = False
    if not usable:
        raise ValueError('proxy: is no address like "http://proxy.internal:4750" or "http://user:password@host:3128"')
    if allow_http:
        raise ValueError("proxy: what goes through a tunnel is https:// only, so allow_http must be false")


def _printable(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
