"""The guarded HTTP client: the httpx API over an aiohttp connector, with the SSRF guard where connections are made."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import aiohttp
import httpx2
from aiohttp.http_exceptions import HttpProcessingError

from jobs.deadlines import Deadlines
from jobs.webhook import trip as trips
from jobs.webhook.connections import Connections
from jobs.webhook.exchange import READ_BUFFER, Answer, Exchange
from jobs.webhook.faults import Fault, as_httpx, fault_of
from jobs.webhook.guard import Guard, GuardedResolver
from jobs.webhook.large import Large
from jobs.webhook.names import Lookup
from jobs.webhook.proxy import Proxy
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.target import Target
from jobs.webhook.tls import TlsContexts
from jobs.webhook.turnstile import Turnstile

Headers = Mapping[str, str] | Sequence[tuple[str, str]]

_DNS_CACHE_S = 10  # concurrent requests share one lookup; each connection's address is judged again all the same
_DNS_CACHE_NAMES = 10_000
_DIALS_A_TURN = 16  # a connection costs the loop 0.2 ms, one with TLS 1 ms, and a thousand may be wanted at once
_INLINE_BODY = 1024 * 1024  # above this a body is written in pieces, so that one upload does not hold up the loop
_OTHER_FILES = 256
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


class _Request(aiohttp.ClientRequest):
    """Notes the moment between "connected" and "sent", which decides whether a failure may have had an effect."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        peer = None if conn.transport is None else conn.transport.get_extra_info("peername")
        trips.current().sending(str(peer[0]) if peer else None)
        return await super().send(conn)


class _Connector(Connections):
    """Begins few connections in a turn of the loop; the time that each has for its connect begins then.  Tells the
    proxy's trouble from the destination's, and the time TLS takes from that of connecting."""

    proxy: Proxy | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._dials = Turnstile(_DIALS_A_TURN)

    async def _wrap_create_connection(
        self, *args: Any, **kwargs: Any
    ) -> tuple[asyncio.Transport, aiohttp.client_proto.ResponseHandler]:
        await self._dials.enter()
        if kwargs.get("ssl") is None:
            return await super()._wrap_create_connection(*args, **kwargs)
        make_protocol, *rest = args
        trip = trips.current()

        def connected() -> Any:
            """Called between the two."""
            trip.shaking_hands()
            return make_protocol()

        return await super()._wrap_create_connection(connected, *rest, **kwargs)

    async def _start_tls_connection(
        self, *args: Any, **kwargs: Any
    ) -> tuple[asyncio.BaseTransport, aiohttp.client_proto.ResponseHandler]:
        trip = trips.current()
        trip.tunnelled = True  # what fails from here on is the destination's
        trip.shaking_hands()
        if self.proxy is not None:
            self.proxy.opened()
        return await super()._start_tls_connection(*args, **kwargs)


class Transport(httpx2.AsyncBaseTransport):
    """Pools connections, keeps them alive, caches the TLS context; follows nothing, stores no cookies, asks no
    environment for proxies, decodes no bodies.  Make it inside a running loop."""

    def __init__(
        self, settings: WebhookSettings, *, lookup: Lookup | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.guard = Guard(settings, lookup)
        self.large = Large()
        self.tls = TlsContexts(settings.ca_file, tls)
        self.proxy = None if settings.proxy is None else Proxy(settings.proxy)
        self.deadlines = Deadlines()
        self._timeout = _timeout(sock_connect=settings.connect_timeout)
        connector = _Connector(
            resolver=GuardedResolver(self.guard),
            socket_factory=self.guard.make_socket,
            ssl=self.tls.default or True,
            limit=_affordable(settings.max_connections),
            limit_per_host=settings.max_connections_per_host,
            keepalive_timeout=settings.keepalive,
            ttl_dns_cache=_DNS_CACHE_S,
            dns_cache_max_size=_DNS_CACHE_NAMES,
            timeout_ceil_threshold=3600,  # or waits over 5 s are rounded up to whole seconds
        )
        connector.proxy = self.proxy
        self._exchange = Exchange(connector, self.proxy, settings, self._timeout)
        self._session = aiohttp.ClientSession(
            connector=connector,
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER,
            max_line_size=settings.max_header,
            max_field_size=settings.max_header,
            max_headers=settings.max_headers,
        )

    async def post(
        self,
        target: Target,
        headers: Mapping[str, str],
        body: bytes,
        trip: trips.Trip,
        tls: ssl.SSLContext | None,
        *,
        fresh: bool = False,
        method: str = "POST",
    ) -> Answer:
        """One request, whole, with `headers` and none but Host and Content-Length beside; Fault if no answer comes.

        `trip` is this task's current one.  `tls` shows a client certificate, and only connections of the same context
        are used; `fresh`: not one that lay idle.  The caller bounds the time, reads the body and releases the answer.
        """
        try:
            return await self._exchange.post(target, headers, body, tls, trip, fresh=fresh, method=method)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, TypeError) as error:
            raise self._fault(error, trip) from error

    async def open(
        self,
        method: str,
        target: Target,
        headers: Headers,
        data: bytes | AsyncIterable[bytes] | None,
        trip: trips.Trip,
        *,
        limits: aiohttp.ClientTimeout | None = None,
        skip: Iterable[str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send one request and return once the response's head is read; Fault if it never comes.

        `trip` is this task's current one; `skip` names headers that are not to be added when missing.  The caller
        bounds the time, reads the body and releases the response.
        """
        try:
            return await self._session.request(
                method,
                target.url,
                headers=headers,
                data=data,
                allow_redirects=False,
                timeout=limits or self._timeout,
                skip_auto_headers=skip,
                proxy=None if self.proxy is None else self.proxy.url,
                proxy_headers=None if self.proxy is None else self.proxy.headers_for(target.url),
            )
        except (aiohttp.ClientError, OSError, ValueError, TypeError) as error:
            raise self._fault(error, trip) from error

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request of the httpx client; each hop of a redirect that a caller follows comes through here too."""
        trip = trips.begin()
        try:
            data = _body(request)
            response = await self.open(
                request.method,
                self.guard.target(str(request.url)),
                _sendable(request.headers, whole=not isinstance(data, AsyncIterable)),
                data,
                trip,
                limits=_timeout_of(request),
                skip=("content-type",),
            )
        except (Fault, OSError, ValueError) as error:
            fault = fault_of(error, trip)
            raise as_httpx(fault, request) from fault
        return httpx2.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_Stream(response, trip, request),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode("utf-8", "surrogateescape"),
            },
        )

    def _fault(self, error: BaseException, trip: trips.Trip) -> Fault:
        return fault_of(error, trip) if self.proxy is None else self.proxy.fault_of(error, trip)

    async def aclose(self) -> None:
        await self._session.close()
        self.deadlines.close()
        self.guard.close()


