"""Talking to systemd: readiness, reloads and status by sd_notify(3), and a watchdog that is fed by progress."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

_SEND_TIMEOUT_S: Final = 0.5  # a manager that does not read must not stop the loop for longer
_STATUS_CHARACTERS: Final = 200
_LOOK_S: Final = 1.0


def ready(status: str) -> bool:
    """Started, or done with a reload: requests are served."""
    return _notify("READY=1", _status(status))


def reloading() -> bool:
    """A reload begins; `ready` ends it.  The time stamp tells Type=notify-reload which reload is meant."""
    return _notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")


def stopping(status: str) -> bool:
    return _notify("STOPPING=1", _status(status))


def status(text: str) -> bool:
    """One line for `systemctl status`."""
    return _notify(_status(text))


def extend_timeout(seconds: float) -> bool:
    """Ask for this long from now before a start or stop counts as hung.  Repeat it while there is progress."""
    return _notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def ping() -> bool:
    """The watchdog's keep-alive; `Watchdog` decides when it is deserved."""
    return _notify("WATCHDOG=1")


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """How long systemd waits for a ping before it kills this process (WatchdogSec=); None: it does not watch."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or int(usec) == 0 or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 1_000_000


def _notify(*assignments: str) -> bool:
    """One datagram; false without a manager, or with one that does not listen: the work goes on either way."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_SEND_TIMEOUT_S)
        try:
            sender.sendto("\n".join(assignments).encode(), address)
        except OSError:
            return False
    return True


def _status(text: str) -> str:
    """A line break would begin another assignment, and the text may hold words from outside."""
    return "STATUS=" + " ".join(text.split())[:_STATUS_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the daemon that must advance at least every `allowance_s`; times are of `time.monotonic`."""

    allowance_s: float
    advanced_s: float


def stalled(parts: Mapping[str, Part], now_s: float) -> tuple[str, ...]:
    """The parts that have not advanced within their allowance, in order of name.  Pure."""
    return tuple(sorted(name for name, part in parts.items() if now_s - part.advanced_s > part.allowance_s))


class Watchdog:
    """Pings systemd only while every watched part advances, so a daemon that is alive but idle gets killed as well.

    A ping from a timer or a thread proves that a timer or a thread runs.  Here each part calls `beat` when it has come
    round: the claimer after each claim (an empty one too), the finisher after each flush, the heartbeat after each
    renewal.  Without systemd `stalled` still serves /livez, and `on_stall` the log.
    """

    def __init__(
        self,
        interval_s: float | None,
        on_stall: Callable[[tuple[str, ...]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = interval_s
        self._on_stall = on_stall
        self._clock = clock
        self._parts: dict[str, Part] = {}
        self._known_stalled: tuple[str, ...] = ()

    def watch(self, name: str, allowance_s: float) -> None:
        """Expect beats of `name` from now on; again with another allowance after a reload."""
        self._parts[name] = Part(allowance_s, self._clock())

    def release(self, name: str) -> None:
        """Expect no more of it: it ended as it should, as the claimer does when a drain begins."""
        self._parts.pop(name, None)

    def beat(self, name: str) -> None:
        """`name` has advanced; a late beat after `release` is no matter."""
        if part := self._parts.get(name):
            self._parts[name] = replace(part, advanced_s=self._clock())

    def stalled(self) -> tuple[str, ...]:
        return stalled(self._parts, self._clock())

    def look(self) -> bool:
        """Ping if it is deserved; tell `on_stall` once of each change, also of recovery, with an empty tuple."""
        found = self.stalled()
        if found != self._known_stalled:
            self._known_stalled = found
            self._on_stall(found)
        if found or self._interval_s is None:
            return False
        return ping()

    async def run(self) -> None:
        """Look, until cancelled: at least four times an interval, so that one slow second costs nothing."""
        pause_s = min(_LOOK_S, (self._interval_s or 4.0) / 4)
        while True:
            self.look()
            await asyncio.sleep(pause_s)
