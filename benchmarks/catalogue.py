"""What each job of the sample costs on a table of so many rows, when there is work and when there is none.

`python -m benchmarks.catalogue [ROWS] [--only JOB,JOB]`: every job gets a database of its own.  CPU seconds are what to
compare: of the daemon's process, and of the server's.  `waited`: how long somebody else had to wait at most who, fifty
times a second, locked a row of the same table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import asyncpg
import uvloop

import sql
from benchmarks.catalogue_grounds import ALL, GROUNDS, STORAGE, Ground, prepare
from benchmarks.lab import Lab, lab, verdict
from daemon.migrate import migrate

SERVER = {"autovacuum": "off", "max_wal_size": "1GB", "maintenance_work_mem": "512MB"}
"""What it does by itself at times would be somebody's cost by chance."""

PROBE_S = 0.02
_PAGES = "select relpages from pg_class where oid = $1::text::regclass"
HEAD = (
    ("job", "<26"), ("rows", ">11"), ("due", ">10"), ("s", ">8"), ("daemon", ">8"), ("server", ">8"), ("due/s", ">8"),
    ("tx ms", ">6"), ("waited", ">6"), ("MiB", ">6"), ("server MiB", ">10"), ("again s", ">8"), ("cpu", ">8"),
    ("idle s", ">8"), ("cpu", ">8"), ("transactions", ">12"),
)  # fmt: skip


class Probe:
    """Somebody else, who locks one row after another of `table`, and how long he waits at most, in milliseconds."""

    def __init__(self, conn: asyncpg.Connection) -> None:
        self._conn = conn
        self.table = "accounts"
        self.longest_ms = 0.0

    async def run(self) -> None:
        table, pages = "", 0
        while True:
            if self.table != table:
                table = self.table
                pages = await self._conn.fetchval(_PAGES, f"app.{table}")
            place = f"({random.randrange(max(pages, 1))},{random.randint(1, 40)})"
            began = perf_counter()
            await self._conn.fetch(f"select from app.{table} where ctid = $1::text::tid for update", place)
            self.longest_ms = max(self.longest_ms, (perf_counter() - began) * 1000)
            await asyncio.sleep(PROBE_S)


@asynccontextmanager
async def database(place: Lab, name: str) -> AsyncIterator[str]:
    """A migrated one, that is gone when this leaves."""
    conn = await asyncpg.connect(place.dsn)
    await conn.execute(f'create database "{name}"')
    dsn = place.dsn.replace("/jobsd?", f"/{quote(name)}?")
    try:
        await migrate(dsn)
        yield dsn
    finally:
        await conn.execute(f'drop database "{name}" with (force)')
        await conn.execute("checkpoint")
        await conn.close()


