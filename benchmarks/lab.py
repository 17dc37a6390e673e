"""A durable PostgreSQL out of the wheel and real `jobsd serve` processes, for benchmarks."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import asyncpg

from daemon.embedded import Embedded
from daemon.migrate import migrate

PAYLOAD = '{"n": 1, "note": "about a hundred bytes of payload, as a small web hook or a password mail would have"}'
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Lab:
    """A running server with one migrated database."""

    dsn: str
    server_pid: int
    folder: Path

    def server_cpu_s(self) -> float:
        """CPU seconds of the server and all its backends, living and reaped."""
        own = _cpu_s(self.server_pid, reaped=True)
        return own + sum(_cpu_s(int(pid)) for pid in _children(self.server_pid))


@asynccontextmanager
async def lab(settings: Mapping[str, str] | None = None) -> AsyncIterator[Lab]:
    """fsync and synchronous_commit on, as in production; 256 MB of shared buffers."""
    with tempfile.TemporaryDirectory(prefix="jobsd-bench-") as folder:
        os.chmod(folder, 0o711)
        wanted = {"shared_buffers": "256MB", "max_wal_size": "4GB", **(settings or {})}
        server = Embedded(Path(folder) / "postgres", settings=wanted)
        dsn = await server.start()
        await migrate(dsn)
        try:
            assert server.pid is not None
            yield Lab(dsn, server.pid, Path(folder))
        finally:
            await server.stop()


@asynccontextmanager
async def daemon(lab: Lab, concurrency: int = 1000, **env: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """One `jobsd serve` with its own log file, ready when this enters and stopped when it leaves."""
    log = lab.folder / f"daemon-{os.urandom(4).hex()}.log"
    settings = {
        "DATABASE_URL": lab.dsn,
        "JOBSD_DAEMON__HANDLERS": "benchmarks.handlers",
        "JOBSD_QUEUES__DEFAULT__CONCURRENCY": str(concurrency),
        "JOBSD_ADMIN__LISTEN": "",
        "JOBSD_LOG__FORMAT": "json",
        **env,
    }
    with log.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "serve", "-c", os.devnull], stdout=stdout, env={**os.environ, **settings}
        )
    try:
        while b'"daemon_ready"' not in log.read_bytes():
            if process.poll() is not None:
                raise RuntimeError(f"the daemon ended with {process.returncode}: {log.read_text()}")
            await asyncio.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 60)


async def until_empty(conn: asyncpg.Connection, every_s: float = 0.05) -> None:
    while await conn.fetchval("select exists (select from jobs)"):
        await asyncio.sleep(every_s)


def cpu_s(process: subprocess.Popen[Any]) -> float:
    return _cpu_s(process.pid)


def rss_mib(process: subprocess.Popen[bytes]) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def percentile(values: list[float], share: float) -> float:
    """NaN, which no target allows, when there is nothing to rank."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else nan


def ratio(value: float, base: float) -> float:
    """NaN when the base is too small to have been seen, as CPU counted in ticks of 10 ms may be."""
    return value / base if base else nan


def verdict(name: str, value: float, unit: str, target: float, *, at_least: bool) -> bool:
    """Print one figure beside its target; whether it holds."""
    holds = value >= target if at_least else value <= target
    sign = "≥" if at_least else "≤"
    print(f"{'ok  ' if holds else 'FAIL'} {name:<44} {value:>12,.2f} {unit:<8} target {sign} {target:,g}", flush=True)
    return holds


def median(values: list[float]) -> float:
    return statistics.median(values) if values else nan


def _cpu_s(pid: int, *, reaped: bool = False) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0
    wanted = fields[11:15] if reaped else fields[11:13]
    return sum(int(ticks) for ticks in wanted) / TICKS_PER_SECOND


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
