"""The shipped unit under a real systemd: it starts, reloads, is killed when it hangs, and may do little else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.life.systemd_lab import REPOSITORY, Lab, missing

UNIT = REPOSITORY / "systemd" / "jobsd.service"
DROP_IN = REPOSITORY / "systemd" / "notify-reload.conf"

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
needs_lab = pytest.mark.skipif(missing() is not None, reason=missing() or "")


def systemd_version() -> int:
    shown = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    return int(shown.stdout.split()[1].split(".")[0])


@pytest.fixture(scope="module")
def booted() -> Iterator[Lab]:
    lab = Lab(
        entry="tests.life.notify_daemon:main",
        files={"etc/jobsd/config.toml": "", "etc/credstore/jobsd.database-url": "postgresql://secret"},
        drop_in="WatchdogSec=3s\nRestartSec=100ms\n",
    )
    try:
        lab.boot()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    """The lab with the unit running."""
    booted.write("etc/jobsd/config.toml", "")
    booted.result("systemctl", "reset-failed", "jobsd")
    booted.run("systemctl", "start", "jobsd")
    yield booted
    booted.run("systemctl", "stop", "jobsd")


def restarted(lab: Lab) -> bool:
    return lab.show("NRestarts") == "1" and lab.show("ActiveState") == "active"


def signal(lab: Lab, name: str) -> None:
    lab.run("systemctl", "kill", f"--signal={name}", "--kill-who=main", "jobsd")


def verified(unit: Path) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@needs_analyze
def test_the_unit_has_nothing_that_systemd_would_ignore(tmp_path: Path) -> None:
    """Unknown keys only warn, with exit code 0: so nothing at all may be printed."""
    installed = UNIT.read_text().replace("/opt/jobsd/venv/bin/jobsd", shutil.which("true") or "/bin/true")
    (tmp_path / "jobsd.service").write_text(installed)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "jobsd.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_the_unit_is_exposed_to_1_1_of_10_at_most() -> None:
    options = ("--offline=yes", "--threshold=11", "--no-pager")
    done = subprocess.run(["systemd-analyze", "security", *options, UNIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_is_given_longer_to_stop_than_a_drain_takes() -> None:
    seconds = re.search(r"^TimeoutStopSec=(\d+)s$", UNIT.read_text(), re.MULTILINE)
    assert seconds is not None
    assert int(seconds[1]) > 30


@needs_analyze
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is not None and systemd_version() < 253, reason="notify-reload came with 253"
)
def test_the_drop_in_for_newer_systemd_is_accepted(tmp_path: Path) -> None:
    installed = (UNIT.read_text() + DROP_IN.read_text()).replace("/opt/jobsd/venv/bin/jobsd", "/bin/true")
    (tmp_path / "jobsd.service").write_text(installed)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "jobsd.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_lab
def test_start_returns_when_the_daemon_is_ready(lab: Lab) -> None:
    assert (lab.show("ActiveState"), lab.show("StatusText")) == ("active", "serving")


@needs_lab
def test_the_sandbox_lets_it_work_and_nothing_else(lab: Lab) -> None:
    seen = json.loads(lab.run("cat", "/run/jobsd/seen.json"))
    assert seen.pop("uid") != 0
    assert seen == {
        "capabilities": 0,
        "seccomp": "2",
        "writes /etc": False,
        "writes its code": False,
        "runs what it wrote in": [],
        "sniffs packets": False,
        "sees process 1": False,
        "credential": "postgresql://secret",
        "packages": True,
    }


@needs_lab
def test_a_reload_reaches_the_daemon(lab: Lab) -> None:
    lab.run("systemctl", "reload", "jobsd")
    lab.until(lambda: lab.show("StatusText") == "serving, reloaded", "the daemon was not signalled")


@needs_lab
def test_a_bad_file_fails_the_reload_and_never_reaches_the_daemon(lab: Lab) -> None:
    lab.write("etc/jobsd/config.toml", "bad")
    assert lab.result("systemctl", "reload", "jobsd").returncode != 0
    assert (lab.show("ActiveState"), lab.show("SubState"), lab.show("NRestarts")) == ("active", "running", "0")
    assert lab.show("StatusText") == "serving"


@needs_lab
@pytest.mark.parametrize(
    ("how", "name"), [("stopped", "STOP"), ("its loop blocked", "USR2"), ("only its claimer ended", "USR1")]
)
def test_a_daemon_that_hangs_is_killed_and_started_again(lab: Lab, how: str, name: str) -> None:
    before, timeouts = lab.show("MainPID"), lab.journal().count("Watchdog timeout")
    signal(lab, name)
    lab.until(lambda: restarted(lab), f"a daemon {how} was left alone")
    assert lab.show("MainPID") != before
    assert lab.journal().count("Watchdog timeout") == timeouts + 1


@needs_lab
def test_a_killed_daemon_is_started_again(lab: Lab) -> None:
    signal(lab, "KILL")
    lab.until(lambda: restarted(lab), "it stayed down")


@needs_lab
def test_stop_lets_the_daemon_end_by_itself_and_its_children_after_it(lab: Lab) -> None:
    lab.run("systemctl", "stop", "jobsd")
    assert (lab.show("ActiveState"), lab.show("Result"), lab.show("ExecMainStatus")) == ("inactive", "success", "0")
    assert "child left to us" in lab.journal()


@needs_lab
def test_a_bad_configuration_is_not_tried_again(booted: Lab) -> None:
    booted.write("etc/jobsd/config.toml", "bad")
    assert booted.result("systemctl", "start", "jobsd").returncode != 0
    booted.until(lambda: booted.show("ActiveState") == "failed", "it is still trying")
    assert (booted.show("ExecMainStatus"), booted.show("NRestarts")) == ("78", "0")


@needs_lab
def test_the_embedded_database_lives_in_the_sandbox_and_survives_a_kill(booted: Lab) -> None:
    booted.write("etc/jobsd/config.toml", "embedded")
    booted.result("systemctl", "reset-failed", "jobsd")
    booted.run("systemctl", "start", "jobsd")
    signal(booted, "KILL")
    booted.until(lambda: booted.show("StatusText") == "start 2", "its data did not come back")
    booted.run("systemctl", "stop", "jobsd")
    assert booted.show("Result") == "success"


@needs_lab
def test_the_lab_itself_leaves_nothing_behind() -> None:
    lab = Lab(entry="tests.life.notify_daemon:main", files={"etc/jobsd/config.toml": ""})
    lab.boot()
    lab.run("systemctl", "start", "jobsd")
    inside = lab.processes()
    lab.close()
    assert len(inside) >= 4  # systemd, its journal, the daemon and its child
    assert [pid for pid in inside if Path(f"/proc/{pid}").exists()] == []
    assert lab.name not in Path("/proc/self/mountinfo").read_text()
    assert list(Path("/sys/fs/cgroup").glob(f"**/{lab.name}")) == []
