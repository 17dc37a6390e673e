"""What least privilege costs: a producer's insert, and a daemon's claim and finish, beside a superuser's, in one run.

`python -m benchmarks.roles [ROUNDS] [ROWS]`: the logins take turns of ROWS rows each, in an order that chance gives,
so that all meet the same weather; a second superuser among them shows how much of a difference is weather.  Two
sessions of one login may differ by a tenth for as long as they live, by how their memory came to lie: each inserts
through several.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import asyncpg
import uvloop

import sql
from benchmarks.lab import PAYLOAD, Lab, lab, median, ratio, verdict
from daemon.migrate import migrate

ONE = "insert into jobs (kind, args, org_id) values ('bench_noop', $1::text::jsonb, 'acme')"
RETURNING = ONE + " returning id"
FILL = (
    "insert into jobs (kind, args, org_id) "
    "select 'bench_noop', $1::text::jsonb, 'acme' from generate_series(1, $2::int)"
)
SESSIONS = 8
BASE = "superuser"
CONTROL = "another superuser"
LOGINS = {
    BASE: None,
    CONTROL: None,
    "producer of all": "jobsd_producer",
    "producer of one": "jobsd_producer",
    "daemon": "jobsd_daemon",
}
_QUEUE = sql.load("queue.sql")


class Turns:
    """Wall time and server CPU of each turn, by who took it."""

    def __init__(self) -> None:
        self.wall_us: dict[str, list[float]] = {}
        self.cpu_us: dict[str, list[float]] = {}

    async def take(self, who: str, pid: int, rows: int, work: Callable[[], Awaitable[Any]]) -> None:
        began, cpu = perf_counter(), _cpu_us(pid)
        await work()
        self.wall_us.setdefault(who, []).append((perf_counter() - began) * 1e6 / rows)
        self.cpu_us.setdefault(who, []).append((_cpu_us(pid) - cpu) / rows)

    def show(self, name: str, *, clock: bool = True) -> bool:
        """What a row of each cost, and how much more than the superuser's; whether that is over 5 %.

        `clock`: judge by it too, and not only by CPU.  What waits for the disk once a batch is left to chance there.
        """
        fine = True
        for who in self.wall_us:
            wall, cpu = _over_sessions(self.wall_us[who]), _over_sessions(self.cpu_us[who])
            print(f"     {name}, {who}: {wall:.1f} µs a row, {cpu:.1f} µs of the server's CPU")
        for who in self.wall_us.keys() - {BASE}:
            more = [(f"{name}, {who}, CPU more", self.cpu_us)]
            more += [(f"{name}, {who}, time more", self.wall_us)] if clock else []
            for what, taken in more:
                percent = (ratio(_over_sessions(taken[who]), _over_sessions(taken[BASE])) - 1) * 100
                if who == CONTROL:
                    print(f"     {what}: {percent:.2f} %")
                else:
                    fine &= verdict(what, percent, "%", 5, at_least=False)
        return fine


async def main(rounds: int = 400, rows: int = 20) -> bool:
    print(f"isolation, medians of {rounds} turns of {rows} rows each, by {SESSIONS} sessions")
    async with lab() as place:
        await migrate(place.dsn, roles=True)
        conns: dict[str, list[asyncpg.Connection]] = {who: [] for who in LOGINS}
        for n in range(SESSIONS):
            for who in random.Random(n).sample(list(LOGINS), len(LOGINS)):
                conns[who].append(await _login(place, who))
        try:
            inserters = [who for who in LOGINS if LOGINS[who] != "jobsd_daemon"]
            fine = [
                await _inserts(conns, inserters, rounds, rows, "insert", ONE),
                await _inserts(conns, inserters, rounds, rows, "insert returning id", RETURNING),
                await _claims(conns, max(1, rounds // 4), rows * 10),
            ]
        finally:
            for conn in chain.from_iterable(conns.values()):
                await conn.close()
    return all(fine)


async def _login(place: Lab, who: str) -> asyncpg.Connection:
    group = LOGINS[who]
    if group is None:
        return await asyncpg.connect(place.dsn)
    name = "bench_" + who.replace(" ", "_")
    admin = await asyncpg.connect(place.dsn)
    if not await admin.fetchval("select exists (select from pg_roles where rolname = $1)", name):
        await admin.execute(f"create role {name} login; grant {group} to {name}")
        if who == "producer of one":
            await admin.execute(f"insert into job_org_members values ('{name}', 'acme')")
    await admin.close()
    return await asyncpg.connect(place.dsn.replace("postgres@", f"{name}@", 1))


async def _inserts(
    conns: dict[str, list[asyncpg.Connection]], who: list[str], rounds: int, rows: int, name: str, statement: str
) -> bool:
    turns, dice = Turns(), random.Random(rows)
    prepared = {login: [await conn.prepare(statement) for conn in conns[login]] for login in who}

    async def insert(login: str, n: int) -> None:
        for _ in range(rows):
            await prepared[login][n].fetch(PAYLOAD)

    for n in range(SESSIONS):
        for login in who:
            await insert(login, n)  # until plans are kept and caches are warm
    for turn in range(rounds):
        n = turn % SESSIONS
        for login in dice.sample(who, len(who)):  # whom one follows must not matter
            pid = conns[login][n].get_server_pid()
            await turns.take(login, pid, rows, partial(insert, login, n))
    await conns[BASE][0].execute("truncate jobs")
    return turns.show(name)


async def _claims(conns: dict[str, list[asyncpg.Connection]], rounds: int, rows: int) -> bool:
    """A batch claimed and finished, by a superuser, whom no policy binds, and by a login of jobsd_daemon."""
    turns = Turns()
    boss = conns[BASE][0]
    worker = await boss.fetchval(sql.load("worker.sql")["register"], "bench", "0", ["bench_noop"], ["*"], 3600.0)
    for turn in range(rounds):
        for login in (BASE, "daemon")[:: 1 if turn // SESSIONS % 2 else -1]:
            await boss.execute(FILL, PAYLOAD, rows)
            conn = conns[login][turn % SESSIONS]
            await turns.take(login, conn.get_server_pid(), rows, partial(_drain, conn, worker, rows))
    return turns.show("claim and finish", clock=False)


def _over_sessions(taken: list[float]) -> float:
    """The mean of the sessions' medians; they took turns."""
    return fmean(median(taken[n::SESSIONS]) for n in range(min(SESSIONS, len(taken))))


async def _drain(conn: asyncpg.Connection, worker: int, rows: int) -> None:
    ask = (["default"], [""], [None], [1], [rows], *[[-inf]] * 4)
    claimed = await conn.fetch(_QUEUE["claim"], *ask, worker, ["bench_noop"], [], None, [0], [0])
    claimed.sort(key=lambda row: row[0])
    ids, fences = [row[0] for row in claimed], [row[1] for row in claimed]
    await conn.fetch(_QUEUE["finish"], ids, fences, *[None] * 7, worker, [], None, False)


def _cpu_us(pid: int) -> float:
    """CPU that one backend has had, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
