"""`jobsd doctor`: each fault is found in a database that has it, and named with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import asyncpg
import pytest

import sql
from daemon import doctor, doctor_server
from daemon.doctor import Finding
from daemon.embedded import Embedded
from daemon.manifest import manifest
from tests.life.cli_terminal import Terminal, opened
from tests.sql.logins import as_login, drop_roles, roles_in


@pytest.fixture
def terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path
) -> Iterator[Terminal]:
    yield from opened(capfd, monkeypatch, database, tmp_path)


async def examined(terminal: Terminal) -> tuple[int, dict[str, Finding]]:
    said = await terminal("doctor", "--json")
    return said.code, {row["check"]: Finding(**row) for row in said.json}


async def test_a_sound_house_has_no_failure(terminal: Terminal) -> None:
    code, found = await examined(terminal)
    assert code == 0
    fine = {"database", "schema", "clock", "partitions", "default partitions", "listen", "vacuum horizon", "kinds"}
    fine |= {
        "trigger jobs_insert",
        "trigger jobs_keys",
        "trigger job_keys_settled",
        "trigger job_workers_hear",
        "config",
    }
    assert {name: found[name].verdict for name in fine} == dict.fromkeys(fine, "ok")
    lines = (await terminal.ok("doctor")).out.splitlines()
    assert "WARN  daemons: none is alive: rows wait" in lines
    assert lines[lines.index("WARN  daemons: none is alive: rows wait") + 1] == "      fix: start one: jobsd serve"


async def test_faults_are_found_and_a_remedy_named(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await pool.execute(
        "alter table jobs disable trigger jobs_insert; alter table job_workers disable trigger job_workers_hear; "
        "insert into job_attempts (job_id, attempt, kind, queue, ended_at, outcome) "
        "values (1, 1, 'a', 'q', '2001-01-01', 'retry'); "
        "insert into jobs (kind) values ('b'); update jobs set gate = 'kind:b'; "
        "insert into job_workers (name, version, kinds, queues, lease_until) "
        "values ('gone', '0', '{}', '{*}', '2001-01-01')"
    )
    tomorrow = await pool.fetchval("select to_char((now() at time zone 'UTC') + interval '1 day', 'YYYYMMDD')")
    await pool.execute(f"drop table email_deliveries_{tomorrow}")
    code, found = await examined(terminal)
    assert code == 1
    assert (found["trigger jobs_insert"].verdict, found["trigger jobs_keys"].verdict) == ("fail", "ok")
    assert found["trigger job_workers_hear"].fix == "alter table job_workers enable trigger job_workers_hear"
    assert "job_attempts" in found["default partitions"].says
    assert "email_deliveries" in found["partitions"].says
    assert "1 rows of kind b" in found["kinds"].says
    assert "gone" in found["rescue"].says
    assert all(finding.fix for finding in found.values() if finding.verdict != "ok")


@pytest.mark.req("JP-08")
async def test_rights_that_differ_from_the_manifest_are_found_with_the_statement_that_mends_them(
    terminal: Terminal, pool: asyncpg.Pool, database: str
) -> None:
    async with roles_in(database):
        assert (await examined(terminal))[1]["roles"].says == "all there"
        await pool.execute(
            "revoke select on job_status from jobsd_producer; grant truncate on jobs to jobsd_operator; "
            "alter table job_history disable row level security; grant execute on function job_orgs to jobsd_reader; "
            "create role own_app; grant delete on job_history to own_app"
        )
        try:
            code, found = await examined(terminal)
            assert code == 1
            assert found["rights of jobsd_producer on job_status"].says == "lacks select"
            assert found["rights of jobsd_operator on jobs"].fix == 'revoke truncate on "jobs" from jobsd_operator'
            assert found["row-level security of job_history"].verdict == "fail"
            assert "job_history" in found["role own_app"].says
            await terminal.ok("roles", "apply")
            code, found = await examined(terminal)
            assert (code, [name for name in found if name.startswith(("rights", "row-level"))]) == (0, [])
        finally:
            await pool.execute("drop owned by own_app; drop role own_app")


async def test_a_daemon_above_all_rules_is_found(
    terminal: Terminal, pool: asyncpg.Pool, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "superuser" in (await examined(terminal))[1]["login"].says
    async with roles_in(database):
        await pool.execute("alter table jobs owner to jobsd_serve")
        terminal.configure(f"[database]\ndsn = '{as_login(database, 'jobsd_serve')}'\n")
        monkeypatch.delenv("DATABASE_URL")
        _code, found = await examined(terminal)
        assert "owns the tables" in found["login"].says
        assert "owned by jobsd_serve" in found["owner"].says
        assert "pg_read_all_stats" in found["sight"].fix
        await pool.execute("alter table jobs owner to postgres")


async def test_the_roles_are_printed_as_sql_and_put_into_effect(
    terminal: Terminal, pool: asyncpg.Pool, database: str
) -> None:
    try:
        script = (await terminal.ok("roles", "sql")).out
        assert await pool.fetchval("select count(*) from pg_roles where rolname like 'jobsd\\_%'") == 0
        await pool.execute(script)
        await pool.execute("reset search_path")
        assert (await terminal.ok("roles", "sql")).out == ""
        assert (await terminal.ok("roles", "apply", "--json")).json == {"done": [], "left": []}
    finally:
        await drop_roles(database, *manifest().roles)


async def test_who_may_not_make_roles_is_told_what_was_left(
    terminal: Terminal, pool: asyncpg.Pool, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute("create role nobody_much login")
    try:
        monkeypatch.setenv("DATABASE_URL", as_login(database, "nobody_much"))
        said = await terminal("roles", "apply")
        assert (said.code, said.out) == (1, "")
        assert "left: create role jobsd_daemon nologin: permission denied to create role" in said.err
    finally:
        await pool.execute("drop role nobody_much")


async def test_settings_that_break_the_engine_are_found(terminal: Terminal, pool: asyncpg.Pool) -> None:
    name = await pool.fetchval("select current_database()")
    for setting in ("default_transaction_isolation = 'serializable'", "plan_cache_mode = force_custom_plan"):
        await pool.execute(f"alter database {name} set {setting}")
    code, found = await examined(terminal)
    assert (code, found["setting default_transaction_isolation"].verdict) == (1, "fail")
    assert found["setting plan_cache_mode"].verdict == "warn"
    assert found["setting autovacuum"].verdict == "warn"  # as the tests' server runs
    assert found["setting idle_in_transaction_session_timeout"].verdict == "ok"  # advice, with what to do
    assert found["setting idle_in_transaction_session_timeout"].fix


async def test_an_index_whose_build_was_broken_off_is_found(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await pool.execute("update pg_index set indisvalid = false where indexrelid = 'jobs_expiring'::regclass")
    code, found = await examined(terminal)
    assert (code, found["index jobs_expiring"].fix) == (1, "reindex index concurrently jobs_expiring")


async def test_a_prepared_transaction_and_an_open_one_are_told_apart() -> None:
    rows = [
        {"holder": "process 7", "name": "psql", "state": "idle in transaction", "age_s": 700.0},
        {"holder": "prepared transaction a b", "name": "ann", "state": "prepared", "age_s": 900.0},
    ]
    fixes = [finding.fix for finding in doctor.horizon(rows)]
    assert fixes == [
        "end its transaction: select pg_terminate_backend(7)",
        "end its transaction: rollback prepared 'a b'",
    ]


def test_slots_and_connections_are_judged_by_their_values() -> None:
    kept = {"slot": "old", "active": False, "behind": 5, "kept": 1 << 40}
    (finding,) = doctor_server.slots([kept, {"slot": "fine", "active": True, "behind": None, "kept": None}])
    assert (finding.check, finding.fix.endswith("pg_drop_replication_slot('old')")) == ("replication slot old", True)
    assert doctor_server.slots([])[0].verdict == "ok"
    assert doctor_server.connections(97, 5, each=18, daemons=6).verdict == "warn"
    assert doctor_server.connections(97, 95, each=18, daemons=1).verdict == "warn"
    assert doctor_server.connections(97, 20, each=18, daemons=5).verdict == "ok"


async def test_a_database_that_is_away_is_a_finding(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql:///shop?host=/nowhere")
    code, found = await examined(terminal)
    assert (code, found["database"].verdict, found["config"].verdict) == (1, "fail", "ok")


async def test_a_schema_that_is_behind_is_a_finding(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, embedded_server: Embedded
) -> None:
    monkeypatch.setenv("DATABASE_URL", embedded_server.dsn("postgres"))
    code, found = await examined(terminal)
    assert (code, found["schema"].fix) == (1, "jobsd migrate")


async def test_mistakes_of_the_config_and_its_handlers_are_findings(terminal: Terminal) -> None:
    terminal.configure('[daemon]\nhandlers = ["no_such_module"]\n')
    code, found = await examined(terminal)
    assert (code, found["handlers"].verdict) == (1, "fail")
    terminal.configure("[daemon]\nlease = 5\n")
    code, found = await examined(terminal)
    assert (code, list(found), found["config"].verdict) == (1, ["config"], "fail")


async def test_a_role_whose_commits_are_not_durable_is_found(terminal: Terminal, pool: asyncpg.Pool) -> None:
    assert "fsync is off" in (await examined(terminal))[1]["durability"].says  # as the tests' server runs
    assert "synchronous_commit" in doctor.durability("off", "on").says
    assert doctor.durability("on", "on").verdict == "ok"


async def test_whoever_holds_vacuum_back_is_named(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as holder, holder.transaction(isolation="repeatable_read"):
        pid = await holder.fetchval("select pg_backend_pid()")
        rows = await pool.fetch(sql.load("doctor.sql")["horizon"], -1.0)
    (finding, *_others) = [f for f in doctor.horizon([dict(row) for row in rows]) if f"process {pid} " in f.says]
    assert finding.fix.endswith(f"select pg_terminate_backend({pid})")


def test_what_no_test_server_can_show_is_judged_by_its_values() -> None:
    assert doctor.server(130012, "13.12", standby=False).verdict == "fail"
    assert doctor.server(160004, "16.4", standby=True).verdict == "fail"
    assert "CVE-2024-10976" in doctor.server(160004, "16.4", standby=False).says
    assert doctor.server(160005, "16.5", standby=False).verdict == "ok"
    assert "newer" in doctor.server(990001, "99.1", standby=False).says
    assert doctor.clock(5.0, 0.01).verdict == "warn"
    assert doctor.clock(5.0, 6.0).verdict == "ok"
    assert [finding.check for finding in doctor.hearing(None, pooled=True)] == ["pooler", "listen"]


def test_pythons_mail_is_judged_by_what_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "INJECTION", "harmless")
    assert doctor.python().verdict == "ok"
    monkeypatch.setattr(doctor, "INJECTION", "x")
    monkeypatch.setattr(EmailMessage, "as_bytes", lambda self: b"Subject: x\r\nBcc: evil@x\r\n\r\n")
    assert doctor.python().verdict == "warn"
