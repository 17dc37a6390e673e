"""A receiver of webhooks that costs little: answers each POST with 204, after a while if wished; a GET with how many
came, and how many of them waited at once.

`python -m benchmarks.sink ADDRESS [DELAY_S]` prints its port.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
BACKLOG = 4096


class Sink(asyncio.Protocol):
    """One connection.  What it counts are the first bytes of requests, so no body may hold them."""

    seen = 0
    waiting = 0
    most_waiting = 0
    delay_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        posts = data.count(b"POST ")
        Sink.seen += posts
        if data.startswith(b"GET "):
            text = f"{Sink.seen} {Sink.most_waiting}"
            self.transport.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
        elif not posts:
            return
        elif Sink.delay_s:
            Sink.waiting += posts
            Sink.most_waiting = max(Sink.most_waiting, Sink.waiting)
            asyncio.get_running_loop().call_later(Sink.delay_s, self.answer, posts)
        else:
            self.transport.write(ANSWER * posts)

    def answer(self, posts: int) -> None:
        Sink.waiting -= posts
        self.transport.write(ANSWER * posts)


@dataclass(frozen=True, slots=True)
class Sunk:
    """A sink in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def url(self, address: str = "127.0.0.1") -> str:
        return f"http://{address}:{self.port}/"

    async def seen(self) -> int:
        """How many POSTs have come to it."""
        return (await self.counts())[0]

    async def counts(self) -> tuple[int, int]:
        """How many have come to it, and how many of them waited at once."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        text = await reader.readexactly(int(head.partition(b"content-length: ")[2]))
        writer.close()
        seen, most = map(int, text.split())
        return seen, most

    async def until_seen(self, posts: int) -> None:
        while await self.seen() < posts:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def sink(address: str = "127.0.0.1", delay_s: float = 0.0) -> AsyncIterator[Sunk]:
    async with listener("-m", "benchmarks.sink", address, str(delay_s)) as sunk:
        yield sunk


@asynccontextmanager
async def listener(*args: str) -> AsyncIterator[Sunk]:
    """Python with these arguments, which prints the port that it listens at."""
    process = subprocess.Popen([sys.executable, *args], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Sunk(process, int(await asyncio.to_thread(process.stdout.readline)))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def main(address: str, delay_s: float = 0.0) -> None:
    Sink.delay_s = delay_s
    server = await asyncio.get_running_loop().create_server(Sink, address, 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(float, sys.argv[2:])))
