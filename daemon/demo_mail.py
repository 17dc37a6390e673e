"""The demo's mail server: takes messages over SMTP and keeps the last few as files, but not for everybody."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from daemon.demo_moods import MOST, FirstTime

LINE_MAX = 2048
MESSAGE_MAX = 10 * 1024**2
RECIPIENTS_MAX = 100
CONNECTIONS_MAX = 50
SILENCE_S = 60.0
KEPT = 20
"""Messages that are kept; the next one overwrites the oldest."""

_PATH = re.compile(r"(?:FROM|TO):\s*<([^<>\s]*)>(?:\s.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was taken: its envelope's sender, and where its bytes are kept until twenty more have come."""

    sender: str
    message: bytes
    path: Path


class MailSink:
    """Mail to `busy@…` is put off the first time (450), to `grey@…` too (451); to `nobody@…` and `gone@…` it is refused
    (550); all else is taken (250).

    `asked` counts the RCPT of each recipient, `last` has what came for him last.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_first = FirstTime()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.taken = 0
        self.asked: Counter[str] = Counter()
        self.last: dict[str, Letter] = {}

    async def start(self, host: str, port: int) -> int:
        """Listen; the port.  OSError: it is taken."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o755)
        self._server = await asyncio.start_server(self._converse, host, port, limit=LINE_MAX)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Stop listening and end every conversation."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._open:
            writer.close()
        await self._server.wait_closed()
        self._server = None

    def answer(self, recipient: str) -> str:
        """The reply to RCPT."""
        if len(self.asked) >= MOST:
            self.asked.clear()
        self.asked[recipient.lower()] += 1
        match recipient.lower().partition("@")[0]:
            case "busy" if self._is_first(recipient):
                return "450 4.2.1 this mailbox is busy, please come back"
            case "grey" if self._is_first(recipient):
                return "451 4.7.1 not from strangers: please come back"
            case "nobody" | "gone":
                return "550 5.1.1 there is no such mailbox here"
        return "250 2.1.5 ok"

    def keep(self, sender: str, recipients: Collection[str], message: bytes) -> None:
        self.taken += 1
        path = self._folder / f"{self.taken % KEPT:02}.eml"
        path.write_bytes(message)
        path.chmod(0o644)  # PostgreSQL, which may be another account, reads it when it is forwarded
        if len(self.last) >= MOST:
            self.last.clear()
        self.last |= dict.fromkeys(map(str.lower, recipients), Letter(sender, message, path))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            await _Conversation(self, reader, writer).run()
        except (OSError, EOFError, TimeoutError, ValueError):
            return  # it left, fell silent, or sends lines without an end
        finally:
            self._open.discard(writer)
            writer.close()


class _Conversation:
    """One client, from the greeting to QUIT (RFC 5321)."""

    def __init__(self, sink: MailSink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink = sink
        self._reader = reader
        self._writer = writer
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def run(self) -> None:
        await self._say("220 demo.invalid ESMTP jobsd demo: keeps mail, delivers none")
        while True:
            line = (await self._line()).decode("utf-8", "replace").strip()
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    self._forget()
                    await self._say(
                        "250-demo.invalid", f"250-SIZE {MESSAGE_MAX}", "250-8BITMIME", "250-SMTPUTF8",
                        "250-PIPELINING", "250 ENHANCEDSTATUSCODES",
                    )  # fmt: skip
                case "HELO":
                    self._forget()
                    await self._say("250 demo.invalid")
                case "MAIL":
                    await self._say(self._mail(rest))
                case "RCPT":
                    await self._say(self._rcpt(rest))
                case "DATA":
                    await self._data()
                case "RSET":
                    self._forget()
                    await self._say("250 2.0.0 ok")
                case "NOOP":
                    await self._say("250 2.0.0 ok")
                case "QUIT":
                    await self._say("221 2.0.0 bye")
                    return
                case _:
                    await self._say("502 5.5.1 not known here")

    def _mail(self, rest: str) -> str:
        if (match := _PATH.fullmatch(rest)) is None:
            return "501 5.5.4 write MAIL FROM:<address>"
        self._forget()
        self._sender = match[1]
        return "250 2.1.0 ok"

    def _rcpt(self, rest: str) -> str:
        if self._sender is None:
            return "503 5.5.1 MAIL first"
        if (match := _PATH.fullmatch(rest)) is None or not match[1]:
            return "501 5.5.4 write RCPT TO:<address>"
        if len(self._recipients) >= RECIPIENTS_MAX:
            return "452 4.5.3 too many recipients"
        answer = self._sink.answer(match[1])
        if answer.startswith("250"):
            self._recipients.append(match[1])
        return answer

    async def _data(self) -> None:
        if not self._recipients:
            await self._say("503 5.5.1 RCPT first")
            return
        await self._say("354 end with a line that has only a dot")
        kept, size = bytearray(), 0
        while (line := await self._line()).rstrip(b"\r\n") != b".":
            size += len(line)
            if size <= MESSAGE_MAX:
                kept += line[1:] if line.startswith(b".") else line
        if size > MESSAGE_MAX:
            await self._say("552 5.3.4 the message is too large")
        else:
            self._sink.keep(self._sender or "", self._recipients, bytes(kept))
            await self._say("250 2.0.0 kept")
        self._forget()

    def _forget(self) -> None:
        self._sender, self._recipients = None, []

    async def _line(self) -> bytes:
        async with asyncio.timeout(SILENCE_S):
            line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    async def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        async with asyncio.timeout(SILENCE_S):
            await self._writer.drain()
