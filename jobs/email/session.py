"""One SMTP connection that is ready for mail: commands, replies and the message, each within its time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from jobs.email.reply import Fault, Reply, reply_text

_LONGEST_LINE = 8 * 1024
_MOST_LINES = 100
_PIECE = 64 * 1024
_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)
_STUFFED = re.compile(rb"^\.", re.MULTILINE)


class Broken(Exception):
    """The connection can no longer be used.  `after_dot`: the relay may have the whole message."""

    def __init__(self, fault: Fault, *, after_dot: bool = False) -> None:
        super().__init__(fault)
        self.fault: Fault = fault
        self.after_dot = after_dot


class Session:
    """A connection after its greeting, TLS and login.  `extensions` is what EHLO offered, in lower case."""

    def __init__(self, transport: asyncio.Transport, extensions: Mapping[str, str]) -> None:
        """Takes `transport` over from whoever opened it; nothing may be on its way to it."""
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_LONGEST_LINE, loop=loop)
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.set_write_buffer_limits(high=1, low=0)  # so that drain() waits until nothing is left to write
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        self._transport = transport
        self.extensions = extensions
        self.messages = 0
        self.idle_since = 0.0
        self.needs_reset = False

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing() and not self._reader.at_eof()

    @property
    def largest_message(self) -> int | None:
        """What the relay takes (RFC 1870), None if it does not say."""
        size = self.extensions.get("size", "")
        return int(size) if size.isdecimal() and int(size) > 0 else None

    async def command(self, line: str, timeout_s: float) -> Reply:
        """Send one line and return its reply.  A 421 closes the connection: the relay does too (RFC 5321, 3.8)."""
        if any(c in line for c in "\r\n\0"):
            raise ValueError(f"{line!r} is more than one command")
        await self._write(line.encode() + b"\r\n", timeout_s)
        reply = await self._reply(timeout_s)
        if reply.code == 421:
            self.abort()
        return reply

    async def message(self, wire: bytes, *, piece_timeout_s: float, final_timeout_s: float) -> Reply:
        """Send the message after a 354 and return the reply to its final dot.

        Piece by piece: as long as the last one, which has the dot, was not begun, a lost connection means that the
        message was not taken.
        """
        end = b".\r\n" if wire.endswith(b"\r\n") else b"\r\n.\r\n"
        stuffed = memoryview(_STUFFED.sub(b"..", wire) + end)
        last = (len(stuffed) - 1) // _PIECE * _PIECE
        for start in range(0, last, _PIECE):
            await self._write(stuffed[start : start + _PIECE], piece_timeout_s)
        try:
            await self._write(stuffed[last:], piece_timeout_s)
            reply = await self._reply(final_timeout_s)
        except Broken as error:
            raise Broken(error.fault, after_dot=True) from error
        if reply.code == 421:
            self.abort()
        return reply

    def leave(self) -> None:
        """Say QUIT and close, without waiting for the answer."""
        if self.is_open:
            self._transport.write(b"QUIT\r\n")
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is not yet sent stays unsent."""
        self._transport.abort()

    async def _write(self, data: bytes | memoryview, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(data)
                await self._writer.drain()
        except TimeoutError:
            raise self._broken("timeout") from None
        except OSError as error:
            raise self._broken("lost") from error

    async def _reply(self, timeout_s: float) -> Reply:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read_reply()
        except TimeoutError:
            raise self._broken("timeout") from None
        except OSError as error:
            raise self._broken("lost") from error

    async def _read_reply(self) -> Reply:
        texts: list[str] = []
        for _ in range(_MOST_LINES):
            try:
                line = await self._reader.readline()
            except ValueError:  # longer than the reader's limit
                raise self._broken("garbled") from None
            if not line.endswith(b"\n"):
                raise self._broken("lost")
            match = _REPLY_LINE.fullmatch(line.rstrip(b"\r\n"))
            if not match:
                raise self._broken("garbled")
            texts.append(reply_text(match[3] or b""))
            if match[2] != b"-":
                return Reply(int(match[1]), "\n".join(texts))
        raise self._broken("garbled")

    def _broken(self, fault: Fault) -> Broken:
        self.abort()
        return Broken(fault)
