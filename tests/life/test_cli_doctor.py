"""`jobsd doctor`: each fault is found in a database that has it, and named with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import asyncpg
import pytest

import sql
from daemon import doctor
from daemon.doctor import Finding
from daemon.embedded import Embedded
from tests.life.cli_terminal import Terminal, opened


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
    fine |= {"trigger jobs_hint", "trigger jobs_keys", "config"}
    assert {name: found[name].verdict for name in fine} == dict.fromkeys(fine, "ok")
    lines = (await terminal.ok("doctor")).out.splitlines()
    assert "WARN  daemons: none is alive: rows wait" in lines
    assert lines[lines.index("WARN  daemons: none is alive: rows wait") + 1] == "      fix: start one: jobsd serve"


async def test_faults_are_found_and_a_remedy_named(terminal: Terminal, pool: asyncpg.Pool) -> None:
    await pool.execute(
        "alter table jobs disable trigger jobs_hint; "
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
    assert (found["trigger jobs_hint"].verdict, found["trigger jobs_keys"].verdict) == ("fail", "ok")
    assert "job_attempts" in found["default partitions"].says
    assert "email_deliveries" in found["partitions"].says
    assert "1 rows of kind b" in found["kinds"].says
    assert "gone" in found["rescue"].says
    assert all(finding.fix for finding in found.values() if finding.verdict != "ok")


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
    assert doctor.clock(5.0, 0.01).verdict == "warn"
    assert doctor.clock(5.0, 6.0).verdict == "ok"
    assert [finding.check for finding in doctor.hearing(None, pooled=True)] == ["pooler", "listen"]


def test_pythons_mail_is_judged_by_what_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "INJECTION", "harmless")
    assert doctor.python().verdict == "ok"
    monkeypatch.setattr(doctor, "INJECTION", "x")
    monkeypatch.setattr(EmailMessage, "as_bytes", lambda self: b"Subject: x\r\nBcc: evil@x\r\n\r\n")
    assert doctor.python().verdict == "warn"
