"""Rows whose claim was committed while its answer was lost: nobody rescues them while their daemon lives."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from daemon.app import Daemon
from daemon.config import load
from daemon.keeper import Task
from tests.faults.proxy import Proxy
from tests.life.fleet import ended, insert, observer_to, until


def hasty(*args: Any) -> Task:
    """Upkeep that is done five times a second."""
    return replace(Task(*args), every_s=0.2)


async def test_they_are_handed_back_untouched_and_run(
    pool: asyncpg.Pool, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("daemon.keeper.Task", hasty)
    env = {"DATABASE_URL": proxy.dsn, "JOBSD_ADMIN__LISTEN": "", "JOBSD_DAEMON__LEASE": "30s"}
    (tmp_path / "none.toml").touch()
    config = load(tmp_path / "none.toml", env)
    with observer_to(tmp_path / "log") as observer:
        await _stray(Daemon(config, lambda: config, observer), pool, proxy)


async def _stray(daemon: Daemon, pool: asyncpg.Pool, proxy: Proxy) -> None:
    serving = asyncio.create_task(daemon.run())
    await asyncio.wait_for(daemon.ready.wait(), 30)
    proxy.lose_reply_to("relaxed as materialized", 1)
    ids = await insert(pool, "heartbeat", 20)
    await until(lambda: proxy.lost, lambda: "the answer to the claim is lost")
    beside = await insert(pool, "heartbeat", 20)
    await ended(pool, beside)
    assert await pool.fetchval("select count(*) from jobs where state = 'running'") == 20
    # what is younger than five seconds may yet be on its way to us
    await pool.execute("update job_claims set claimed_at = claimed_at - interval '10 s'")
    rows = await ended(pool, ids)
    assert {(row["state"], row["attempt"], row["crashes"]) for row in rows} == {("done", 1, 0)}
    daemon.stop()
    assert await serving == 0
