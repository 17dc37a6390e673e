"""One POST on a connection of the pool: written in one piece, its answer read as it comes.

The client library's own way from a request to a response costs more than the network, the parser and the pool together;
webhooks need none of what it does there (redirects, cookies, uploads in pieces, decoding).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import aiohttp
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from jobs.webhook.connections import Connections, Hearing
from jobs.webhook.faults import Fault
from jobs.webhook.proxy import Proxy
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.target import Target
from jobs.webhook.trip import Trip

READ_BUFFER = 64 * 1024
_ROUTES_KEPT = 4096


class Content(Protocol):
    def at_eof(self) -> bool: ...
    async def readany(self) -> bytes: ...
    def _read_nowait(self, n: int) -> bytes: ...


class Answer:
    """A response whose head is read.  `content` is its body, undecoded."""

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], content: Content, connection: Connection) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self._connection = connection

    def rest(self) -> bytes:
        """Of a body that broke off: what came before, and was not read yet."""
        return self.content._read_nowait(-1)

    def release(self) -> None:
        """To the pool, if both sides have said all they had to say; closed otherwise."""
        _let_go(self._connection)


@dataclass(frozen=True, slots=True)
class _Route:
    """What the connector knows a destination by, and the first lines of what is sent there."""

    request: aiohttp.ClientRequest
    key: Any
    start: str


class Exchange:
    """Posts over the connections of `connector`."""

    def __init__(
        self,
        connector: Connections,
        proxy: Proxy | None,
        settings: WebhookSettings,
        timeout: aiohttp.ClientTimeout,
    ) -> None:
        self._connector = connector
        self._proxy = proxy
        self._timeout = timeout
        self._reading = {
            "read_until_eof": True,
            "auto_decompress": False,
            "read_bufsize": READ_BUFFER,
            "timeout_ceil_threshold": 3600,
            "max_line_size": settings.max_header,
            "max_field_size": settings.max_header,
            "max_headers": settings.max_headers,
        }
        self._route = lru_cache(maxsize=_ROUTES_KEPT)(self._make_route)

    async def post(
        self,
        target: Target,
        headers: Mapping[str, str],
        body: bytes,
        tls: ssl.SSLContext | None,
        trip: Trip,
        *,
        fresh: bool,
        method: str = "POST",
    ) -> Answer:
        """Raises what the connector and the parser raise; `trip` notes when the first byte leaves.  `fresh`: on a
        connection that is new, or was in use a moment ago."""
        route = self._route(target.url, tls, method)
        if fresh:
            self._connector.drop_idle(route.key)
        message = _written(route.start, headers, body)
        connection = await self._connector._get(route.key, []) or await self._dialled(route)
        try:
            line, transport = connection.protocol, connection.transport
            if transport is None or not isinstance(line, Hearing):
                raise aiohttp.ServerDisconnectedError
            trip.sending(line.peer)
            line.expect(self._reading)
            transport.write(message)
            while True:
                head, content = await line.read()
                if not 100 <= head.code <= 199 or head.code == 101:
                    return Answer(head.code, head.headers, content, connection)
        except BaseException:
            _let_go(connection, at_once=True)
            raise

    async def _dialled(self, route: _Route) -> Connection:
        """A new connection, or one that comes free while there may not be more."""
        try:
            return await self._connector.connect(route.request, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error

    def _make_route(self, url: URL, tls: ssl.SSLContext | None, method: str) -> _Route:
        request = aiohttp.ClientRequest(
            method,
            url,
            loop=self._connector._loop,
            ssl=tls or True,
            proxy=None if self._proxy is None else self._proxy.url,
            proxy_headers=None if self._proxy is None else CIMultiDict(self._proxy.headers_for(url)),
        )
        start = f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"
        return _Route(request, request.connection_key, start)


def _written(start: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The request.  Whatever was checked before, a line break in a value stops here."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    breaks = len(headers) + 2
    head = f"{start}{lines}content-length: {len(body)}\r\n\r\n"
    if not (head.count("\r") == head.count("\n") == head.count("\r\n") == breaks + 2 and head.isascii()):
        raise Fault("bad_request")
    return head.encode() + body


def _let_go(connection: Connection, *, at_once: bool = False) -> None:
    """`at_once`, or while part of the request has not left: a connection that is closed in order would first wait for a
    receiver that reads nothing."""
    transport = connection.transport
    if transport is not None and (at_once or transport.get_write_buffer_size()):
        transport.abort()
        connection.close()
    else:
        connection.release()
