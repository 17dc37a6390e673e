"""Connections of the pool: what a server says out of turn is the answer to nothing, and costs it its connection.

The client library reads each segment off the wire at once, head, body and whatever follows; a fault anywhere in it
takes the head along.  And it takes what an idle connection has received for the answer to the next request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError

INTERIM_MAX = 100
"""Heads of 1xx before an answer, and blank lines; a server that sends more has no answer."""

_HEAD_END = re.compile(rb"\n\r?\n")
_REST = 2  # bytes that may belong to a head's end in the next segment


class Hearing(ResponseHandler):
    """Reads an answer's head by itself: once it is here it counts, however wrong the rest."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._idle = False
        self._reads_for_us: object = None
        self.peer: str | None = None
        self._listen()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else None

    def expect(self, reading: Mapping[str, Any]) -> None:
        """A request of ours is about to be written.  Its answer is read by the parser of the last one, as long as that
        was ours too: it goes from one answer to the next, and to make another for each costs as much as to read it."""
        if self._parser is None or self._parser is not self._reads_for_us:
            self.set_response_params(**reading)
            self._reads_for_us = self._parser
        else:
            self._idle = False
            self._listen()

    def _listen(self) -> None:
        self._has_head, self._heads, self._last = False, 0, b""

    def set_response_params(self, **params: Any) -> None:
        """A request is about to be written."""
        self._idle = False
        self._listen()
        super().set_response_params(**params)

    def rest(self) -> None:
        """The connection is the pool's from now on.  One in the middle of a second answer is of no use to anybody."""
        self._idle = True
        if not self.should_close and self._parser is not None:
            try:
                speaks = self._parser.feed_eof() is not None
            except (HttpProcessingError, ValueError):
                speaks = True
            if speaks:
                self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            if data:  # "408, you were silent for too long", or worse: a 200
                self.abort()
        elif self._has_head or self._parser is None:
            super().data_received(data)
        else:
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        start, length = 0, len(data)
        while start < length and self._exception is None:
            if self._has_head:
                super().data_received(data[start:])
                return
            end = self._head_end(data, start)
            super().data_received(data[start:end])
            self._has_head = bool(self._buffer) and _is_final(self._buffer[-1][0][0].code)
            start = end
            if self._heads > INTERIM_MAX and not self._has_head:
                self._give_up()

    def _head_end(self, data: bytes, start: int) -> int:
        """Where in `data` the head ends that goes on at `start`; the end of `data` if it does not."""
        before, self._last = self._last, b""
        if before and (match := _HEAD_END.search(before + data[start : start + _REST])):
            self._heads += 1
            return start + match.end() - len(before)
        if match := _HEAD_END.search(data, start):
            self._heads += 1
            return match.end()
        self._last = (before + data[start:])[-_REST:]
        return len(data)

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.close()
        self.set_exception(HttpProcessingError(message="too many heads before an answer"))

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Also for whoever reads the body: the library would leave them waiting for more of it.  And with its cause,
        which the library forgets where nobody waits: without it an error of TLS has the number of another."""
        super().set_exception(exc, *cause)
        if cause and isinstance(cause[0], OSError) and cause[0] is not exc:
            exc.__cause__ = cause[0]
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the body breaks off"), *cause)


class Connections(aiohttp.TCPConnector):
    """A pool of them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = cast(partial[ResponseHandler], partial(Hearing, loop=self._loop))

    def drop_idle(self, key: ConnectionKey) -> None:
        """Close those to one destination that nobody uses: where one of them turned out to be dead, others may be."""
        for protocol, _since in self._conns.pop(key, ()):
            protocol.close()

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, Hearing):
            protocol.rest()
        super()._release(key, protocol, should_close=should_close)


def _is_final(status: int) -> bool:
    """101 is: the connection speaks something else from there on."""
    return status >= 200 or status < 100 or status == 101
