"""Postgres goes and comes back under load: nothing is lost, and work goes on within a second (see SLACK)."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from time import monotonic

import asyncpg
import httpx2
import pytest

from daemon.embedded import Embedded
from daemon.postmaster import StopMode
from tests.faults.proxy import Proxy
from tests.life.fleet import LONG, SLACK, Fleet, Member, each_ended_once, empty, ended, insert, until


async def claims_again(fleet: Fleet, daemon: Member, since: float) -> float:
    """Seconds from `since` to the first handler that began after it."""

    def begun() -> list[float]:
        return [note.at for note in fleet.notes("start") if note.at > since]

    first: float = min(await until(begun, lambda: f"a handler begins; {daemon.tail()}"))
    return first - since


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_postgres_under_load_loses_nothing(
    fragile_server: Embedded, fragile_fleet: Fleet, fragile_pool: asyncpg.Pool, mode: StopMode
) -> None:
    fleet, pool = fragile_fleet, fragile_pool
    daemon = await fleet.start(QUEUES__DEFAULT__CONCURRENCY="50")
    ids = await insert(pool, "note", 3000 if LONG else 1000, {"seconds": 0.1})
    for number in range(10 if LONG else 2):
        await fleet.noted("end", 30 + number * 100)
        await pool.expire_connections()
        await fragile_server.stop(mode)
        await fragile_server.start()
        assert await claims_again(fleet, daemon, monotonic()) <= 1.0 * SLACK
    await empty(pool)
    await each_ended_once(pool, ids)
    assert {(row["state"], row["attempt"]) for row in await ended(pool, ids)} == {("done", 1)}
    assert daemon.process.exitcode is None
    assert not daemon.events("worker_lost")


async def test_results_wait_in_memory_while_postgres_is_away(
    fragile_server: Embedded, fragile_fleet: Fleet, fragile_pool: asyncpg.Pool
) -> None:
    fleet, pool = fragile_fleet, fragile_pool
    daemon = await fleet.start()
    ids = await insert(pool, "note", 40, {"seconds": 1.5})
    await fleet.noted("start", 40)
    await pool.expire_connections()
    went = monotonic()
    await fragile_server.stop()
    await fleet.noted("end", 40)
    await daemon.said("finish_failed")
    await fragile_server.start()
    away_s = monotonic() - went
    rows = await ended(pool, ids)
    assert {(row["state"], row["attempt"]) for row in rows} == {("done", 1)}
    assert len(fleet.notes("start")) == 40, "each ran once"
    lines = len(daemon.events("finish_failed")) + len(daemon.events("claim_failed"))
    assert lines <= 2 * 10 * max(1.0, away_s), "an outage fills no disk"


async def test_backends_terminated_again_and_again_lose_nothing(fleet: Fleet, pool: asyncpg.Pool) -> None:
    daemon = await fleet.start(QUEUES__DEFAULT__CONCURRENCY="50")
    ids = await insert(pool, "note", 6000 if LONG else 1500, {"seconds": 0.1})
    for number in range(30 if LONG else 4):
        await fleet.noted("end", 50 + number * 150)
        await pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name like 'jobsd%'"
        )
        assert await claims_again(fleet, daemon, monotonic()) <= 1.0 * SLACK
    await empty(pool)
    await each_ended_once(pool, ids)
    assert {(row["state"], row["attempt"]) for row in await ended(pool, ids)} == {("done", 1)}
    assert not daemon.events("worker_lost")
    await until(lambda: len(daemon.events("listening")) > 1, lambda: f"it listens again; {daemon.tail()}")


async def test_work_goes_on_within_a_second_after_an_outage_of_some_time(
    database: str, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """By then the daemon does not try as often as it did at first."""
    proxy = await Proxy(database).start()
    daemon = await fleet.start(dsn=proxy.dsn)
    for _ in range(8 if LONG else 1):
        await proxy.close()
        await asyncio.sleep(4.0)
        ids = await insert(pool, "note", 5)
        await proxy.start()
        assert await claims_again(fleet, daemon, monotonic()) <= 1.0 * SLACK
        await ended(pool, ids)
    await proxy.close()


async def test_a_daemon_waits_for_a_database_that_is_not_there_yet(
    database: str, fleet: Fleet, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    ids = await insert(pool, "note", 3)
    proxy = await Proxy(database).start()
    await proxy.close()
    socket = tmp_path / "admin"
    daemon = fleet.spawn(dsn=proxy.dsn, ADMIN__LISTEN=f"unix:{socket}")
    await daemon.said("keeper_failed")
    async with httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=str(socket)), base_url="http://localhost"
    ) as http:
        assert (await http.get("/livez")).status_code == 200
        answer = await http.get("/readyz?verbose")
        assert answer.status_code == 503
        assert "waiting for the database" in answer.text
        await proxy.start()
        await ended(pool, ids)
        await daemon.ready()
        assert (await http.get("/readyz")).status_code == 200
    assert await daemon.stop() == 0
    await proxy.close()


async def test_a_stop_while_waiting_for_the_database_is_obeyed(database: str, fleet: Fleet) -> None:
    proxy = await Proxy(database).start()
    await proxy.close()
    daemon = fleet.spawn(dsn=proxy.dsn)
    await daemon.said("keeper_failed")
    began = monotonic()
    assert await daemon.stop() == 0
    assert monotonic() - began < 1.0 * SLACK


async def test_a_forced_stop_while_postgres_is_away_loses_nothing(
    database: str, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    """What could not be written is not done, so far as anybody knows: it is run again by whoever comes next."""
    proxy = await Proxy(database).start()
    daemon = await fleet.start("a", dsn=proxy.dsn, DAEMON__DRAIN_TIMEOUT="100ms")
    ids = await insert(pool, "note", 20, {"seconds": 0.3})
    await fleet.noted("start", 20)
    await proxy.close()
    await fleet.noted("end", 20)
    await daemon.said("finish_failed")
    daemon.signal(signal.SIGTERM)
    await daemon.said("daemon_draining")
    began = monotonic()
    assert await daemon.stop() == 0
    assert monotonic() - began < 1.0 * SLACK
    await daemon.lapse(pool)
    await fleet.start("b")
    await empty(pool)
    await each_ended_once(pool, ids)
