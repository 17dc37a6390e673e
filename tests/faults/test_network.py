"""What the network can do to a daemon: silence, lost answers, slowness, resets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import asyncpg
import pytest

from daemon.database import Database
from daemon.listener import Listener
from daemon.settings import DatabaseSettings, Dsn
from daemon.worker_store import WorkerStore
from tests.faults.proxy import Proxy
from tests.life.fleet import (
    LONG,
    SLACK,
    Fleet,
    each_ended_once,
    empty,
    ended,
    insert,
    observer_to,
    until,
    until_sql,
)


async def test_answers_lost_after_the_commit_of_results_end_no_row_twice(
    fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy
) -> None:
    daemon = await fleet.start(dsn=proxy.dsn, QUEUES__DEFAULT__CONCURRENCY="20")
    proxy.lose_reply_to("delete from jobs", 4)
    ids = await insert(pool, "note", 300, {"seconds": 0.02})
    await empty(pool)
    assert proxy.lost == 4
    await each_ended_once(pool, ids)
    assert {(row["state"], row["attempt"]) for row in await ended(pool, ids)} == {("done", 1)}
    assert len(fleet.notes("start")) == 300, "none ran twice"
    assert await daemon.stop() == 0


async def test_answers_lost_after_the_commit_of_retries_charge_no_row_twice(
    fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy
) -> None:
    daemon = await fleet.start(dsn=proxy.dsn)
    proxy.lose_reply_to("with back as", 2)
    ids = await insert(pool, "say", 20, {"what": "boom"})
    await fleet.noted("start", 20)
    assert await daemon.stop() == 0
    assert proxy.lost == 2
    rows = await pool.fetch("select attempt, state, gate from jobs where id = any ($1::bigint[])", ids)
    assert {tuple(row) for row in rows} == {(1, "ready", "later")}
    assert await pool.fetchval("select count(*) from job_attempts") == 20


@pytest.mark.parametrize(
    ("log", "commit"), [("webhook_deliveries", "delete from jobs"), ("email_deliveries", "COMMIT")]
)
async def test_answers_lost_after_the_commit_of_results_write_no_delivery_twice(
    log: str, commit: str, fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy
) -> None:
    await fleet.start(dsn=proxy.dsn, QUEUES__DEFAULT__CONCURRENCY="20")
    proxy.lose_reply_to(commit, 3)
    ids = await insert(pool, "deliver", 100, {"mail": log.startswith("email")})
    await ended(pool, ids)
    assert proxy.lost == 3
    deliveries = await pool.fetch(f"select job_id from {log} order by job_id")
    assert [row["job_id"] for row in deliveries] == ids


async def test_rows_of_a_claim_whose_answer_was_lost_are_handed_back_at_the_stop(
    fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy
) -> None:
    """A stop that loses nothing must not leave behind what the daemon does not know that it has."""
    daemon = await fleet.start(dsn=proxy.dsn, QUEUES__DEFAULT__CONCURRENCY="10")
    proxy.lose_reply_to("relaxed as materialized", 2)
    await insert(pool, "note", 50, {"seconds": 0.01})
    await daemon.said("claim_failed")
    await fleet.noted("end", 30)
    await daemon.stop()
    await fleet.start("b")
    await empty(pool)
    assert await pool.fetchval("select count(*) from job_history where state = 'done'") == 50


async def test_rows_without_a_limit_do_not_wait_for_the_lost_answer_of_one(
    fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy, database: str
) -> None:
    """They were claimed together with limited ones; strays would be found, but only at the second of two looks, ten
    seconds apart."""
    daemon = await fleet.start("a", '[limits.one]\nkind = "heartbeat"\nconcurrency = 50\n', dsn=proxy.dsn)
    proxy.lose_reply_to("job_limits_lease", 1)
    conn = await asyncpg.connect(database)
    async with conn.transaction():
        ids = await insert(conn, "heartbeat", 10) + await insert(conn, "note", 10)
    await conn.close()
    await until_sql(pool, "select not exists (select from jobs)", within_s=8 if LONG else 15)
    assert proxy.lost == 1
    await each_ended_once(pool, ids)
    assert await daemon.stop() == 0


async def test_a_network_slow_by_200_ms_costs_no_lease(fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy) -> None:
    proxy.delay_s = 0.2
    lease_s = 2.0 if LONG else 5.0
    daemon = await fleet.start(dsn=proxy.dsn, DAEMON__LEASE=f"{lease_s:g}s")
    ids = await insert(pool, "note", 100, {"seconds": lease_s * 1.1})
    rows = await ended(pool, ids)
    assert {(row["state"], row["attempt"]) for row in rows} == {("done", 1)}
    assert not daemon.events("worker_lost")
    assert not daemon.events("worker_fenced")
    assert not daemon.events("heartbeat_failed")


async def test_connections_reset_again_and_again_lose_nothing(fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy) -> None:
    """Rows whose claim was answered into a broken connection come back by the strays' check, or as here by a stop."""
    daemon = await fleet.start(dsn=proxy.dsn, QUEUES__DEFAULT__CONCURRENCY="20")
    ids = await insert(pool, "note", 400, {"seconds": 0.05})
    for number in range(8):
        await fleet.noted("end", 20 + 30 * number)
        proxy.reset()
    await fleet.noted("end", 300)
    assert await daemon.stop() == 0
    await fleet.start("b")
    await empty(pool)
    await each_ended_once(pool, ids)
    assert {row["state"] for row in await ended(pool, ids)} == {"done"}


