"""What least privilege costs: a producer's insert, and a daemon's claim and finish, beside a superuser's, in one run.

`python -m benchmarks.roles [ROUNDS] [ROWS]`: the logins take turns of ROWS rows each, so that all meet the same
weather; a second superuser among them shows how much of a difference is weather.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
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
        """Each one's medians, and what a turn cost more than the superuser's of its round; whether that is over 5 %.

        `clock`: judge by it too, and not only by CPU.  What waits for the disk once a batch is left to chance there.
        """
        fine = True
        for who in self.wall_us:
            wall, cpu = median(self.wall_us[who]), median(self.cpu_us[who])
            print(f"     {name}, {who}: {wall:.1f} µs a row, {cpu:.1f} µs of the server's CPU")
        for who in self.wall_us.keys() - {BASE}:
            more = [(f"{name}, {who}, CPU more", self.cpu_us)]
            more += [(f"{name}, {who}, time more", self.wall_us)] if clock else []
            for what, taken in more:
                percent = median([(ratio(a, b) - 1) * 100 for a, b in zip(taken[who], taken[BASE], strict=True)])
                if who == CONTROL:
                    print(f"     {what}: {percent:.2f} %")
                else:
                    fine &= verdict(what, percent, "%", 5, at_least=False)
        return fine


async def main(rounds: int = 100, rows: int = 40) -> bool:
    print(f"isolation, medians of {rounds} turns of {rows} rows each")
    async with lab() as place:
        await migrate(place.dsn, roles=True)
        conns = {who: await _login(place, who) for who in LOGINS}
        try:
            inserters = [who for who in LOGINS if LOGINS[who] != "jobsd_daemon"]
            fine = [
                await _inserts(conns, inserters, rounds, rows, "insert", ONE),
                await _inserts(conns, inserters, rounds, rows, "insert returning id", RETURNING),
                await _claims(conns, rounds, rows * 5),
            ]
        finally:
            for conn in conns.values():
                await conn.close()
    return all(fine)


async def _login(place: Lab, who: str) -> asyncpg.Connection:
    group = LOGINS[who]
    if group is None:
        return await asyncpg.connect(place.dsn)
    name = "bench_" + who.replace(" ", "_")
    admin = await asyncpg.connect(place.dsn)
    await admin.execute(f"create role {name} login; grant {group} to {name}")
    if who == "producer of one":
        await admin.execute(f"insert into job_org_members values ('{name}', 'acme')")
    await admin.close()
    return await asyncpg.connect(place.dsn.replace("postgres@", f"{name}@", 1))


async def _inserts(
    conns: dict[str, asyncpg.Connection], who: list[str], rounds: int, rows: int, name: str, statement: str
) -> bool:
    turns = Turns()
    prepared = {login: await conns[login].prepare(statement) for login in who}

    async def insert(login: str) -> None:
        for _ in range(rows):
            await prepared[login].fetch(PAYLOAD)

    for login in who:
        await insert(login)  # until plans are kept and caches are warm
    for n in range(rounds):
        for login in who[n % len(who) :] + who[: n % len(who)]:
            await turns.take(login, conns[login].get_server_pid(), rows, lambda login=login: insert(login))  # type: ignore[misc]
    await conns[BASE].execute("truncate jobs")
    return turns.show(name)


async def _claims(conns: dict[str, asyncpg.Connection], rounds: int, rows: int) -> bool:
    """A batch claimed and finished, by a superuser, whom no policy binds, and by a login of jobsd_daemon."""
    turns = Turns()
    boss = conns[BASE]
    worker = await boss.fetchval(sql.load("worker.sql")["register"], "bench", "0", ["bench_noop"], ["*"], 3600.0)
    for n in range(rounds):
        for login in (BASE, "daemon")[:: 1 if n % 2 else -1]:
            await boss.execute(FILL, PAYLOAD, rows)
            conn = conns[login]
            await turns.take(login, conn.get_server_pid(), rows, lambda conn=conn: _drain(conn, worker, rows))  # type: ignore[misc]
    return turns.show("claim and finish", clock=False)


async def _drain(conn: asyncpg.Connection, worker: int, rows: int) -> None:
    ask = (["default"], [""], [None], [1], [rows], *[[-inf]] * 4)
    claimed = await conn.fetch(_QUEUE["claim"], *ask, worker, ["bench_noop"], [], None, [0], [0])
    claimed.sort(key=lambda row: row[0])
    ids, fences = [row[0] for row in claimed], [row[1] for row in claimed]
    await conn.fetch(_QUEUE["finish"], ids, fences, *[None] * 7, worker, [])


def _cpu_us(pid: int) -> float:
    """CPU that one backend has had, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(*map(int, sys.argv[1:]))) else 1)
