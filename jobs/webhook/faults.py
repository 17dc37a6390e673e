"""Why a request got no response, in one vocabulary: the client's exceptions are read here once and nowhere else."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator

import aiohttp
import httpx2
from aiohttp.http_exceptions import HttpProcessingError

from jobs.webhook.guard import Blocked
from jobs.webhook.names import Unresolved
from jobs.webhook.target import BadUrl
from jobs.webhook.trip import Trip

# Sentences of our own: the client's quote the address it tried, which is not for tenants.
SENTENCES = {
    "bad_request": "the request cannot be written as HTTP",
    "bad_url": "the URL cannot be used",
    "blocked": "the URL is not allowed",
    "connect_timeout": "no connection in time",
    "connection_closed": "the server closed the connection without a response",
    "connection_refused": "the server refused the connection",
    "connection_reset": "the server broke the connection",
    "dns_error": "the host name has no address",
    "dns_timeout": "no answer about the host name in time",
    "interrupted": "stopped while under way",
    "local_error": "this daemon is out of sockets, ports or memory",
    "pool_timeout": "no free connection in time",
    "protocol_error": "the server does not speak HTTP/1.1 within the limits",
    "proxy_error": "this daemon's proxy failed",
    "proxy_refused": "this daemon's proxy does not serve it",
    "proxy_timeout": "this daemon's proxy did not answer in time",
    "proxy_unreachable": "this daemon's proxy cannot be reached",
    "resolver_error": "this daemon's name server does not answer",
    "timeout": "no complete response in time",
    "tls_error": "TLS failed: certificate or handshake",
    "unreachable": "no route to the server",
}

_ERRNO = {
    errno.ECONNREFUSED: "connection_refused",
    errno.ECONNRESET: "connection_reset",
    errno.ECONNABORTED: "connection_reset",
    errno.EPIPE: "connection_reset",
    errno.ETIMEDOUT: "connect_timeout",
    errno.EMFILE: "local_error",
    errno.ENFILE: "local_error",
    errno.ENOBUFS: "local_error",
    errno.ENOMEM: "local_error",
    errno.EADDRNOTAVAIL: "local_error",
    errno.EPERM: "local_error",  # a firewall of this machine
    errno.EACCES: "local_error",
}

OURS = frozenset(
    [
        *("local_error", "pool_timeout", "proxy_error", "proxy_refused", "proxy_timeout", "proxy_unreachable"),
        "resolver_error",
    ]
)
"""Faults of this daemon's side, which no receiver can do anything about."""

_HTTPX: dict[str, type[httpx2.TransportError]] = {
    "bad_request": httpx2.LocalProtocolError,
    "bad_url": httpx2.UnsupportedProtocol,
    "connect_timeout": httpx2.ConnectTimeout,
    "connection_closed": httpx2.RemoteProtocolError,
    "connection_reset": httpx2.ReadError,
    "dns_timeout": httpx2.ConnectTimeout,
    "pool_timeout": httpx2.PoolTimeout,
    "protocol_error": httpx2.RemoteProtocolError,
    "proxy_error": httpx2.ProxyError,
    "proxy_refused": httpx2.ProxyError,
    "proxy_timeout": httpx2.ConnectTimeout,
    "proxy_unreachable": httpx2.ProxyError,
    "timeout": httpx2.ReadTimeout,
}


class Fault(Exception):
    """No response, or none to the end.  `code` is a key of SENTENCES; the text is fit for tenants.

    `had_reply`: bytes of a response were seen before it failed.
    """

    def __init__(self, code: str, text: str = "", *, had_reply: bool = False) -> None:
        super().__init__(text or SENTENCES[code])
        self.code = code
        self.had_reply = had_reply


def fault_of(error: BaseException, trip: Trip) -> Fault:
    """`error` of the client or the guard as a Fault."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, Blocked | BadUrl):
        return Fault("blocked" if isinstance(error, Blocked) else "bad_url", str(error))
    if trip.was_blocked or any(isinstance(cause, Blocked) for cause in _causes(error)):
        return Fault("blocked", str(next((c for c in _causes(error) if isinstance(c, Blocked)), "")))
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):  # its errno is OpenSSL's and means something else
        code = "tls_error"
    else:
        code = next(filter(None, map(_code, causes)), None) or "unreachable"
    if code == "connect_timeout" and not (trip.resolving or trip.dialled):
        code = "pool_timeout"
    return Fault(code, had_reply=code == "protocol_error" or _cut_off(error))


def as_httpx(fault: Fault, request: httpx2.Request) -> httpx2.TransportError:
    """`fault` as the exception that users of the httpx API expect; its `__cause__` is to be the fault."""
    return _HTTPX.get(fault.code, httpx2.ConnectError)(f"{fault.code}: {fault}", request=request)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, then what it wraps, outermost first: the connector reports everything as an error of its own."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = getattr(seen, "os_error", None) or seen.__cause__


def _code(error: BaseException) -> str | None:
    match error:
        case Unresolved():
            return error.code
        case ssl.SSLError() | ssl.CertificateError() | aiohttp.ClientSSLError():
            return "tls_error"
        case aiohttp.ServerDisconnectedError():
            return "connection_closed"
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError() | HttpProcessingError():
            return "protocol_error"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "bad_url"
        case aiohttp.ClientConnectorError():
            return None  # says only where; its cause says why
        case TimeoutError() if error.errno is None:
            return "timeout"
        case OSError():
            return _ERRNO.get(error.errno or 0) or ("connection_reset" if isinstance(error, ConnectionError) else None)
        case ValueError() | TypeError():
            return "bad_request"
    return None


def _cut_off(error: BaseException) -> bool:
    """The connection ended inside a response's head."""
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
