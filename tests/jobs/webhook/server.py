"""HTTP servers on loopback that say exactly what a test tells them to, byte by byte if need be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """One request as it came: `lines` are the header lines, in order, untouched; `connection` counts from 1."""

    line: str
    lines: tuple[str, ...]
    body: bytes
    connection: int
    reader: asyncio.StreamReader = field(compare=False, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        pairs = (line.partition(":") for line in self.lines)
        return {name.lower(): value.strip() for name, _, value in pairs}


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def says(*pieces: bytes) -> Answer:
    """The same bytes to everybody."""

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(pieces))  # writelines with an empty piece spins on CPython 3.12 and 3.13
        await writer.drain()

    return answer


def responds(status: int, *headers: str, body: bytes = b"") -> Answer:
    """A correct response."""
    lines = [f"HTTP/1.1 {status} Status", f"content-length: {len(body)}", *headers, "", ""]
    return says("\r\n".join(lines).encode("latin-1"), body)


async def stays_silent(request: Request, _writer: asyncio.StreamWriter) -> None:
    """Says nothing until the client goes."""
    await request.reader.read()
    raise ConnectionResetError


async def hangs_up(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Closes without a word."""
    writer.close()


@dataclass
class Server:
    """Answers each request by `answer`; keeps connections open unless the answer closes them.

    `requests` and `connections` count what came; `hung_up` is set when a client closes a connection first.
    """

    answer: Answer
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        try:
            while request := await read_request(reader, connection):
                self.requests.append(request)
                self.arrived.set()
                await self.answer(request, writer)
                if writer.is_closing():
                    return
            self.hung_up.set()
        except ConnectionError:
            self.hung_up.set()
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


class Wire(Server):
    """`answer` is called for each connection, before anything is read: what it does not read stays unread."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        try:
            await self.answer(Request("", (), b"", connection, reader), writer)
        except ConnectionError:
            self.hung_up.set()
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


async def read_request(reader: asyncio.StreamReader, connection: int = 1) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    request = Request(line, tuple(lines), b"", connection, reader)
    headers = request.headers
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readline()).strip(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, tuple(lines), body, connection, reader)