async def measured(place: Lab, dsn: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What each run of each job took, by their names."""
    config = place.folder / "jobs.toml"
    config.write_text(sql.text("reference/jobs.toml") + STORAGE.format(folder=place.folder / "storage"))
    conn = await asyncpg.connect(dsn)
    probe = Probe(conn)
    command = [
        sys.executable,
        "-m",
        "benchmarks.catalogue_run",
        config,
        place.server_pid,
        conn.get_server_pid(),
        *names,
    ]
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, env={**os.environ, "DATABASE_URL": dsn}
    )
    assert process.stdout is not None
    found: dict[str, dict[str, Any]] = {}
    probing = asyncio.create_task(probe.run())
    try:
        async for line in process.stdout:
            said = json.loads(line)
            if "begins" in said:
                table = GROUNDS[said["begins"]].table
                probe.table, probe.longest_ms = "accounts" if table == ALL else table, 0.0
            else:
                found.setdefault(said["ends"], {})[said["run"]] = {**said, "waited_ms": probe.longest_ms}
    finally:
        probing.cancel()
        await asyncio.wait({probing})
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await conn.close()
    if process.returncode:
        raise RuntimeError(f"{', '.join(names)} ended with {process.returncode}")
    return found


async def _counts(dsn: str, ground: Ground) -> tuple[int, int]:
    """Rows of its table, and those that are due."""
    conn = await asyncpg.connect(dsn)
    try:
        if ground.table == ALL:
            rows = await conn.fetchval(
                "select sum(reltuples)::bigint from pg_class where relnamespace = 'app'::regnamespace and relkind = 'r'"
            )
        else:
            rows = await conn.fetchval(f"select count(*) from app.{ground.table}")
        return rows, await conn.fetchval(ground.due)
    finally:
        await conn.close()


def _row(values: Iterable[Any]) -> str:
    return "  ".join(f"{value:{form}}" for value, (_, form) in zip(values, HEAD, strict=True))


def _told(name: str, rows: int, due: int, runs: dict[str, Any]) -> str:
    first, again, idle = runs["first"], runs["again"], runs["idle"]

    def cpu(run: dict[str, Any]) -> str:
        return f"{run['daemon_cpu_s'] + run['server_cpu_s']:.3f}"

    return _row((
        name, f"{rows:,}", f"{due:,}", f"{first['seconds']:.1f}", f"{first['daemon_cpu_s']:.2f}",
        f"{first['server_cpu_s']:.2f}", f"{due / first['seconds']:,.0f}", f"{first['longest_ms']:.0f}",
        f"{first['waited_ms']:.0f}", f"{first['grown_mib']:.1f}", f"{first['server_mib']:.1f}",
        f"{again['seconds']:.3f}", cpu(again), f"{idle['seconds']:.3f}", cpu(idle), first["transactions"],
    ))  # fmt: skip


async def one(place: Lab, name: str, rows: int, notes: Path) -> dict[str, Any]:
    """A job on a table of its own."""
    began = perf_counter()
    async with database(place, name) as dsn:
        conn = await asyncpg.connect(dsn)
        await prepare(conn, rows, GROUNDS[name])
        await conn.close()
        counts = await _counts(dsn, GROUNDS[name])
        filled_s = perf_counter() - began
        runs = (await measured(place, dsn, [name]))[name]
    print(_told(name, *counts, runs), flush=True)
    note = {"job": name, "rows": counts[0], "due": counts[1], "filled_s": filled_s, "runs": runs}
    with notes.open("a") as file:
        file.write(json.dumps(note) + "\n")
    return runs


async def together(place: Lab, rows: int) -> list[dict[str, Any]]:
    """All of them, one after another, on a sample that has so many rows in all."""
    async with database(place, "all") as dsn:
        conn = await asyncpg.connect(dsn)
        await prepare(conn, rows, None)
        await conn.close()
        counts = {name: await _counts(dsn, ground) for name, ground in GROUNDS.items()}
        found = await measured(place, dsn, GROUNDS)
    for name, runs in found.items():
        print(_told(name, *counts[name], runs), flush=True)
    return list(found.values())


async def main(
    rows: int = 1_000_000, only: Iterable[str] = GROUNDS, *, apart: bool = True, notes: Path = Path(os.devnull)
) -> bool:
    """`notes`: where everything that was measured is added, a line of JSON for each job."""
    async with lab(SERVER) as place:
        print(_row(name for name, _ in HEAD), flush=True)
        runs = [await one(place, name, rows, notes) for name in only] if apart else await together(place, rows)
    first = [found["first"] for found in runs]
    held = verdict(
        "the longest transaction of any job", max(run["longest_ms"] for run in first), "ms", 200, at_least=False
    )
    return (
        verdict("memory of a job grows by", max(run["grown_mib"] for run in first), "MiB", 30, at_least=False) and held
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue")
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--only", default=",".join(GROUNDS), help="these jobs alone, with commas between them")
    parser.add_argument("--together", action="store_true", help="all in one database, ROWS in all")
    parser.add_argument("--notes", type=Path, default=Path(os.devnull), help="everything, as JSON lines")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(
            0 if runner.run(main(given.rows, given.only.split(","), apart=not given.together, notes=given.notes)) else 1
        )
