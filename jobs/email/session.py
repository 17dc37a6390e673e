"""One SMTP connection that is ready for mail: messages go out, and each reply to whom it answers.

If the relay offers PIPELINING (RFC 2920), MAIL, RCPT and DATA are one write, and follow the final dot of the message
before them without waiting for its reply: one round trip a message.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from functools import lru_cache

from jobs.email.handover import Handover
from jobs.email.reply import Fault, Reply, reply_text
from jobs.email.settings import RelaySettings

SEATS = 4
"""Messages at once in a session with PIPELINING: one that is taken, one that is asked for, and two to go with the next
dots, since whoever hands one over needs a turn of the loop or two until he has the next."""

_LONGEST_LINE = 8 * 1024
_MOST_LINES = 100
_PIECE = 64 * 1024
_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)
_DOT = re.compile(rb"(?:\A|(?<=[\r\n]))\.")
_CLOSING = 421
_RSET = b"RSET\r\n"
_RESET_TIMEOUT_S = 10.0


class Session(asyncio.Protocol):
    """A connection after its greeting, TLS and login.  `extensions` is what EHLO offered, in lower case.

    The messages in it stand in a row: replies are for the front; the commands of the next one are on their way once the
    front's final dot is; those after it wait to go with a dot, too.  `seats` is for its pool: how many are taken.
    """

    def __init__(self, transport: asyncio.Transport, extensions: Mapping[str, str], relay: RelaySettings) -> None:
        """Takes `transport` over from whoever opened it; nothing may be on its way to it."""
        self.extensions = extensions
        self.pipelining = relay.pipelining and "pipelining" in extensions
        self.messages = 0
        self.seats = 0
        self.seats_max = SEATS if self.pipelining else 1
        self.idle_since = 0.0
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._row: deque[Handover] = deque()
        self._probe: asyncio.Future[bool] | None = None
        self._commands: list[bytes] = []  # of a front that says one at a time
        self._unsent: memoryview | None = None
        self._paused = False
        self._may_speak = False  # everything that was asked is answered
        self._doomed = False
        self._ended = False
        self._partial = b""
        self._lines: list[str] = []
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        transport.set_protocol(self)

    @property
    def is_usable(self) -> bool:
        """Whether another message may go through it."""
        return not (self._ended or self._doomed or self._transport.is_closing())

    @property
    def largest_message(self) -> int | None:
        """What the relay takes (RFC 1870), None if it does not say."""
        size = self.extensions.get("size", "")
        return int(size) if size.isdecimal() and int(size) > 0 else None

    async def hand_over(self, handover: Handover) -> None:
        """Return when each recipient has an answer.  A connection that ends is an answer, too.

        Whoever is cancelled here takes the connection with him, but not the message in front of his: that one is seen
        to its end first.  If his own final dot had left, that is an answer, too, and the cancellation ends here: the
        relay may have the message, so the attempt counts.
        """
        handover.first = self.messages == 0
        handover.plain = handover.plain or not self.pipelining
        self.messages += 1
        if not self.is_usable:
            return handover.settle("mail", fault="lost")
        handover.waiting = self._loop.create_future()
        self._row.append(handover)
        if len(self._row) == 1:
            self._begin(handover)
        elif len(self._row) == 2 and self._row[0].dot_is_out and not handover.plain:
            self._write(self._envelope(handover))
        try:
            await handover.waiting
        except asyncio.CancelledError:
            self._drop(handover)
            if not handover.dot_is_out:
                raise

    async def answers(self, timeout_s: float) -> bool:
        """Whether the other side is still there: RSET, in a session that nobody uses."""
        self._probe = self._loop.create_future()
        self._write(_RSET)
        self._within(timeout_s)
        try:
            well = await self._probe
        except asyncio.CancelledError:
            self.abort()
            raise
        self._probe = self._deadline = None
        return well

    def leave(self) -> None:
        """Say QUIT and close, without waiting for the answer."""
        if self.is_usable:
            self._transport.write(b"QUIT\r\n")
        self._end()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is not yet sent stays unsent."""
        self._fail("lost")

    # what asyncio calls

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._read(line)
        if len(self._partial) > _LONGEST_LINE:
            self._fail("garbled")
        if self._may_speak:
            self._speak(self._row[0])

    def eof_received(self) -> bool:
        return False  # closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("lost")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._unsent is not None:
            self._send_pieces(self._row[0])

    # replies

    def _read(self, line: bytes) -> None:
        if self._ended:
            return None
        if len(line) > _LONGEST_LINE or len(self._lines) >= _MOST_LINES or (found := _parsed(line)) is None:
            return self._fail("garbled")
        reply, is_last = found
        if is_last and not self._lines:
            return self._hear(reply)
        self._lines.append(reply.text)
        if not is_last:
            return None
        whole, self._lines = "\n".join(self._lines), []
        return self._hear(Reply(reply.code, whole))

    def _hear(self, reply: Reply) -> None:
        if not self._row:
            return self._hear_probe(reply)
        front = self._row[0]
        is_unasked = self._may_speak or self._unsent is not None
        if reply.code == _CLOSING:  # the relay closes the connection, and so do we (RFC 5321, 3.8)
            front.break_off(front.phase, reply)
            return self._fail("lost")
        if is_unasked or not front.hear(reply):
            return self._misunderstood(front)
        if front.over and len(self._row) > 1 and self._row[1].begun:
            return self._go_on(front)
        if front.over or front.plain or front.go_ahead or front.resetting:
            self._may_speak = True
            return None
        return self._within(self._limit(front))

    def _misunderstood(self, front: Handover) -> None:
        front.distrust()
        self._fail("garbled")

    def _hear_probe(self, reply: Reply) -> None:
        """Nobody asked for anything, unless it was RSET."""
        if self._probe is None or self._probe.done() or reply.code != 250:
            return self._fail("lost")
        return self._probe.set_result(True)

    def _go_on(self, front: Handover) -> None:
        """The front is over; whoever stood behind it is the front now."""
        self._row.popleft()
        front.end()
        if self._doomed:
            self._fail("lost")
        elif not self._row:
            self._deadline = None
        elif not self._row[0].begun:
            self._begin(self._row[0])
        else:
            self._within(self._relay.command_timeout)

    # commands and messages

    def _begin(self, front: Handover) -> None:
        if front.plain:
            self._commands = front.commands(self.extensions)
            self._write(self._commands[0])
        else:
            self._write(self._envelope(front))
        self._within(self._relay.command_timeout)

    def _envelope(self, handover: Handover) -> bytes:
        return b"".join(handover.commands(self.extensions))

    def _speak(self, front: Handover) -> None:
        """It is our turn.  A relay that has said more than it was asked, or begun to, is not understood."""
        self._may_speak = False
        if self._partial or self._lines:
            self._misunderstood(front)
        elif front.over:
            self._go_on(front)
        elif front.go_ahead:
            self._send_message(front)
        elif front.resetting:
            self._write(_RSET)
            self._within(min(_RESET_TIMEOUT_S, self._relay.command_timeout))
        else:
            self._write(front.next_command(self._commands))
            self._within(self._limit(front))

    def _limit(self, front: Handover) -> float:
        return self._relay.data_timeout if front.phase == "data" else self._relay.command_timeout

    def _send_message(self, front: Handover) -> None:
        """Piece by piece: as long as the last one, which has the dot, was not begun, a lost connection means that the
        message was not taken."""
        data = b".\r\n" if front.nobody_left else dotted(front.message.wire)
        if len(data) <= _PIECE:
            self._send_end(front, data)
            return
        self._transport.set_write_buffer_limits(high=1, low=0)  # so that a piece is gone before the next one begins
        self._unsent = memoryview(data)
        self._send_pieces(front)

    def _send_pieces(self, front: Handover) -> None:
        while self._unsent is not None and not self._paused and not self._ended:
            piece, rest = self._unsent[:_PIECE], self._unsent[_PIECE:]
            if rest:
                self._unsent = rest
                self._write(piece)
                self._within(self._relay.data_timeout)
            else:
                self._unsent = None
                self._transport.set_write_buffer_limits()
                self._send_end(front, piece)

    def _send_end(self, front: Handover, piece: bytes | memoryview) -> None:
        """The dot, and with it the commands of the next message, if there is one."""
        front.dot_is_out = True
        if len(self._row) == 1 or self._row[1].plain:
            self._write(piece)
        else:
            self._write(b"".join((piece, self._envelope(self._row[1]))))
        self._within(self._relay.final_timeout)

    def _write(self, data: bytes | memoryview) -> None:
        self._transport.write(data)

    # ends

    def _drop(self, handover: Handover) -> None:
        """Nobody waits for it any more."""
        if handover.over or self._ended:
            return
        if handover is self._row[0]:
            self._fail("stopped")
        elif not handover.begun:
            self._row.remove(handover)
        else:
            self._doomed = True

    def _fail(self, fault: Fault) -> None:
        """The connection ends, and with it what is in it: only the front can have been the reason."""
        if self._ended:
            return
        row = list(self._row)
        self._end()
        self._transport.abort()
        if self._probe is not None and not self._probe.done():
            self._probe.set_result(False)
        for handover in row:
            handover.break_off(handover.phase, fault=fault if handover is row[0] else "lost")
            handover.end()

    def _end(self) -> None:
        self._ended = True
        self._row.clear()
        self._may_speak = False
        self._unsent = self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # one timer for all limits, which is set anew only when it goes off or is too late

    def _within(self, limit_s: float) -> None:
        self._deadline = self._loop.time() + limit_s
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._ring)
        else:
            self._fail("timeout")


@lru_cache(256)
def _parsed(line: bytes) -> tuple[Reply, bool] | None:
    """A line of a reply, and whether it is the last one.  Relays say the same nearly always."""
    match = _REPLY_LINE.fullmatch(line.rstrip(b"\r"))
    if match is None:
        return None
    code, more, text = match.groups(b"")
    return Reply(int(code), reply_text(text)), more != b"-"


def dotted(wire: bytes) -> bytes:
    """As it stands between DATA and the next command (RFC 5321, 4.5.2): a dot before each dot that begins a line.

    Lines of a message that was not made here may end in a bare CR or LF.  Whether a relay takes these for line ends is
    its own affair; behind them a dot is doubled too, so that none can end the message early.
    """
    if wire.startswith(b".") or b"\n." in wire or b"\r." in wire:
        wire = _DOT.sub(b"..", wire)
    return wire + (b".\r\n" if wire.endswith(b"\r\n") else b"\r\n.\r\n")
