"""Pauses, and orders about many rows, as people type them: counted, capped, stopped half-way, on record, taken back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.life.cli_terminal import Terminal, opened, until


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def fill(pool: asyncpg.Pool, count: int, **columns: object) -> None:
    names, places = ["kind", *columns], ["'a'", *(f"${n}" for n in range(2, 2 + len(columns)))]
    await pool.execute(
        f"insert into jobs ({', '.join(names)}) select {', '.join(places)} from generate_series(1, $1::int)",
        count,
        *columns.values(),
    )


# --- pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("JP-04")
@pytest.mark.parametrize(
    ("noun", "word", "gate"),
    [("kinds", "kind", "kind:x"), ("orgs", "organisation", "org:x"), ("lanes", "lane", "lane:x")],
)
async def test_kinds_organisations_and_lanes_are_paused_and_resumed_as_queues_are(
    terminal: Terminal, pool: asyncpg.Pool, noun: str, word: str, gate: str
) -> None:
    said = await terminal.ok(
        noun, "pause", "x", "--until", "2031-01-02", "--reason", "moving", "--actor", "ann", "--json"
    )
    assert said.json == {gate.split(":")[0]: "x", "paused": True, "dry_run": False}
    assert f"{word} x is paused until 2031-01-02T00:00:00Z; go on with: jobsd {noun} resume x" in said.err
    assert tuple(await pool.fetchrow("select gate, cause, actor, reason from job_holds") or ()) == (
        *(gate, "pause", "ann", "moving"),
    )
    (row,) = (await terminal.ok(noun, "list", "--json")).json
    assert (row["name"], row["until"], row["by"]) == ("x", "2031-01-02T00:00:00Z", "ann")
    assert (
        await terminal.ok(noun, "pause", "x", "--until", "2031-01-02", "--reason", "moving", "--actor", "ann", "--json")
    ).json["paused"] is False
    assert (await terminal.ok(noun, "resume", "x", "--dry-run", "--json")).json["resumed"] is True
    assert (await terminal.ok(noun, "resume", "x", "--json")).json["resumed"] is True
    assert "was not paused" in (await terminal.ok(noun, "resume", "x")).err
    audit = await pool.fetch("select action, subject from job_audit order by id")
    subject = gate.replace(":", " ")
    assert [tuple(row) for row in audit] == [(f"{noun}.pause", subject), (f"{noun}.resume", subject)]


async def test_a_pause_for_a_while_says_when_it_ends_and_a_dry_one_does_nothing(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    await terminal.ok("queues", "pause", "mail", "--for", "1h", "--dry-run")
    assert await pool.fetchval("select count(*) from job_holds") == 0
    assert " is paused until 2" in (await terminal.ok("queues", "pause", "mail", "--for", "1h")).err
    assert await pool.fetchval("select until - since = '1 hour' from job_holds")
    (mail,) = [row for row in (await terminal.ok("queues", "list", "--json")).json if row["queue"] == "mail"]
    assert mail["until"] is not None


@pytest.mark.req("OR-05")
async def test_an_organisation_is_given_a_weight_once_and_on_record(terminal: Terminal, pool: asyncpg.Pool) -> None:
    kept = "select org_id, weight::float8 from job_orgs"
    dry = await terminal.ok("orgs", "weight", "acme", "3", "--dry-run", "--json")
    assert dry.json == {"org": "acme", "weight": 3.0, "changed": True, "dry_run": True}
    assert await pool.fetch(kept) == []
    for changed in (True, False):
        said = await terminal.ok("orgs", "weight", "acme", "3", "--actor", "ann", "--reason", "gold", "--json")
        assert said.json == {"org": "acme", "weight": 3.0, "changed": changed, "dry_run": False}
    assert [tuple(row) for row in await pool.fetch(kept)] == [("acme", 3.0)]
    audit = await pool.fetch("select actor, action, subject, reason from job_audit")
    assert [tuple(row) for row in audit] == [("ann", "orgs.weight", "org acme", "gold")]
    assert (await terminal.ok("orgs", "weight", "nobody", "1", "--json")).json["changed"] is False
    assert (await terminal.ok("orgs", "weights", "--json")).json == [{"name": "acme", "weight": 3.0}]
    refused = await terminal("orgs", "weight", "acme", "0")
    assert refused.code == 2
    assert "0.001" in refused.err


# --- many rows --------------------------------------------------------------------------------------------------------


@pytest.mark.req("JP-04")
async def test_each_filter_picks_out_its_rows(terminal: Terminal, pool: asyncpg.Pool) -> None:
    old, soon = (
        await pool.fetchval("select now() - interval '2 h'"),
        await pool.fetchval("select now() + interval '2 h'"),
    )
    await fill(pool, 1, queue="q", org_id="7", lane="l", priority=4)
    await fill(pool, 1, created_at=old)
    await fill(pool, 1, run_at=soon)
    await pool.execute("update jobs set gate = 'kind:a' where id = 2")
    await fill(pool, 1)
    await pool.execute("update jobs set state = 'running', worker_id = 1 where id = 4")

    async def picked(*words: str) -> list[int]:
        said = await terminal.ok("jobs", "cancel", *words, "--dry-run", "--json")
        assert said.json["cancelled"] == len(said.json["sample"])
        return [row["id"] for row in said.json["sample"]]

    assert await picked("--all") == [1, 2, 3]
    for words in ("--queue q", "--org 7", "--lane l", "--priority 4"):
        assert await picked(*words.split()) == [1], words
    assert await picked("--created-before", "-1h") == [2]
    assert await picked("--created-after", "-1h") == [1, 3]
    assert await picked("--gate", "kind:a") == [2]
    assert await picked("--due-after", "+1h") == [3]
    assert await picked("--due-before", "+1h") == [1, 2]
    assert await picked("--state", "scheduled") == [3]
    assert await picked("--state", "running", "--state", "ready") == [1, 2, 3, 4]
    assert await picked("--kind", "b") == []


@pytest.mark.req("JP-09")
async def test_a_bulk_cancel_goes_in_batches_is_one_operation_and_is_taken_back(
    terminal: Terminal, pool: asyncpg.Pool
) -> None:
    await fill(pool, 2500, queue="q")
    await fill(pool, 5)
    said = (await terminal.ok("jobs", "cancel", "--queue", "q", "--reason", "mistake", "--yes", "--json")).json
    assert (said["cancelled"], said["left"], said["asked"]) == (2500, 0, 0)
    assert await pool.fetchval("select count(*) from jobs") == 5
    assert await pool.fetchval("select count(distinct finished_at) from job_history") == 3  # transactions
    audit = await pool.fetchrow("select id, action, subject, reason, detail ->> 'rows' from job_audit")
    assert tuple(audit or ()) == (said["operation"], "jobs.cancel", "jobs of queue q", "mistake", "2500")
    again = await terminal.ok("jobs", "cancel", "--queue", "q", "--yes", "--json")
    assert (again.json["cancelled"], again.json["operation"]) == (0, None)
    dry = await terminal.ok("undo", said["operation"], "--dry-run")
    assert dry.out == "would be undone: 2500\n"
    undone = await terminal.ok("undo", said["operation"], "--json")
    assert (undone.json["undone"], undone.json["refused"]) == (2500, 0)
    assert await pool.fetchval("select count(*) from jobs") == 2505
    assert "nothing left to take back" in (await terminal.ok("undo", said["operation"])).err


async def test_no_more_than_max_are_changed(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await fill(pool, 30)
    assert (await terminal.ok("jobs", "cancel", "--all", "--max", "7", "--dry-run")).out.startswith(
        "would be cancelled: 7\n"
    )
    said = await terminal.ok("jobs", "cancel", "--all", "--max", "7", "--yes")
    assert said.out == "cancelled: 7\n"
    assert "no more than 7" in said.err
    assert await pool.fetchval(
        "select array_agg(id order by id) = array[1, 2, 3, 4, 5, 6, 7]::bigint[] from job_history"
    )


async def test_running_rows_are_asked_only_when_the_filter_says_so(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await fill(pool, 3)
    await pool.execute("update jobs set state = 'running', worker_id = 1 where id < 3")
    assert (await terminal.ok("jobs", "cancel", "--all", "--yes")).out == "cancelled: 1\n"
    said = await terminal.ok("jobs", "cancel", "--state", "running", "--yes", "--json")
    assert (said.json["cancelled"], said.json["asked"]) == (0, 2)
    assert await pool.fetchval("select count(*) from jobs where cancel_asked is not null") == 2
    undone = await terminal.ok("undo", said.json["operation"])
    assert "2 were running when they were asked to stop" in undone.err


async def test_postponed_rows_go_to_their_time_and_come_back(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await fill(pool, 3)
    said = await terminal.ok("jobs", "postpone", "--kind", "a", "--until", "2031-01-01", "--yes", "--json")
    assert said.json["postponed"] == 3
    assert await pool.fetchval("select count(*) from jobs where run_at = '2031-01-01Z'") == 3
    again = await terminal.ok("jobs", "postpone", 1, 2, "--until", "2031-01-01", "--yes", "--json")
    assert (again.json["postponed"], again.json["left"], again.json["operation"]) == (0, 2, None)
    await terminal.ok("undo", said.json["operation"])
    assert await pool.fetchval("select count(*) from jobs where run_at <= now()") == 3


async def test_purged_rows_are_gone_and_there_is_no_way_back(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await fill(pool, 3)
    await pool.execute("update jobs set state = 'running', worker_id = 1 where id = 1")
    said = await terminal.ok("jobs", "purge", "--all", "--yes", "--json")
    assert said.json["purged"] == 2
    assert await pool.fetchval("select (select count(*) from jobs) = 1 and not exists (select from job_history)")
    undo = await terminal("undo", said.json["operation"])
    assert undo.code == 1
    assert "is jobs.purge, which cannot be taken back" in undo.err


async def test_what_cannot_be_taken_back_is_named_row_by_row(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await fill(pool, 2)
    said = await terminal.ok("jobs", "cancel", 1, 2, "--yes", "--json")
    await terminal.ok("jobs", "retry", 1)
    undone = await terminal("undo", said.json["operation"])
    assert (undone.code, undone.out) == (1, "undone: 1\n")
    assert "job 1 stays: it ran or was changed since" in undone.err


async def test_ctrl_c_ends_the_batch_and_says_what_is_done(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await fill(pool, 3000)
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("lock table job_undo in exclusive mode")  # the first batch stands still
        command = terminal.start("jobs", "cancel", "--all", "--yes")
        waits = "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and query like '%job_undo%'"
        await until(lambda: pool.fetchval(waits))
        command.signal(signal.SIGINT)
        await conn.execute("select pg_sleep(0)")
    said = await command.ended()
    assert (said.code, said.out) == (1, "cancelled: 1000\n")
    assert "stopped; what is done is done" in said.err
    assert await pool.fetchval("select count(*) from job_history") == 1000
    assert (await terminal.ok("jobs", "cancel", "--all", "--yes")).out == "cancelled: 2000\n"


async def test_a_job_that_was_run_by_hand_can_be_stopped_too(
    terminal: Terminal, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    command = terminal.start("run", "cli.waits", "--args", f'{{"started": "{started}"}}')
    await until(lambda: _exists(started))
    job_id = await pool.fetchval("select id from jobs")
    await terminal.ok("jobs", "cancel", job_id, "--reason", "no need", "--yes")
    said = await command.ended()
    assert said.code == 1
    assert f"job {job_id} was cancelled: no need" in said.err
    assert await pool.fetchval("select state from job_history") == "cancelled"


async def _exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)


# --- schedules --------------------------------------------------------------------------------------------------------

NIGHTLY = '[schedules.nightly]\nkind = "cli.done"\ncron = "0 3 * * *"\nargs = { n = 1 }\nqueue = "q"\n'


@pytest.mark.req("JP-02")
async def test_schedules_are_listed_paused_and_resumed(terminal: Terminal, pool: asyncpg.Pool) -> None:
    terminal.configure(NIGHTLY)
    (row,) = (await terminal.ok("schedules", "list", "--json")).json
    assert (row["schedule"], row["kind"], row["cron"], row["paused"], row["last"]) == (
        *("nightly", "cli.done", "0 3 * * *", None, None),
    )
    assert row["next"].endswith("T03:00:00Z")
    said = await terminal.ok("schedules", "pause", "nightly", "--reason", "house moves", "--actor", "ann")
    assert "schedule nightly is paused; go on with: jobsd schedules resume nightly" in said.err
    (row,) = (await terminal.ok("schedules", "list", "--json")).json
    assert (row["by"], row["reason"], row["next"]) == ("ann", "house moves", None)
    await pool.execute("update job_schedules set last_tick_at = now() - interval '9 days'")
    assert (await terminal.ok("schedules", "resume", "nightly", "--json")).json["resumed"] is True
    assert await pool.fetchval("select last_tick_at > now() - interval '1 min' from job_schedules")
    assert "was not paused" in (await terminal.ok("schedules", "resume", "nightly")).err
    audit = await pool.fetch("select action, subject from job_audit order by id")
    assert [tuple(row) for row in audit] == [
        ("schedules.pause", "schedule nightly"),
        ("schedules.resume", "schedule nightly"),
    ]


async def test_a_schedule_is_run_by_hand_once_at_a_time(terminal: Terminal, pool: asyncpg.Pool) -> None:
    terminal.configure(NIGHTLY)
    assert (await terminal.ok("schedules", "run", "nightly", "--dry-run")).out == ""
    job_id = int((await terminal.ok("schedules", "run", "nightly")).out)
    again = await terminal.ok("schedules", "run", "nightly", "--json")
    assert again.json == {"id": job_id, "added": False, "dry_run": False}
    row = await pool.fetchrow("select kind, args ->> 'n', queue, unique_key from jobs")
    assert tuple(row or ()) == ("cli.done", "1", "q", "schedule:nightly")
    assert await pool.fetchval("select count(*) from job_audit where action = 'schedules.run'") == 1
