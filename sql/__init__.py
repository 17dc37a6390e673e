"""Named SQL statements and migrations, read from the .sql files beside this module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n((?:--.*\n)*)", re.MULTILINE)


@cache
def load(filename: str) -> dict[str, str]:
    """{name: statement} for every `-- name:` block of the file."""
    _header, *parts = _BLOCK.split(files(__package__).joinpath(filename).read_text())
    return {name: body.strip().rstrip(";") for name, _doc, body in zip(*[iter(parts)] * 3, strict=True)}


def text(filename: str) -> str:
    """A file beside this module, as it is."""
    return files(__package__).joinpath(filename).read_text()


@dataclass(frozen=True, slots=True)
class Migration:
    """One forward step.  `post` marks what may only run once every daemon is new; `transactional` is false for
    statements that refuse a transaction block (`create index concurrently`)."""

    number: int
    name: str
    script: str

    @property
    def post(self) -> bool:
        return self.script.startswith("-- post")

    @property
    def transactional(self) -> bool:
        return "\n-- no transaction" not in self.script[:400] and not self.script.startswith("-- no transaction")


@cache
def migrations() -> tuple[Migration, ...]:
    """Every migration, oldest first."""
    folder = files(__package__).joinpath("migrations")
    found = sorted((p for p in folder.iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)
    return tuple(Migration(int(p.name[:4]), p.name.removesuffix(".sql"), p.read_text()) for p in found)
