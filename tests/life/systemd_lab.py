"""A throwaway systemd for tests: boots in namespaces of its own, in a fifth of a second, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_TARGET = """[Unit]
Requires=systemd-journald.service
After=systemd-journald.service
"""
# The interpreter is bound to another place than it was built for.
_DROP_IN = """[Service]
Environment=LD_LIBRARY_PATH=/opt/jobsd/python/lib PYTHONUNBUFFERED=1
"""
_PROGRAM = """#!/opt/jobsd/venv/bin/python3
import sys
sys.path.insert(0, "/opt/jobsd/source")
from {module} import {function}
sys.exit({function}())
"""
_NAMESPACES = ("--mount", "--net", "--uts", "--ipc")


def missing() -> str | None:
    """Why no systemd can be booted here; None when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "booting a throwaway systemd takes root on Linux"
    if absent := [tool for tool in ("bash", "unshare", "nsenter", "mount", "systemctl") if shutil.which(tool) is None]:
        return f"not installed: {', '.join(absent)}"
    if not Path("/usr/lib/systemd/systemd").exists():
        return "systemd itself is not installed"
    if "cgroup2" not in Path("/proc/filesystems").read_text():
        return "the kernel has no cgroup2"
    probe = subprocess.run(
        ["unshare", *_NAMESPACES, "--cgroup", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    return None if probe.returncode == 0 else "namespaces are not allowed here (a container without privileges)"


class Lab:
    """`entry` is what /opt/jobsd/venv/bin/jobsd runs, as "module:function"; `drop_in` further lines of the unit's
    [Service]; `files` the text of files inside by their path."""

    def __init__(self, *, entry: str, files: Mapping[str, str], drop_in: str = "") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="jobsd-lab-"))
        self._overlay = self._folder / "overlay"
        self._write("etc/machine-id", "11112222333344445555666677778888\n")
        self._write("etc/systemd/system/lab.target", _TARGET)
        self._write("etc/systemd/system/jobsd.service", (REPOSITORY / "systemd" / "jobsd.service").read_text())
        self._write("etc/systemd/system/jobsd.service.d/lab.conf", _DROP_IN + drop_in)
        for path, text in files.items():
            self._write(path.lstrip("/"), text)
        self._write("opt/jobsd/venv/pyvenv.cfg", "home = /opt/jobsd/python/bin\n")
        module, _, function = entry.partition(":")
        program = self._write("opt/jobsd/venv/bin/jobsd", _PROGRAM.format(module=module, function=function))
        program.chmod(0o755)
        (program.parent / "python3").symlink_to(f"/opt/jobsd/python/bin/{PYTHON}")
        self._outer: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def boot(self) -> None:
        root, cgroups = self._folder / "root", self._folder / "cgroup"
        root.mkdir()
        cgroups.mkdir()
        packages = f"lib/{PYTHON}/site-packages"
        binds = (
            f"{sys.base_prefix}:opt/jobsd/python",
            f"{sys.prefix}/{packages}:opt/jobsd/venv/{packages}",
            f"{REPOSITORY}:opt/jobsd/source",
        )
        script = Path(__file__).with_suffix(".sh")
        with (self._folder / "console").open("wb") as console:
            self._outer = subprocess.Popen(
                ["unshare", *_NAMESPACES, "bash", script, root, cgroups, self._folder.name, self._overlay, *binds],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.until(self._booted, "the lab did not boot")

    def close(self) -> None:
        """End everything in it; waits until the kernel has taken all of it away."""
        if self._outer is not None and self._outer.stdin is not None:
            self._outer.stdin.close()
            self._outer.wait(60)
        shutil.rmtree(self._folder)

    @property
    def name(self) -> str:
        """Of its folder, and of its cgroup."""
        return self._folder.name

    def processes(self) -> list[int]:
        """All that run in it, by their process ids outside."""
        namespace = os.readlink(f"/proc/{self._pid}/ns/pid")
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in found if _namespace_of(pid) == namespace]

    def run(self, *command: str, check: bool = True) -> str:
        """A command's standard output, run inside as root."""
        done = self.result(*command)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.journal()[-4000:]}"
        return done.stdout.strip()

    def result(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "--target", str(self._pid), "--all", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=120, check=False)

    def show(self, key: str) -> str:
        """A property of the unit, as `systemctl show` names it."""
        return self.result("systemctl", "show", "--value", f"--property={key}", "jobsd").stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Replace a file inside."""
        Path(f"/proc/{self._pid}/root/{path}").write_text(text)

    def journal(self) -> str:
        """What systemd and the unit have said."""
        return self.result("journalctl", "--no-pager", "--output=cat").stdout

    def until(self, happened: Callable[[], object], otherwise: str, timeout_s: float = 120.0) -> float:
        """Wait for what systemd does by itself; returns the seconds it took."""
        began, pause_s = time.monotonic(), 0.02
        while not happened():
            if time.monotonic() - began > timeout_s:
                said = self.journal() if self._pid else (self._folder / "console").read_text(errors="replace")
                raise AssertionError(f"{otherwise}\n{said[-4000:]}")
            time.sleep(pause_s)
            pause_s = min(1.3 * pause_s, 0.3)  # each look is two processes
        return time.monotonic() - began

    def _booted(self) -> bool:
        assert self._outer is not None
        self._pid = self._pid or _descendant(self._outer.pid, "systemd")
        return bool(self._pid) and self.result("systemctl", "is-system-running").stdout.strip() == "running"

    def _write(self, path: str, text: str) -> Path:
        file = self._overlay / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file


def _namespace_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _descendant(pid: int, name: str) -> int:
    """The first process called `name` in the line of first children below `pid`; 0 if there is none yet."""
    try:
        while Path(f"/proc/{pid}/comm").read_text().strip() != name:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (FileNotFoundError, IndexError, ProcessLookupError):
        return 0
    return pid
