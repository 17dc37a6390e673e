"""Resolve `secret://NAME` references at the moment of use, so that no secret is stored in a row or a log."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from jobs.values import Secret

PREFIX = "secret://"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SecretMissing(LookupError):
    """A reference names a secret that this daemon does not have."""


class Secrets:
    """Looks a name up in the environment (`JOBSD_SECRET_<NAME>`, upper case, `-` as `_`), then as a file of that name
    in each folder (systemd's credentials, `daemon.secrets_dir`).  Files are read at each use: a rotated secret counts
    at once."""

    def __init__(self, folders: tuple[Path, ...] = (), env: Mapping[str, str] | None = None) -> None:
        self._folders = folders
        self._env = os.environ if env is None else env

    def resolve(self, value: str) -> Secret:
        """The secret `value` refers to, or `value` itself when it is no reference; SecretMissing if there is none."""
        if not value.startswith(PREFIX):
            return Secret(value)
        name = value.removeprefix(PREFIX)
        if not _NAME.fullmatch(name):
            raise SecretMissing(f"{value!r} is no secret reference: a name has letters, digits, '-' and '_' only")
        variable = "JOBSD_SECRET_" + name.upper().replace("-", "_")
        if variable in self._env:
            return Secret(self._env[variable])
        for folder in self._folders:
            path = folder / name
            if path.is_file():
                return Secret(path.read_text().rstrip("\n"))
        places = ", ".join([variable, *(str(folder / name) for folder in self._folders)])
        raise SecretMissing(f"no secret named {name!r}: looked for {places}")
