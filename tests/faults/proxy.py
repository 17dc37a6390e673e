"""A network between a daemon and Postgres that can fail: a TCP port in front of the server's unix socket."""

from __future__ import annotations

import asyncio
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Mode = Literal["pass", "blackhole", "refuse"]


class Proxy:
    """`mode` counts for connections that are there as well as for new ones: `blackhole` lets nothing through in either
    direction, and what was sent meanwhile is lost for good; `refuse` ends a new connection at once.  `delay_s` is added
    to every message that comes from the server."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._socket = f"{query['host']}/.s.PGSQL.{query['port']}"
        self._user, self._database = parts.username, parts.path
        self._server: asyncio.Server | None = None
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.mode: Mode = "pass"
        self.delay_s = 0.0
        self.listeners = 0
        """How many connections have asked to listen."""
        self.listener_is_cut = False
        """Connections that listen are in a black hole, the others are not."""
        self.losses = 0
        """Replies still to be lost; see lose_reply_to."""
        self.lost = 0
        self.victim = b""
        self.port = 0

    @property
    def dsn(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self.port}{self._database}?sslmode=disable"

    async def start(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Nobody listens any more, and every connection is reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def reset(self) -> None:
        """Break every connection."""
        for line in tuple(self._lines):
            line.abort()

    def lose_reply_to(self, statement: str, times: int) -> None:
        """The next `times` executions of a statement whose text holds `statement` reach the server and are committed;
        instead of the answer the client gets a broken connection."""
        self.victim, self.losses = statement.encode(), times

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.mode == "refuse":
            writer.transport.abort()
            return
        try:
            upstream = await asyncio.open_unix_connection(self._socket)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(self, (reader, writer), upstream)
        self._lines.add(line)
        try:
            await line.run()
        finally:
            self._lines.discard(line)


class _Line:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = client
        self._server_reader, self._server_writer = server
        self._started = False
        self._rest = b""
        self._statements: dict[bytes, bytes] = {}
        self._doomed = False
        self._listens = False

    def abort(self) -> None:
        self._client_writer.transport.abort()
        self._server_writer.transport.abort()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pipe(self._client_reader, self._server_writer, up=True))
            both.create_task(self._pipe(self._server_reader, self._client_writer, up=False))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if up:
                    self._read(data)
                if self._proxy.mode == "blackhole" or (self._listens and self._proxy.listener_is_cut):
                    continue
                if not up and self._doomed and b"UPDATE 0\0" in data:  # an idle claim: wait for one that finds rows
                    self._doomed = False
                    self._proxy.losses += 1
                if not up and self._doomed and b"Z\x00\x00\x00\x05" in data:  # ReadyForQuery: it is committed
                    self._proxy.lost += 1
                    return
                if not up and self._proxy.delay_s:
                    await asyncio.sleep(self._proxy.delay_s)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            self.abort()

    def _read(self, data: bytes) -> None:
        """Read the client's messages: which prepared statement is the victim, and when it is executed."""
        self._rest += data
        if not self._started:  # the start-up message has no type byte; it is short and comes alone
            self._started, self._rest = True, b""
        while len(self._rest) >= 5 and len(self._rest) > (length := int.from_bytes(self._rest[1:5], "big")):
            kind, body = self._rest[:1], self._rest[5 : length + 1]
            self._rest = self._rest[length + 1 :]
            if kind == b"P" and b"LISTEN " in body:
                self._listens = True
                self._proxy.listeners += 1
            if kind == b"P":
                name, _, text = body.partition(b"\0")
                self._statements[name] = text
            victim = self._proxy.victim
            called = kind == b"B" and victim in self._statements.get(body.split(b"\0", 2)[1], b"")
            said = kind == b"Q" and victim in body
            if (called or said) and self._proxy.losses > 0:
                self._proxy.losses -= 1
                self._doomed = True
