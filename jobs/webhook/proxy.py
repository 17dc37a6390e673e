"""An egress proxy that connects in our place (CONNECT): how to ask it, and whose fault it is when no tunnel opens."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from time import monotonic
from urllib.parse import unquote

import aiohttp
from yarl import URL

from jobs.webhook.faults import OURS, Fault, fault_of
from jobs.webhook.trip import Trip

_WELL_S = 60.0

# What it may say of the destination in Proxy-Status (RFC 9209, 2.3), and what that is in our words.
_PROXY_STATUS = re.compile(r"\berror\s*=\s*\"?([a-z_]+)")
_SAID = {
    "dns_timeout": "dns_timeout",
    "dns_error": "dns_error",
    "destination_not_found": "dns_error",
    "destination_unavailable": "unreachable",
    "destination_ip_prohibited": "blocked",
    "destination_ip_unroutable": "unreachable",
    "connection_refused": "connection_refused",
    "connection_terminated": "connection_reset",
    "connection_timeout": "connect_timeout",
    "http_request_denied": "blocked",
}
_SQUID_ERRNO = {"111": "connection_refused", "110": "connect_timeout"}


class Proxy:
    """`http://[user:password@]host:port`.  Remembers when it last opened a tunnel."""

    def __init__(self, text: str) -> None:
        url = URL(text)
        self.url = url.with_user(None)
        self.host = (url.raw_host or "").rstrip(".")
        self._headers: dict[str, str] = {}
        if url.raw_user is not None:
            pair = f"{unquote(url.raw_user)}:{unquote(url.raw_password or '')}"
            self._headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        self._opened_at: float | None = None

    def headers_for(self, target: URL) -> dict[str, str]:
        """Those of its CONNECT, Host among them: the client would add that later, and connections are found by all."""
        return {**self._headers, "Host": target.host_port_subcomponent or ""}

    def opened(self) -> None:
        """A tunnel stands."""
        self._opened_at = monotonic()

    @property
    def is_well(self) -> bool:
        """It has opened a tunnel within the last minute, so what it cannot open now is the destination's trouble."""
        return self._opened_at is not None and monotonic() - self._opened_at < _WELL_S

    def fault_of(self, error: BaseException, trip: Trip) -> Fault:
        """`error` of a request that went by way of this proxy."""
        fault = fault_of(error, trip)
        if trip.tunnelled or trip.sent_at is not None or fault.code in OURS:
            return fault
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return Fault(self._refusal(error.status, error.headers or {}))
        if isinstance(error, aiohttp.ClientError | OSError):
            return Fault("proxy_unreachable")
        return fault

    def late(self) -> str:
        """The attempt's time was over before a tunnel stood."""
        return "connect_timeout" if self.is_well else "proxy_timeout"

    def _refusal(self, status: int, headers: Mapping[str, str]) -> str:
        """What an answer to CONNECT other than 200 means.  A bare 5xx may be about either side: it is held against the
        destination only while the proxy opens tunnels for others."""
        if said := _of_the_destination(status, headers):
            return said
        if status == 403:
            return "blocked"
        if status >= 500:
            return "unreachable" if self.is_well else "proxy_error"
        return "proxy_refused"


def _of_the_destination(status: int, headers: Mapping[str, str]) -> str | None:
    """Its own account of what is wrong with the destination, in the standard's header, Smokescreen's or Squid's; None
    when it gives none, or speaks of itself."""
    if match := _PROXY_STATUS.search(headers.get("proxy-status", "")):
        return "tls_error" if match[1].startswith("tls_") else _SAID.get(match[1])
    if (smokescreen := headers.get("x-smokescreen-error")) is not None:
        if status == 407:  # its way of saying that a rule forbids it
            return "blocked"
        if "resolve" in smokescreen.lower():
            return "dns_error"
        return {502: "unreachable", 504: "connect_timeout"}.get(status)
    name, _, errno = headers.get("x-squid-error", "").partition(" ")
    match name:
        case "ERR_DNS_FAIL":
            return "dns_error"
        case "ERR_CONNECT_FAIL":
            return _SQUID_ERRNO.get(errno, "unreachable")
    return None
