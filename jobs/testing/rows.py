"""Rows as tests ask about them: what was expected of one, and how near the others come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

SHOWN = 5
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of jobs or of job_history.  `state` is ready, scheduled (ready, but later), running, done, dead or
    cancelled; `columns` has all of the table's."""

    id: int
    kind: str
    args: dict[str, Any]
    queue: str
    org_id: str | None
    priority: int
    state: str
    gate: str
    attempt: int
    crashes: int
    run_at: datetime
    finished_at: datetime | None
    code: str | None
    reason: str | None
    result: Any
    columns: Mapping[str, Any]

    def __str__(self) -> str:
        text = f"#{self.id} {self.kind} {self.state}, attempt {self.attempt}, args {self.args}"
        if self.gate not in ("", "later", "retry"):
            text += f", at the gate {self.gate!r}"
        if self.state == "scheduled":
            text += f", due {self.run_at:%Y-%m-%d %H:%M:%S}"
        if self.code or self.reason:
            text += f", {self.code}: {self.reason}"
        return text if self.result is None else f"{text}, result {self.result}"


def row(record: asyncpg.Record) -> Row:
    found = dict(record)
    for name in ("args", "result", "columns"):
        found[name] = None if found[name] is None else msgspec.json.decode(found[name])
    return Row(**found)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a row should be: its kind or its id, its states, and anything else by name; args as a subset."""

    subject: str | int | None
    states: tuple[str, ...] = ()
    args: Any = None
    others: Mapping[str, Any] | None = None

    def misses(self, row: Row) -> list[str]:
        """Where the row is not what it should be; the gravest first."""
        found = []
        if isinstance(self.subject, int) and row.id != self.subject:
            found.append(f"its id is {row.id}")
        if isinstance(self.subject, str) and row.kind != self.subject:
            found.append(f"its kind is {row.kind!r}")
        if self.states and row.state not in self.states:
            found.append(f"it is {row.state}")
        if self.args is not None:
            found += _differences("args", _builtin(self.args), row.args)
        for name, value in (self.others or {}).items():
            found += _differences(name, _builtin(value), _column(row, name))
        return found

    def __str__(self) -> str:
        text = " or ".join(self.states) or "waiting"
        text += f" row {self.subject}" if isinstance(self.subject, int) else " row"
        text += f" of kind {self.subject!r}" if isinstance(self.subject, str) else ""
        text += f", args {_builtin(self.args)}" if self.args is not None else ""
        return text + "".join(f", {name}={value!r}" for name, value in (self.others or {}).items())


def fitting(wish: Wish, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not wish.misses(row)]


def nearest(wish: Wish, rows: Sequence[Row]) -> str:
    """What was there instead, for a message."""
    if not rows:
        return "there are no rows at all"
    ranked = sorted(rows, key=lambda row: (_is_other(wish, row), len(wish.misses(row))))
    lines = [f"  {row}\n      {'; '.join(wish.misses(row)) or 'fits'}" for row in ranked[:SHOWN]]
    more = f"\n  and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return "the nearest are:\n" + "\n".join(lines) + more


def _is_other(wish: Wish, row: Row) -> bool:
    return wish.subject is not None and wish.subject not in (row.id, row.kind)


def _column(row: Row, name: str) -> Any:
    if name in Row.__slots__:
        return _builtin(getattr(row, name))
    if name in row.columns:
        return row.columns[name]
    raise TypeError(f"jobs has no column {name!r}")


def _differences(path: str, wanted: Any, there: Any) -> Iterator[str]:
    """Of an object only the keys that are wanted count."""
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        for key, value in wanted.items():
            yield from _differences(f"{path}.{key}", value, there.get(key, _MISSING))
    elif there is _MISSING:
        yield f"{path} is not there"
    elif wanted != there:
        yield f"{path} is {there!r}, not {wanted!r}"


def _builtin(value: Any) -> Any:
    """As JSON has it: what a test says with a Struct or a datetime is what stands in the row."""
    return msgspec.json.decode(msgspec.json.encode(value))
