"""A local folder's files, made to outlast a loss of power."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

LEFT_BEHIND_S = 86400.0
"""What was begun so long ago is no longer written by anybody."""

_STAGED = re.compile(r".+#[0-9]+")


def made(folder: Path) -> Path:
    """`folder`, there and open to us alone: exports hold people's data."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.resolve()


def room(folder: Path, path: Path) -> None:
    """The folders above `path`; those that are made here are open to us alone, whatever `folder` is open to."""
    missing = []
    for parent in path.parents:
        if parent == folder or parent.exists():
            break
        missing.append(parent)
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def sync(folder: Path, path: Path) -> None:
    """`path` and each folder up to `folder` are on the disk when this returns: its bytes, and its name."""
    _sync(path, os.O_RDONLY)
    for parent in path.parents:
        _sync(parent, os.O_RDONLY | os.O_DIRECTORY)
        if parent == folder:
            return


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear_left_behind(folder: Path) -> int:
    """Remove files that a killed process had begun (the library writes `name#1` and renames it); how many."""
    cleared = 0
    for path in folder.rglob("*#*"):
        if _STAGED.fullmatch(path.name) and path.lstat().st_mtime < time.time() - LEFT_BEHIND_S:
            path.unlink(missing_ok=True)
            cleared += 1
    return cleared
