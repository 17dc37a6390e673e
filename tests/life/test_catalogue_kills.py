"""Daemons that are killed amid every job of the catalogue at once: the next one ends them all, and what is there then
is what is there after a quiet run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from daemon.embedded import Embedded
from tests.known_types import OfAClone
from tests.life.fleet import LONG, Fleet, Member, each_ended_once, ended, fleet_on, until, until_sql
from tests.life.village import GATE, HOLDS, JOBS, ROWS, Village

pytestmark = [pytest.mark.req("BJ-27"), pytest.mark.req("JD-08")]

KILLS = 20 if LONG else 2
SEED = 20261122

AT_THE_GATE = f"""select count(*) from pg_locks
where locktype = 'advisory' and not granted and objid = {GATE}
and database = (select oid from pg_database where datname = current_database())"""
THEIRS = "from pg_stat_activity where datname = current_database() and application_name like 'jobsd%'"


@pytest.fixture
async def second(
    embedded_server: Embedded, admin: asyncpg.Connection, template: str, tmp_path: Path
) -> AsyncIterator[Fleet]:
    """Daemons on a database beside the test's own."""
    name = "killed_beside"
    await admin.execute(f"create database {name} template {template}")
    folder = tmp_path / name
    folder.mkdir()
    async with fleet_on(embedded_server.dsn(name), folder) as fleet:
        yield fleet
    await admin.execute(f"drop database {name} with (force)")


async def start(fleet: Fleet, village: Village) -> Member:
    """Serves the village's jobs and no others: what they ask for (mail, checks) stays to be counted."""
    return await fleet.start(config=village.config, DAEMON__KINDS=",".join(JOBS))


async def quiet(fleet: Fleet, village: Village) -> dict[str, Any]:
    """What a run that nobody disturbs comes to."""
    await village.settle()
    ids = await village.enqueue()
    await start(fleet, village)
    await ended(village.pool, ids)
    return await village.everything()


async def killed(fleet: Fleet, village: Village, kills: int, dice: random.Random) -> dict[str, Any]:
    """What it comes to when so many daemons die, each when every job that has not ended is held amid a statement."""
    await village.settle()
    await village.build_holds()
    ids = await village.enqueue()
    async with village.pool.acquire() as gate:
        for number in range(kills):
            before = await village.left()
            await gate.execute("select pg_advisory_lock($1)", GATE)
            await village.hold({name: passed(name, dice) for name in HOLDS})
            daemon = await start(fleet, village)
            await until(partial(all_held, village, ids), daemon.tail)
            after = await village.left()
            if not LONG:
                assert {name for name in JOBS if not 0 < after[name] < before[name]} == set(), (before, after)
            await daemon.kill()
            if number % 2 == 0:
                await village.pool.execute(f"select pg_terminate_backend(pid) {THEIRS}")
            await gate.execute("select pg_advisory_unlock($1)", GATE)  # else what it has asked for is done, and unheard
            await until_sql(village.pool, f"select count(*) = 0 {THEIRS}")
            await daemon.lapse(village.pool)
    await start(fleet, village)
    assert {row["state"] for row in await ended(village.pool, ids)} == {"done"}
    await each_ended_once(village.pool, ids)
    return await village.everything()


def passed(name: str, dice: random.Random) -> int:
    """How many rows may pass before the job is held: more than a page, in the long run anything."""
    if name == "parcel":
        return dice.randint(0, 1) if LONG else 1
    least = 13 if name == "usage" else 6  # of five periods' events there are up to twelve
    return dice.randint(0, least) if LONG else dice.randint(least, least + 3)


async def all_held(village: Village, ids: list[int]) -> bool:
    held = await village.pool.fetchval(AT_THE_GATE)
    over = await village.pool.fetchval("select count(*) from job_history where id = any ($1::bigint[])", ids)
    return bool(held + over == len(ids))


async def test_killed_amid_all_of_them_they_come_to_what_a_quiet_run_does(
    fleet: Fleet, pool: asyncpg.Pool, second: Fleet, tmp_path: Path
) -> None:
    async with asyncpg.create_pool(second.dsn, min_size=1, max_size=4, connection_class=OfAClone) as beside:
        undisturbed, disturbed = await asyncio.gather(
            quiet(second, Village(beside, tmp_path / "quiet")),
            killed(fleet, Village(pool, tmp_path / "killed"), KILLS, random.Random(SEED)),
        )
    for name, rows in undisturbed.items():
        assert disturbed[name] == rows, name
    assert len(undisturbed["archived"]) == ROWS
