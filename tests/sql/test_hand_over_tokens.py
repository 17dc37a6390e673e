"""Handlers that take tokens from the database's buckets, in a process that claims nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.config import parse
from daemon.hand_overs import HandOvers
from daemon.lender import Lender
from daemon.limit_store import LimitStore
from daemon.limits import Limits
from jobs.email.turns import Asker
from tests.life.fleet import observer_to
from tests.sql.rows import Pool

CONFIG = '[email]\nfrom = "a@x.example"\n[email.relays.main]\nhost = "r.example"\n'


@asynccontextmanager
async def turns_of(limits: LimitStore, folder: Path, relay: str) -> AsyncIterator[HandOvers]:
    known = Limits(parse(CONFIG + relay).all_limits)
    with observer_to(folder / "log") as observer:
        turns = HandOvers(Lender(limits, dict), lambda: known, lambda: None, observer)
        task = asyncio.ensure_future(turns.alone(1))
        yield turns
        task.cancel()


async def test_who_comes_when_the_rate_is_used_up_is_told_when_to_come(limits: LimitStore, tmp_path: Path) -> None:
    async with turns_of(limits, tmp_path, 'rate = "5/h"\n') as turns:
        assert await turns.take("main", Asker(), 60.0) == 0.0
        assert await turns.take("main", Asker(), 60.0) == pytest.approx(720, abs=60)


async def test_a_day_is_given_out_and_security_mail_gets_what_is_kept(
    pool: Pool, limits: LimitStore, tmp_path: Path
) -> None:
    async with turns_of(limits, tmp_path, "messages_per_day = 5\n") as turns:
        assert [await turns.take("main", Asker(), 60.0) for _ in range(4)] == [0.0] * 4
        assert await turns.take("main", Asker(), 1.0) > 0
        assert await turns.take("main", Asker(security=True), 60.0) == 0.0
        assert await turns.take("main", Asker(security=True), 1.0) > 0
    used = {row["name"]: row["day_n"] for row in await pool.fetch("select name, day_n from job_limits")}
    assert used == {"relay_day:main": [5], "relay_ordinary:main": [4]}


async def test_a_relay_that_throttles_gives_less(pool: Pool, limits: LimitStore, tmp_path: Path) -> None:
    async with turns_of(limits, tmp_path, 'rate = "100/s"\n') as turns:
        assert await turns.take("main", Asker(), 60.0) == 0.0
        assert turns.throttled("main", 0.0, "454 Maximum sending rate exceeded")
        assert await turns.take("main", Asker(), 60.0) == 0.0
        assert await turns.take("main", Asker(), 60.0) == 0.0
    assert await pool.fetchval("select share from job_limits") == 0.5
