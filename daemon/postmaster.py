"""One PostgreSQL server process: started, watched until ready, stopped, and never outliving its owner."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from daemon.pginstall import Account, EmbeddedError

StopMode = Literal["fast", "immediate"]
_STOP_SIGNALS: Final[Mapping[StopMode, signal.Signals]] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PR_SET_PDEATHSIG: Final = 1
REPEAT_S: Final = 2.0
"""So often a server that goes on is told again to stop."""

_POLL_S: Final = 0.01
_TAIL_BYTES: Final = 2000
# Nothing of ours goes along: no NOTIFY_SOCKET to speak to systemd with, no PG* variable to change the server's mind.
ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Postmaster:
    """The server on `data`; its own output goes to `log`, started afresh each time."""

    def __init__(self, data: Path, log: Path, account: Account) -> None:
        self._data = data
        self._log = log
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self, postgres: Path, flags: list[str], timeout_s: float) -> None:
        """Returns when it accepts connections.  Must be called in a thread that lives as long as the server shall:
        the kernel's parent-death signal follows the thread, not the process."""
        with self._log.open("wb") as log:
            self._process = process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own binary; a fork takes 2 ms
                [postgres, "-D", self._data, *flags],
                user=self._account.uid,
                group=self._account.gid,
                extra_groups=None if self._account.uid is None else (),
                umask=0o077,
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # or the terminal's Ctrl-C would end it before the daemon has drained
                preexec_fn=_die_with(os.getpid()),
            )
        await until(lambda: process.poll() is not None or self.is_ready(), timeout_s)
        if process.poll() is not None or not self.is_ready():
            raise EmbeddedError(f"PostgreSQL did not start{self.tail()}")

    async def stop(self, mode: StopMode, timeout_s: float) -> None:
        """`fast` writes a checkpoint, `immediate` leaves crash recovery to the next start."""
        process, self._process = self._process, None
        if process is None:
            return
        deadline = time.monotonic() + timeout_s
        while process.poll() is None and time.monotonic() < deadline:  # one that comes as it starts may go unheard
            process.send_signal(_STOP_SIGNALS[mode])
            await until(lambda: process.poll() is not None, min(REPEAT_S, deadline - time.monotonic()))
        if process.poll() is None:
            process.kill()
            await asyncio.to_thread(process.wait)
            raise EmbeddedError(f"PostgreSQL did not stop in {timeout_s:.0f} s and was killed{self.tail()}")

    def is_ready(self) -> bool:
        """Line 8 of postmaster.pid; the file goes when the server has stopped."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and (self.pid is None or lines[0] == str(self.pid))

    async def evict(self, timeout_s: float) -> None:
        """End what a killed owner left behind, then drop its pid file.

        The process id in there may be anybody's by now (a container starts counting anew), and then the server would
        refuse to start for ever; with no process left in the data folder the file guards nothing.
        """
        stale = self._data / "postmaster.pid"
        if sys.platform != "linux" or not stale.exists():
            return
        first = int(stale.read_text().split()[0])
        for asked in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            for pid in _residents(self._data):
                if pid == first or asked is signal.SIGKILL:  # its children leave with it
                    _send(pid, asked)
            if await until(lambda: not _residents(self._data), timeout_s / 3):
                stale.unlink(missing_ok=True)
                return
        raise EmbeddedError(f"processes {_residents(self._data)} will not leave {self._data}")

    def tail(self) -> str:
        """The end of the server's log, for an error message."""
        if not self._log.exists():
            return ""
        return ":\n" + self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()


async def until(happened: Callable[[], bool], timeout_s: float) -> bool:
    """Poll for what has no event of its own; the last look comes after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def _die_with(parent: int) -> Callable[[], None] | None:
    """Run in the child before exec: a fast shutdown when the parent dies, however it dies.  Linux only; elsewhere the
    next start ends the orphan's work as a crash would."""
    if _libc is None:
        return None
    prctl = _libc.prctl

    def die_with() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
        if os.getppid() != parent:  # it died before the call: no signal will come
            os._exit(1)

    return die_with


def _send(pid: int, asked: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, asked)


def _residents(data: Path) -> list[int]:
    """Processes that stand in the data folder: the postmaster and all its children do, and nobody else."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == data and (entry / "exe").readlink().name == "postgres":
                    found.append(int(entry.name))
    return found
