"""A file that holds one secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 1024


def read_secret(path: Any) -> str:
    """The file's text without its last line end; ValueError says why it cannot be had, and never what is in it."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("takes the path of a file")
    try:
        if not Path(path).is_file():  # a pipe or a device would have no end, or none soon
            raise ValueError(f"there is no file {path}")
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is over {MAX_BYTES // 1024} KiB, which is no secret")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