async def test_a_daemon_cut_off_stops_its_work_before_another_takes_it(
    fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy
) -> None:
    """No row runs in two places at once, although the one that was cut off lives."""
    lease_s = 2.0 if LONG else 5.0
    env = {"DAEMON__LEASE": f"{lease_s:g}s", "DAEMON__DRAIN_TIMEOUT": "0"}
    cut_off = await fleet.start("a", dsn=proxy.dsn, **env)
    ids = await insert(pool, "note", 10, {"seconds": 600})
    await fleet.noted("start", 10)
    await pool.execute("update jobs set args = '{}'")  # for who takes them next
    proxy.mode = "blackhole"
    silent_at = monotonic()
    other = await fleet.start("b", **env)
    await fleet.noted("cancelled", 10)
    await fleet.noted("start", 20)
    stopped = max(note.at for note in fleet.notes("cancelled"))
    taken = min(note.at for note in fleet.notes("start") if note.by == "b")
    assert stopped < taken
    assert stopped <= silent_at + lease_s * SLACK
    assert taken <= silent_at + lease_s + 2.0 * SLACK
    assert cut_off.events("worker_fenced")
    proxy.mode = "pass"
    proxy.reset()
    await cut_off.said("worker_registered", 2)
    rows = await ended(pool, ids)
    assert {(row["state"], row["crashes"]) for row in rows} == {("done", 1)}
    more = await insert(pool, "note", 200, {"seconds": 600})  # as many as both have slots
    await fleet.noted("start", 220)
    assert {note.by for note in fleet.notes("start") if note.id in set(more)} == {"a", "b"}
    assert await other.stop() == await cut_off.stop() == 0


async def test_work_goes_on_after_a_silence_longer_than_any_answer_may_take(
    fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy
) -> None:
    """Statements were cut off in the middle, and the pool's connections with them: none may hold up the loops."""
    daemon = await fleet.start(
        dsn=proxy.dsn,
        DAEMON__LEASE="3s",
        DATABASE__STATEMENT_TIMEOUT="1s",
        DATABASE__CONNECT_TIMEOUT="3s",
    )
    await insert(pool, "note", 10, {"seconds": 0.5})
    await fleet.noted("start", 10)
    proxy.mode = "blackhole"
    await daemon.said("finish_failed")
    await daemon.said("claim_failed")
    await daemon.said("worker_fenced")
    proxy.mode = "pass"
    more = await insert(pool, "note", 100)
    await ended(pool, more)
    assert await daemon.stop() == 0


async def test_polling_goes_on_while_the_listener_hears_nothing(fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy) -> None:
    """The line is half open: nothing ever comes through, and nobody says so."""
    daemon = await fleet.start(dsn=proxy.dsn, DAEMON__POLL_INTERVAL="200ms", DAEMON__LEASE="60s")
    proxy.listener_is_cut = True
    at = monotonic()
    for _ in range(3):
        (job_id,) = await insert(pool, "note")
        await ended(pool, [job_id])
    if LONG:
        await daemon.said("deaf")
        assert monotonic() - at <= 15 + 2
        proxy.listener_is_cut = False
        await daemon.said("listening", 2)


async def test_a_half_open_listening_connection_is_noticed(
    database: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("daemon.listener.BEAT_LIMIT_S", 0.5)
    heard = asyncio.Event()
    hearing: list[bool] = []
    async with asyncpg.create_pool(database, min_size=1) as direct:
        await WorkerStore(direct).register("a", "0", ["note"], ["*"], 3600)  # hints are for daemons

        async def called() -> bool:  # again and again, since a machine that stands still for a moment makes it deaf
            await insert(direct, "note")
            return heard.is_set()

        with observer_to(tmp_path / "log") as observer:
            settings = DatabaseSettings(dsn=Dsn(proxy.dsn))
            line = Database(proxy.dsn, settings)
            listener = Listener(
                line.connect, line.channel, heard.set, lambda: hearing.append(True), observer, beat_s=0.2
            )
            listening = asyncio.create_task(listener.run())
            try:
                await until(lambda: listener.trouble is None, lambda: "it listens")
                before, asked = len(hearing), proxy.listeners
                proxy.listener_is_cut = True
                await until(lambda: listener.trouble, lambda: "it notices")
                await until(lambda: proxy.listeners > asked, lambda: "it tries again, into the same hole")
                proxy.listener_is_cut = False
                await until(lambda: len(hearing) > before, lambda: "it listens, and has the daemon look what it missed")
                await until(called, lambda: "it hears")
            finally:
                listening.cancel()
                await asyncio.wait({listening})


@pytest.mark.parametrize("refused", [False, True])
async def test_a_cut_of_a_moment_costs_nothing(fleet: Fleet, pool: asyncpg.Pool, proxy: Proxy, refused: bool) -> None:
    daemon = await fleet.start(dsn=proxy.dsn, DAEMON__LEASE="60s")
    ids = await insert(pool, "note", 100, {"seconds": 1.0})
    await fleet.noted("start", 100)
    proxy.mode = "refuse" if refused else "blackhole"
    if refused:
        proxy.reset()
    await asyncio.sleep(0.5)
    proxy.mode = "pass"
    if not refused:
        proxy.reset()  # what was sent into the hole is lost, and TCP would say so some time
    rows = await ended(pool, ids)
    assert {(row["state"], row["attempt"], row["crashes"]) for row in rows} == {("done", 1, 0)}
    assert not daemon.events("worker_fenced")
