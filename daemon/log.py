"""Write log lines without ever making the event loop wait: a bounded buffer and one thread that empties it."""

from __future__ import annotations

import atexit
import logging
import os
import select
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from daemon.events import LEVELS, LOG_LINES_DROPPED
from daemon.lines import json_line, mask, text_line

_PRIORITY = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>"}  # sd-daemon(3)


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Logger:
    """Lines in, bytes out to where `stream` writes, in order, until the close; the stream itself may be closed before.

    `emit` may be called from any thread, also from inside itself (a garbage collection may log), and never raises or
    waits.  When the reader of `stream` is so slow that `buffer_bytes` are waiting, new lines are dropped and counted,
    and a line says how many as soon as it reads again.  Lines wait up to `linger_s` for company; those of level error
    do not.
    """

    def __init__(
        self,
        stream: HasFileno,
        level: str = "info",
        format: str = "json",
        *,
        buffer_bytes: int = 4 * 1024 * 1024,
        linger_s: float = 0.02,
    ) -> None:
        # Our own: whoever closes the stream would leave us the number, and the next connection gets that.
        self._fd = os.dup(stream.fileno())
        self._prefixed = is_journal(self._fd, os.environ)
        self._limit = buffer_bytes
        self._linger_s = linger_s
        self.dropped = 0
        self._reported = 0
        self._lines: list[bytes] = []
        self._bytes = 0  # of _lines and of what is being written
        # A garbage collection inside emit may emit: so a lock that one thread can enter twice, and a queue to wake the
        # writer instead of an Event, whose own lock cannot be.
        self._lock = threading.RLock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._urgent = False
        self._closing = False
        self.configure(level, format)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def configure(self, level: str, format: str) -> None:
        """Another level, and format `json` or `text`, from the next line on."""
        self._threshold = LEVELS[level]
        self.json = format == "json"
        self._encode = json_line if format == "json" else text_line

    def writes(self, level: str) -> bool:
        """Would a line of `level` be written?  Ask before gathering costly fields."""
        return LEVELS[level] >= self._threshold

    def emit(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """One line, unless `level` is below the threshold.  `fields` must not hold ts, level or event; where the names
        are a stranger's, `redact` them first."""
        if LEVELS[level] < self._threshold:
            return
        self.emit_line(level, mask(self._encode(level, event, fields)))

    def emit_line(self, level: str, line: bytes) -> None:
        """A line that is written already, for those that come by the ten thousand a second: of `level`, in the format,
        with no secret in it."""
        if self._prefixed:
            line = _PRIORITY[level] + line
        with self._lock:
            if self._closing or self._bytes + len(line) > self._limit:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            if len(self._lines) == 1:
                self._wake.put(None)
            if level == "error":
                self._hurry()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is buffered, for at most `timeout_s`; lines that come later are dropped and counted."""
        with self._lock:
            self._closing = True
            self._hurry()
        self._thread.join(timeout_s)
        atexit.unregister(self.close)
        if self._fd >= 0 and not self._thread.is_alive():
            os.close(self._fd)
            self._fd = -1

    def _hurry(self) -> None:
        if not self._urgent:
            self._urgent = True
            self._wake.put(None)

    def _run(self) -> None:
        while not self._closing or self._lines:
            self._wait()
            with self._lock:
                lines, self._lines, self._urgent = self._lines, [], False
            data = b"".join(lines)
            lost = _write(self._fd, data)
            with self._lock:
                self._bytes -= len(data)
                self.dropped += lost
            if not lost:
                self._report()

    def _wait(self) -> None:
        """Until a line comes, and then a moment for more."""
        if self._closing:
            return
        self._wake.get()
        if not self._urgent:
            try:
                self._wake.get(timeout=self._linger_s)
            except Empty:
                return

    def _report(self) -> None:
        lines = self.dropped - self._reported
        if lines:
            self._reported += lines
            line = self._encode(LOG_LINES_DROPPED.level, LOG_LINES_DROPPED.name, {"lines": lines})
            _write(self._fd, _PRIORITY[LOG_LINES_DROPPED.level] + line if self._prefixed else line)


def _write(fd: int, data: bytes) -> int:
    """All of `data`, however long its reader takes; the number of lines lost because the reader is gone."""
    rest = memoryview(data)
    while rest:
        try:
            # The whole of it: after each call this thread may wait 5 ms for the interpreter, while the loop is busy.
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # somebody made our standard output non-blocking
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll(1000)
        except OSError:
            return bytes(rest).count(b"\n")
    return 0


def is_journal(fd: int, env: Mapping[str, str]) -> bool:
    """Is `fd` the journal's socket?  JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        stat = os.fstat(fd)
    except OSError:
        return False
    return env.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


class Libraries(Protocol):
    """Who hears what libraries say: daemon.observe_life.LifeObserver."""

    def library(self, level: str, logger: str, message: str, error: BaseException | None) -> None: ...


class Bridge(logging.Handler):
    """Passes on what libraries say through the standard library's `logging`."""

    def __init__(self, ear: Libraries) -> None:
        super().__init__(logging.WARNING)
        self._ear = ear

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # a library's format string and its values need not fit together
            message = str(record.msg)
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self._ear.library(level, record.name, message, record.exc_info[1] if record.exc_info else None)


def hear_libraries(ear: Libraries) -> Bridge:
    """Send what goes to `logging` at warning and above, and Python's own warnings, to `ear` and nowhere else."""
    bridge = Bridge(ear)
    logging.basicConfig(handlers=[bridge], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    return bridge
