"""Each role does its own work, with a real daemon, and the work of no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from daemon.embedded import Embedded
from daemon.holds import Holds
from daemon.operation import Operation
from daemon.operator_store import Moment, Order
from tests.life.cli_terminal import Terminal, opened
from tests.life.fleet import Fleet, each_ended_once, ended, insert, until_sql
from tests.sql.logins import as_login, template_with_roles

QUIET = {"keeper_failed", "finish_failed", "claim_failed", "listener_failed"}


@pytest.fixture(scope="module")
async def template(embedded_server: Embedded, admin: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The databases of this module have the roles, which are made once."""
    async with template_with_roles(embedded_server, admin, template) as name:
        yield name


@pytest.fixture
def roles(database: str) -> str:
    return database


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, roles: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, as_login(roles, "jobsd_ann"), tmp_path)


@pytest.mark.req("AS-09", "JP-08")
async def test_a_daemon_serves_that_owns_nothing(roles: str, fleet: Fleet, pool: asyncpg.Pool) -> None:
    tomorrow = await pool.fetchval("select to_char((now() at time zone 'UTC') + interval '1 day', 'YYYYMMDD')")
    await pool.execute(f"drop table job_history_{tomorrow}")
    config = "[limits.all]\nkind = 'note'\nrate = '1000/s'\n[schedules.tick]\nkind = 'note'\ncron = '* * * * *'\n"
    daemon = await fleet.start("a", config, dsn=as_login(roles, "jobsd_serve"))
    producer = await asyncpg.connect(as_login(roles, "acme_app"))
    ids = await insert(producer, "note", 50, org_id="acme")
    back_end = await asyncpg.connect(as_login(roles, "shop_app"))
    ids += await insert(back_end, "note", 50)
    ids += await insert(back_end, "note", 1, idempotency_key="once")
    broken = await insert(back_end, "no_such_kind", 1)
    await ended(pool, ids)
    await each_ended_once(pool, ids)
    seen = await producer.fetch("select state, org_id from job_status")
    assert [tuple(row) for row in seen] == [("done", "acme")] * 50
    await until_sql(pool, "select gate = 'kind:no_such_kind' from jobs where id = $1", broken[0])
    await until_sql(pool, "select to_regclass($1::text) is not null", f"job_history_{tomorrow}")
    await until_sql(pool, "select exists (select from job_schedules where name = 'tick')")
    await producer.close()
    await back_end.close()
    (running,) = await insert(pool, "note", 1, {"seconds": 600})
    await until_sql(pool, "select state = 'running' from jobs where id = $1", running)
    operator = await asyncpg.connect(as_login(roles, "jobsd_ann"))
    await Holds(operator).pause("kind:note_other", Moment(None, 0.0), Order("ann", "kinds.pause", "kind note_other"))
    await Operation(operator, Order("ann", "jobs.cancel", "job")).cancel([running])
    assert [row["state"] for row in await ended(pool, [running])] == ["cancelled"]
    await until_sql(pool, "select not exists (select from job_holds)")
    await operator.close()
    assert await daemon.stop() == 0
    assert [row for row in daemon.events() if row["event"] in QUIET or "permission denied" in str(row)] == []
    assert await pool.fetchval("select count(*) from job_workers") == 0


async def test_a_daemon_rescues_the_rows_of_another_that_was_killed(
    roles: str, fleet: Fleet, pool: asyncpg.Pool
) -> None:
    dsn = as_login(roles, "jobsd_serve")
    victim = await fleet.start("victim", dsn=dsn)
    ids = await insert(pool, "note", 3, {"seconds": 60})
    await until_sql(pool, "select count(*) = 3 from jobs where state = 'running'")
    await victim.perish(pool)
    await pool.execute("update jobs set args = '{}'")
    heir = await fleet.start("heir", dsn=dsn)
    await ended(pool, ids)
    await each_ended_once(pool, ids)
    assert await heir.stop() == 0


