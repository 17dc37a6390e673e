"""Jobs of the config in a daemon, and on the command line: parked while their table is missing, and then by themselves
at work."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet, ended, until, until_sql
from tests.life.test_cli_run import contents

CONFIG = """
[jobs.old_visits]
verb = "purge"
table = "zoo.visits"
age_column = "came_at"
retention = "30d"
schedule = "17 3 * * *"
"""
TABLE = """
create table zoo.visits (id bigint generated always as identity primary key, came_at timestamptz);
create index on zoo.visits (came_at);
insert into zoo.visits (came_at) select now() - n * interval '10 days' from generate_series(1, 9) as n
"""
NO_TABLE = "table: there is no table zoo.visits"


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def test_a_job_without_its_table_is_parked_and_goes_on_by_itself(
    fleet: Fleet, pool: asyncpg.Pool, terminal: Terminal, tmp_path: Path
) -> None:
    socket = tmp_path / "admin.sock"
    terminal.configure(CONFIG)
    daemon = await fleet.start(config=CONFIG, ADMIN__LISTEN=f"unix:{socket}")
    (said,) = await daemon.said("catalogue_parked")
    assert (said["job_type"], said["reason"]) == ("old_visits", NO_TABLE)
    job_id, other = [
        await pool.fetchval("insert into jobs (kind) values ($1) returning id", kind)
        for kind in ("old_visits", "heartbeat")
    ]
    await ended(pool, [other])
    await until_sql(pool, "select gate = 'kind:old_visits' from jobs where id = $1", job_id)

    gate = (await terminal.ok("jobs", "explain", job_id, "--json")).json
    assert (gate["name"], gate["says"]) == (
        "parked",
        f"its job is parked: jobs.old_visits.{NO_TABLE}",
    )
    schedules = (await terminal.ok("schedules", "list", "--json")).json
    assert {row["schedule"]: row["parked"] for row in schedules} == {"old_visits": NO_TABLE}
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as client:
        async with client.get("http://jobsd/readyz?verbose") as answer:
            assert (answer.status, (await answer.json())["parked"]) == (200, {"old_visits": NO_TABLE})

        async def scraped() -> str:
            async with client.get("http://jobsd/metrics") as answer:
                return await answer.text()

        assert 'jobsd_catalogue_parked{kind="old_visits"} 1' in await scraped()

        await pool.execute("create schema zoo")
        await pool.execute(TABLE)
        assert await ended(pool, [job_id])
        assert json.loads(await pool.fetchval("select result from job_history where id = $1", job_id)) == {"deleted": 7}
        await daemon.said("catalogue_unparked")
        assert 'jobsd_catalogue_parked{kind="old_visits"} 0' in await scraped()
        await until(
            lambda: has(scraped, 'jobsd_catalogue_rows_total{action="deleted",kind="old_visits"} 7'), lambda: "counted"
        )

    daemon.config.write_text(CONFIG.replace("came_at", "came") + '[jobs.more]\nverb = "purge"\ntable = "zoo.none"\n')
    daemon.signal(signal.SIGHUP)
    await daemon.said("reload_refused")
    daemon.config.write_text(CONFIG.replace("came_at", "came"))
    daemon.signal(signal.SIGHUP)
    reason = (await daemon.said("catalogue_parked", 2))[-1]["reason"]
    assert reason == "age_column: zoo.visits has no column 'came'; did you mean 'came_at'?"


async def has(text: object, part: str) -> bool:
    assert callable(text)
    return part in await text()


@pytest.mark.req("BJ-30")
async def test_the_command_line_says_what_a_daemon_would_and_runs_a_job_by_hand(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    terminal.configure(CONFIG)
    said = await terminal("config", "check", "--database", "--json")
    assert said.code == 78
    assert said.json["problems"] == [f"{terminal.file}:4: jobs.old_visits.{NO_TABLE}"]
    assert (await terminal("config", "check")).code == 0, "without the database all is well"
    assert f"WARN  jobs: jobs.old_visits is parked: {NO_TABLE}" in (await terminal("doctor")).out
    said = await terminal("run", "old_visits", "--json")
    assert (said.code, said.json["code"], said.json["reason"]) == (1, "parked", f"jobs.old_visits.{NO_TABLE}")
    await pool.execute("delete from jobs")

    await pool.execute("create schema zoo")
    await pool.execute(TABLE)
    assert (await terminal("config", "check", "--database")).code == 0
    assert "OK    jobs: 1 jobs of the config find their tables" in (await terminal("doctor")).out
    before = await contents(pool)
    rows = await pool.fetch("select * from zoo.visits order by id")
    rehearsed = (await terminal.ok("test", "old_visits", "--json")).json
    assert (rehearsed["outcome"], rehearsed["result"]["would_delete"], len(rehearsed["result"]["sample"])) == (
        "done",
        7,
        5,
    )
    assert await contents(pool) == before
    assert await pool.fetch("select * from zoo.visits order by id") == rows
    said = await terminal.ok("run", "old_visits", "--json")
    assert said.json["result"] == {"deleted": 7}
    ran = await pool.fetchrow("select kind, queue, state from job_history")
    assert ran is not None
    assert tuple(ran) == ("old_visits", "cleanup", "done")
    assert (await terminal.ok("schedules", "run", "old_visits")).out.strip().isdigit()
