"""sql/manifest.toml, read: who may do what in the database, and how its server should be set."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import sql

OWNER = "jobsd_owner"
PUBLIC = "public"

_RIGHT = re.compile(r"(\w+)(?: \(([\w, ]+)\))?")


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One privilege on an object, or on one column of it ('' is the whole)."""

    role: str
    object: str
    privilege: str
    column: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which rows a statement sees, and which it may write, as Postgres prints both."""

    using: str
    check: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """`definer`: runs with its owner's rights (None: as it is); `callers`: who may call it."""

    definer: bool | None = None
    callers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A server setting whose value should be one of `good` (None: any), and none of `bad`."""

    level: Literal["advice", "warn", "fail"]
    says: str
    fix: str
    good: tuple[str, ...] | None = None
    bad: tuple[str, ...] = ()

    def allows(self, value: str) -> bool:
        return value not in self.bad and (self.good is None or value in self.good)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`policies` are by table, `safe` the first safe minor release by version."""

    roles: Mapping[str, str]
    rights: frozenset[Right]
    tables: tuple[str, ...]
    policies: Mapping[str, Policy]
    functions: Mapping[str, Function]
    domains: tuple[str, ...]
    settings: Mapping[str, Setting]
    oldest: int
    newest: int
    safe: Mapping[int, int] = field(default_factory=dict)


@cache
def manifest() -> Manifest:
    """The one this version was built with."""
    return parse(sql.text("manifest.toml"))


def parse(text: str) -> Manifest:
    """KeyError or ValueError for a text that is none: it is ours, so there is nobody to be gentle with."""
    found: dict[str, Any] = tomllib.loads(text)
    policies = {name: Policy(**policy) for name, policy in found["policies"].items()}
    return Manifest(
        roles=found["roles"],
        rights=frozenset(_rights(found)),
        tables=tuple(found["tables"]),
        policies={name: policies[table["policy"]] for name, table in found["tables"].items() if "policy" in table},
        functions={
            name: Function(function.get("definer"), tuple(function.get("callers", ())))
            for name, function in found["functions"].items()
        },
        domains=tuple(found["domains"]["names"]),
        settings={name: _setting(**setting) for name, setting in found["settings"].items()},
        oldest=found["server"]["oldest"],
        newest=found["server"]["newest"],
        safe={int(version): minor for version, minor in found["server"]["safe"].items()},
    )


def _rights(found: Mapping[str, Any]) -> Iterator[Right]:
    known = {*found["roles"], PUBLIC}
    for table, entry in found["tables"].items():
        for role in entry.keys() - {"policy"}:
            if role not in known:
                raise ValueError(f"tables.{table}: {role} is no role")
            for right in entry[role]:
                yield from _right(role, table, right)


def _right(role: str, table: str, text: str) -> Iterator[Right]:
    match = _RIGHT.fullmatch(text)
    if match is None:
        raise ValueError(f"tables.{table}.{role}: {text!r} is no right")
    for column in (match[2] or "").split(","):
        yield Right(role, table, match[1], column.strip())


def _setting(**entry: Any) -> Setting:
    good, bad = entry.pop("is", None), entry.pop("not", ())
    return Setting(good=None if good is None else tuple(good), bad=tuple(bad), **entry)