async def test_an_operator_does_what_the_command_does_and_no_more(
    terminal: Terminal, roles: str, pool: asyncpg.Pool
) -> None:
    job = int((await terminal.ok("enqueue", "noop", "--org", "acme", "--idempotency-key", "k")).out)
    other = int((await terminal.ok("enqueue", "noop")).out)
    await terminal.ok("queues", "pause", "default", "--reason", "lunch")
    await terminal.ok("jobs", "list")
    await terminal.ok("jobs", "show", job)
    await terminal.ok("jobs", "explain", job)
    await terminal.ok("jobs", "cancel", job, "--yes")
    await terminal.ok("jobs", "retry", job)
    await pool.execute("update job_history set state = 'dead'; delete from job_keys")
    await terminal.ok("jobs", "cancel", other, "--yes")
    await pool.execute("update job_history set state = 'dead'")
    for words in (["stats"], ["queues", "list"], ["dead", "list"], ["dead", "retry", "--all", "--yes"]):
        await terminal.ok(*words)
    await terminal.ok("jobs", "cancel", other, "--yes")
    await pool.execute("update job_history set state = 'dead'")
    await terminal.ok("dead", "purge", "--all", "--yes")
    await terminal.ok("queues", "resume", "default")
    for nouns in ("kinds", "orgs", "lanes"):
        await terminal.ok(nouns, "pause", "x", "--for", "1h")
        await terminal.ok(nouns, "list")
        await terminal.ok(nouns, "resume", "x")
    await terminal.ok("enqueue", "noop", "--unique-key", "u", "--idempotency-key", "i")
    await pool.execute("update jobs set attempt = 1, progress = '{}'")
    postponed = (await terminal.ok("jobs", "postpone", "--all", "--for", "1h", "--yes", "--json")).json["operation"]
    cancelled = (await terminal.ok("jobs", "cancel", "--all", "--yes", "--json")).json["operation"]
    assert (await terminal.ok("undo", cancelled, "--json")).json["undone"] == 2
    assert (await terminal("undo", postponed, "--json")).json["refused"] == 2
    await pool.execute("update jobs set state = 'running', worker_id = 1")
    await terminal.ok("jobs", "cancel", "--state", "running", "--yes")
    await pool.execute("update jobs set state = 'ready', worker_id = null, cancel_asked = null")
    await terminal.ok("jobs", "purge", "--all", "--yes")
    assert await pool.fetchval("select count(*) from job_audit") >= 5
    conn = await asyncpg.connect(as_login(roles, "jobsd_ann"))
    for statement in (
        "insert into jobs (kind, state) values ('noop', 'running')",
        "update jobs set args = '{}'",
        "update jobs set state = 'ready'",
        "update job_history set result = '{}'",
        "insert into job_attempts select from job_attempts",
        "delete from job_audit",
        "delete from job_keys",
        "update job_workers set lease_until = 'infinity'",
        "update job_limits set full_at = now()",
        "select job_partitions_drop('job_history', '0', 1)",
        "truncate job_history",
        "drop table jobs",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(statement)
    await conn.close()


async def test_the_command_of_an_operator_of_one_organisation_is_refused_whole(
    terminal: Terminal, roles: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit belongs to no organisation, and nothing is done without it."""
    job = int((await terminal.ok("enqueue", "noop", "--org", "acme")).out)
    monkeypatch.setenv("DATABASE_URL", as_login(roles, "acme_operator"))
    await terminal.ok("jobs", "list")
    for words in (["jobs", "cancel", job, "--yes"], ["jobs", "cancel", "--all", "--yes"], ["orgs", "pause", "acme"]):
        said = await terminal(*words)
        assert (said.code, "may not do this" in said.err) == (78, True), said
    assert await pool.fetchval("select count(*) from jobs where state = 'ready'") == 1


async def test_a_reader_reads_all_and_changes_nothing(
    terminal: Terminal, roles: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = int((await terminal.ok("enqueue", "noop")).out)
    monkeypatch.setenv("DATABASE_URL", as_login(roles, "jobsd_bob"))
    for words in (["jobs", "list"], ["jobs", "show", job], ["jobs", "explain", job], ["stats"], ["queues", "list"]):
        await terminal.ok(*words)
    await terminal.ok("dead", "list")
    await terminal.ok("doctor")
    for words in (["enqueue", "noop"], ["jobs", "cancel", job, "--yes"], ["queues", "pause", "default"]):
        said = await terminal(*words)
        assert (said.code, "may not do this" in said.err) == (78, True), said


async def test_one_job_is_run_by_who_may_serve(terminal: Terminal, roles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", as_login(roles, "jobsd_serve"))
    await terminal.ok("run", "heartbeat")
    monkeypatch.setenv("DATABASE_URL", as_login(roles, "jobsd_ann"))
    assert (await terminal("run", "heartbeat")).code == 78
