"""The smallest daemon that keeps the unit's promises, and breaks one of them when asked to by a signal.

The shipped unit is tested with it: a real daemon cannot be told to let only its claimer die, or to block its loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from daemon import systemd
from daemon.embedded import Embedded

BAD_CONFIG = 78


def main() -> int:
    config = Path(sys.argv[-1]).read_text()
    if "bad" in config:
        return BAD_CONFIG
    if "embedded" in config:
        return asyncio.run(serve_embedded())
    if sys.argv[1] == "serve":
        asyncio.run(serve())
    return 0


async def serve() -> None:
    loop = asyncio.get_running_loop()
    watchdog = systemd.Watchdog(systemd.watchdog_interval_s(), lambda stalled: say(f"stalled: {stalled}"))
    stop = asyncio.Event()
    claimer = asyncio.create_task(beats(watchdog, "claimer"))
    others = [asyncio.create_task(work) for work in (beats(watchdog, "finisher"), watchdog.run())]
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGUSR1, claimer.cancel)
    loop.add_signal_handler(signal.SIGUSR2, time.sleep, 60)
    child = prepare()
    systemd.ready("serving")
    await stop.wait()
    systemd.stopping("draining")
    say("child killed with us" if ended_soon(child) else "child left to us")
    for task in (claimer, *others):
        task.cancel()


async def serve_embedded() -> int:
    """Counts its starts in the database."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = Embedded(Path(os.environ["STATE_DIRECTORY"]) / "postgres")
    import asyncpg

    connection = await asyncpg.connect(await server.start())
    await connection.execute("create table if not exists starts (at timestamptz)")
    await connection.execute("insert into starts values (now())")
    systemd.ready(f"start {await connection.fetchval('select count(*) from starts')}")
    await stop.wait()
    await connection.close()
    await server.stop()
    return 0


async def beats(watchdog: systemd.Watchdog, name: str) -> None:
    watchdog.watch(name, allowance_s=1.5)
    while True:
        watchdog.beat(name)
        await asyncio.sleep(0.05)


def reload() -> None:
    systemd.reloading()
    systemd.ready("serving, reloaded")


def prepare() -> subprocess.Popen[bytes]:
    """Leave a note of what the sandbox lets through, and start a child."""
    Path(os.environ["RUNTIME_DIRECTORY"], "seen.json").write_text(json.dumps(look_around()))
    return subprocess.Popen(["sleep", "60"])


def ended_soon(child: subprocess.Popen[bytes]) -> bool:
    """A signal to the whole group reaches the child in the same moment as us, or a little later."""
    try:
        child.wait(0.3)
    except subprocess.TimeoutExpired:
        return False
    return True


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def look_around() -> dict[str, object]:
    """What the sandbox lets through."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    places = (os.environ["STATE_DIRECTORY"], os.environ["RUNTIME_DIRECTORY"], "/tmp", "/var/tmp", "/dev/shm")
    credential = Path(os.environ["CREDENTIALS_DIRECTORY"], "database-url")
    return {
        "uid": os.getuid(),
        "capabilities": int(status["CapBnd"], 16),
        "seccomp": status["Seccomp"],
        "writes /etc": succeeds(lambda: Path("/etc/jobsd/x").touch()),
        "writes its code": succeeds(lambda: Path("/opt/jobsd/x").touch()),
        "runs what it wrote in": [place for place in places if runs_from(Path(place))],
        "sniffs packets": succeeds(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "sees process 1": Path("/proc/1").exists(),
        "credential": credential.read_text() if credential.exists() else None,
        "packages": succeeds(import_packages),
    }


def runs_from(folder: Path) -> bool:
    script = folder / "script"
    script.write_text("#!/bin/true\n")
    script.chmod(0o700)
    return succeeds(lambda: subprocess.run([script], check=True))


def import_packages() -> None:
    """Those with machine code, which memory protection might break."""
    import aiohttp  # noqa: F401
    import asyncpg  # noqa: F401
    import cryptography.hazmat.bindings._rust  # noqa: F401
    import msgspec  # noqa: F401
    import orjson  # noqa: F401
    import uvloop

    uvloop.new_event_loop().close()


def succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, ImportError):
        return False
    return True
