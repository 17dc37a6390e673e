"""A daemon that is not heard loses its rows, and knows it; one that is only busy keeps them."""

from __future__ import annotations

import signal
from pathlib import Path
from time import monotonic

import asyncpg
import httpx2

from tests.life.fleet import LONG, SLACK, Fleet, empty, ended, insert

LEASE_S = 2.0 if LONG else 5.0
ENV = {"DAEMON__LEASE": f"{LEASE_S:g}s"}


async def test_a_daemon_that_was_frozen_comes_back_as_somebody_else(
    fleet: Fleet, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    socket = f"{tmp_path}/admin"
    frozen = await fleet.start("a", ADMIN__LISTEN=f"unix:{socket}", **ENV)
    ids = await insert(pool, "note", 20, {"seconds": LEASE_S / 2})
    await fleet.noted("start", 20)
    frozen.signal(signal.SIGSTOP)
    at = monotonic()
    await pool.execute("update jobs set args = '{}'")  # for who takes them next
    await fleet.start("b")  # with a lease that does not run out
    await fleet.noted("start", 40)
    taken = [note for note in fleet.notes("start") if note.by == "b"]
    assert {note.id for note in taken} == set(ids)
    assert min(note.at for note in taken) - at <= LEASE_S + 2.0 * SLACK
    rows = await ended(pool, ids)  # by b; what a will say of them comes too late
    frozen.signal(signal.SIGCONT)
    await frozen.said("late_result", 20)
    assert {(row["state"], row["attempt"], row["crashes"]) for row in rows} == {("done", 2, 1)}
    newest = {note.id: note.fence for note in taken}
    assert {row["id"]: int(row["result"].removesuffix("}").split(":")[1]) for row in rows} == newest
    first, second = (row["worker_id"] for row in await frozen.said("worker_registered", 2))
    assert first != second
    assert await pool.fetchval("select count(*) from job_history") == 20

    more = await insert(pool, "note", 200, {"seconds": 600})  # as many as both have slots
    await fleet.noted("start", 240)
    assert {note.by for note in fleet.notes("start") if note.id in set(more)} == {"a", "b"}
    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=socket), base_url="http://localhost") as http:
        metrics = (await http.get("/metrics")).text
    assert 'jobsd_stale_completions_rejected_total{kind="note"} 20' in metrics


async def test_a_handler_that_blocks_the_loop_past_the_lease_costs_no_row(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """The heartbeat has a thread of its own."""
    blocked = await fleet.start("a", **ENV)
    beside = await insert(pool, "note", 10, {"seconds": 1.0})
    await fleet.noted("start", 10)
    (job_id,) = await insert(pool, "note", 1, {"block": LEASE_S * 1.5})
    await fleet.noted("start", 11)
    await fleet.start("b", **ENV)
    rows = await ended(pool, [*beside, job_id])
    assert {(row["state"], row["attempt"], row["crashes"]) for row in rows} == {("done", 1, 0)}
    assert {note.by for note in fleet.notes("start")} == {"a"}
    assert not blocked.events("worker_lost")
    assert not blocked.events("worker_fenced")
    await blocked.said("loop_blocked")


async def test_the_shortest_lease_allowed_is_held_by_an_idle_daemon(fleet: Fleet, pool: asyncpg.Pool) -> None:
    """Two thirds of a second without an answer end it: a machine that is busy otherwise gets several tries."""
    tries = 1 if LONG else 10
    for left in reversed(range(tries)):
        daemon = await fleet.start(DAEMON__LEASE="1s")
        await insert(pool, "note", 1, {"seconds": 3.0})
        await empty(pool)
        lost = daemon.events("worker_lost") + daemon.events("worker_fenced")
        if not lost:
            break
        assert left, lost
        await daemon.stop()
