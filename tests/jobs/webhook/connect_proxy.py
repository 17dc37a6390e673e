"""A small CONNECT proxy on loopback: it knows names that nobody else does, and fails in the way a test asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"


def refuses(status: int, *headers: str) -> bytes:
    """An answer to CONNECT."""
    return "\r\n".join([f"HTTP/1.1 {status} No", "content-length: 0", *headers, "", ""]).encode()


@dataclass
class ConnectProxy:
    """Opens a tunnel to `addresses[host]`; `says` is said instead of doing so, b"" hangs up, None says nothing at all.

    `asked` keeps each CONNECT's target, `heads` all of its header lines.
    """

    addresses: Mapping[str, str] = field(default_factory=dict)
    says: bytes | None = TUNNEL
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            target = head.split(" ")[1]
            self.asked.append(target)
            self.heads.append(head)
            if self.says is None:
                await reader.read()
            elif self.says == TUNNEL:
                await self._tunnel(target, reader, writer)
            else:
                writer.write(self.says)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _tunnel(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(self.addresses[host], int(port))
        writer.write(TUNNEL)
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