class HttpClient(httpx2.AsyncClient):
    """`ctx.http`: the httpx API.  `guarded` is the transport below it, for callers who count microseconds."""

    def __init__(self, guarded: Transport, settings: WebhookSettings) -> None:
        super().__init__(
            transport=guarded,
            headers={"user-agent": settings.user_agent, "accept-encoding": "identity"},
            timeout=httpx2.Timeout(settings.timeout, connect=settings.connect_timeout),
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # one tenant's cookies are not another's
        )
        self.guarded = guarded


def open_http(
    settings: WebhookSettings, *, lookup: Lookup | None = None, tls: ssl.SSLContext | None = None
) -> HttpClient:
    """The client that handlers get as `ctx.http`; call it inside the running loop and `aclose()` it there.

    Raises httpx exceptions whose text begins with a code of `faults.SENTENCES` and whose `__cause__` is the Fault.
    `lookup` and `tls` replace the system's name resolution and certificate store.
    """
    return HttpClient(Transport(settings, lookup=lookup, tls=tls), settings)


class _Stream(httpx2.AsyncByteStream):
    """A response's body as it comes off the wire."""

    def __init__(self, response: aiohttp.ClientResponse, trip: trips.Trip, request: httpx2.Request) -> None:
        self._response = response
        self._trip = trip
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            fault = fault_of(error, self._trip)
            raise as_httpx(fault, self._request) from fault

    async def aclose(self) -> None:
        self._response.release()  # back to the pool if read to its end, closed otherwise


def _affordable(most: int) -> int:
    """`most`, or as many connections as this process may open: those beyond wait for a free one.  The daemon's others
    need files too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else max(1, min(most, files - min(_OTHER_FILES, files // 4)))


def _sendable(headers: httpx2.Headers, *, whole: bool) -> list[tuple[str, str]]:
    """The caller's headers without those that frame the message: two opinions on where a request ends is how another
    is smuggled in.  Only a body sent in pieces keeps its length, which we could not know."""
    dropped = _HOP_BY_HOP | {"content-length"} if whole else _HOP_BY_HOP
    return [(name, value) for name, value in headers.multi_items() if name not in dropped]


def _body(request: httpx2.Request) -> bytes | AsyncIterable[bytes] | None:
    try:
        content = request.content
    except httpx2.RequestNotRead:
        return _chunks(request)
    if len(content) > _INLINE_BODY:
        return _chunks(request)
    return content or None


async def _chunks(request: httpx2.Request) -> AsyncIterator[bytes]:
    async for chunk in cast(httpx2.AsyncByteStream, request.stream):
        for start in range(0, len(chunk), _INLINE_BODY):
            yield chunk[start : start + _INLINE_BODY]


def _timeout_of(request: httpx2.Request) -> aiohttp.ClientTimeout:
    limits = request.extensions.get("timeout", {})
    pool, connect = limits.get("pool"), limits.get("connect")
    both = None if pool is None or connect is None else pool + connect
    return _timeout(connect=both, sock_connect=connect, sock_read=limits.get("read"))


def _timeout(
    *, connect: float | None = None, sock_connect: float | None = None, sock_read: float | None = None
) -> aiohttp.ClientTimeout:
    """No total: whoever waits sets one deadline around everything.  `connect` includes the wait for the pool."""
    return aiohttp.ClientTimeout(
        total=None, connect=connect, sock_connect=sock_connect, sock_read=sock_read, ceil_threshold=3600
    )
