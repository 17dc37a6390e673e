"""A relay on loopback that says what a test wants it to say."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from jobs.email.settings import RelaySettings

DROP = "drop"
"""Close the connection instead of replying."""
RESET = "reset"
"""The same with a TCP reset."""
HANG = "hang"
"""Say nothing until the client gives up."""
TAKEN = "taken"
"""Of DOT: keep the message, and close the connection instead of saying so."""
STALL = "stall"
"""Say nothing and read nothing."""

PIPELINING = ("SIZE 10000000", "8BITMIME", "SMTPUTF8", "PIPELINING")

_DEFAULTS = {
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go ahead",
    "DOT": "250 2.0.0 taken",
    "RSET": "250 2.0.0 reset",
    "STARTTLS": "220 2.0.0 go ahead",
    "GREETING": "220 peer.example",
    "QUIT": "221 2.0.0 bye",
    "HELO": "250 peer.example",
}


@dataclass(frozen=True, slots=True)
class Received:
    connection: int
    sender: str
    recipients: tuple[str, ...]
    wire: bytes


class Peer:
    """`script`: step → what to answer to the first, second, … such step; then as a well-behaved relay does.

    Steps are GREETING, EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA, BODY (after 1,000 bytes of the message), DOT, RSET
    and QUIT; a whole command line counts before its verb.  A 421 leaves the connection open, to show who closes it.
    An answer may have several replies in it.  `pieces`: how many bytes go at once, for who must put replies together.
    `mood` is asked what to say to a step where the script is at its end.
    """

    def __init__(
        self,
        script: Mapping[str, Sequence[str]] | None = None,
        *,
        offers: Sequence[str] = ("SIZE 10000000", "8BITMIME", "SMTPUTF8"),
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        pieces: int | None = None,
        mood: Callable[[str], str | None] = lambda step: None,
    ) -> None:
        self.mood = mood
        self.pieces = pieces
        self.script = {step: list(answers) for step, answers in (script or {}).items()}
        self.received: list[Received] = []
        self.commands: list[str] = []
        self.connections = 0
        self.open = 0
        self._offers = offers
        self._tls = tls
        self._implicit = implicit
        self._changed = asyncio.Condition()
        self._hanging: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        context = self._tls if self._implicit else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()
        for task in self._hanging:
            task.cancel()
        await asyncio.gather(*self._hanging, return_exceptions=True)
        await self._server.wait_closed()

    def settings(self, **changes: Any) -> RelaySettings:
        return self.at(self.port, **changes)

    @staticmethod
    def at(port: int, **changes: Any) -> RelaySettings:
        given: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": "none"}
        return RelaySettings(**given | changes)

    def count(self, verb: str) -> int:
        return sum(command.split(" ")[0].upper() == verb for command in self.commands)

    async def closed_by_client(self) -> None:
        """Return when no connection is open any more, none of them having been closed from here."""
        await self.until(lambda: self.open == 0)

    async def until(self, what: Any) -> None:
        """Return when `what()` is true; it is looked at whenever something happened here."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(what)

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._hanging.add(task)
        self.connections += 1
        self.open += 1
        await self._note()
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError
            ):
                await _Conversation(self, self.connections, reader, writer).talk()
        finally:
            self.open -= 1
            self._hanging.discard(task)
            writer.transport.abort()
            await self._note()


class _Gone(ConnectionError):
    pass


class _Conversation:
    def __init__(self, peer: Peer, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = peer
        self._number = number
        self._reader = reader
        self._writer = writer
        self._sender = ""
        self._recipients: list[str] = []

    async def talk(self) -> None:
        await self._say("GREETING", _DEFAULTS["GREETING"])
        while line := (await self._reader.readline()).decode().rstrip("\r\n"):
            self._peer.commands.append(line)
            await self._peer._note()
            await self._obey(line, line.split(" ")[0].upper())

    async def _obey(self, line: str, verb: str) -> None:
        match verb:
            case "EHLO":
                offers = list(self._peer._offers)
                if self._peer._tls and not self._writer.get_extra_info("sslcontext"):
                    offers.append("STARTTLS")
                await self._say(line, "".join(f"250-{o}\r\n" for o in ["peer.example", *offers]) + "250 HELP", verb)
            case "DATA":
                default = _DEFAULTS[verb] if self._recipients else "554 5.5.1 no valid recipients"
                if (await self._say(line, default, verb)).endswith("354 go ahead"):
                    await self._take_message()
            case "AUTH":
                await self._say(line, "235 2.7.0 welcome", verb)
            case "RCPT" if not self._sender:
                await self._say(line, "503 5.5.1 MAIL first", verb)
            case _:
                said = await self._say(line, _DEFAULTS.get(verb, "500 5.5.1 what?"), verb)
                if said.startswith("2"):
                    await self._follow(line, verb)
                if said.startswith("221"):
                    raise _Gone

    async def _follow(self, line: str, verb: str) -> None:
        match verb:
            case "STARTTLS":
                assert self._peer._tls is not None
                await self._writer.start_tls(self._peer._tls)
            case "MAIL":
                self._sender, self._recipients = line, []
            case "RSET":
                self._sender, self._recipients = "", []
            case "RCPT":
                self._recipients.append(_path(line))

    async def _take_message(self) -> None:
        if self._peer.script.get("BODY"):
            await self._reader.readexactly(1000)
            await self._say("BODY", "")
        lines: list[bytes] = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        received = Received(
            self._number, _path(self._sender) if self._sender else "", tuple(self._recipients), b"".join(lines)
        )
        self._sender, self._recipients = "", []
        self._peer.commands.append(".")
        await self._peer._note()
        self._received = received
        said = await self._say("DOT", _DEFAULTS["DOT"])
        if said.startswith("250"):
            self._peer.received.append(received)
            await self._peer._note()

    async def _say(self, line: str, default: str, verb: str = "") -> str:
        answers = self._peer.script.get(line) or self._peer.script.get(verb)
        answer = answers.pop(0) if answers else self._peer.mood(verb or line) or default
        match answer:
            case "taken":
                self._peer.received.append(self._received)
                raise _Gone
            case "drop":
                raise _Gone
            case "reset":
                self._writer.transport.abort()
                raise _Gone
            case "stall":
                await asyncio.Event().wait()
            case "hang":
                await self._reader.read()  # until the client gives up
                raise _Gone
        raw = answer.encode("utf-8", "surrogateescape") + b"\r\n"
        step = self._peer.pieces or len(raw)
        for start in range(0, len(raw), step):
            self._writer.write(raw[start : start + step])
            await self._writer.drain()
            if self._peer.pieces:
                await asyncio.sleep(0)  # another turn of the loop: another segment
        return answer


def _path(line: str) -> str:
    return line[line.index("<") + 1 : line.index(">")]
