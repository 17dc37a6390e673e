"""What is different between two configs: what a reload says it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.config_show import Entry, entries
from daemon.config_tree import dotted
from jobs.values import Secret

if TYPE_CHECKING:
    from daemon.config import Config

UNSET = "unset"


@dataclass(frozen=True, slots=True)
class Change:
    """One key's values, as the file has them, secrets masked."""

    path: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}: {self.old} → {self.new}"


@dataclass(frozen=True, slots=True)
class Diff:
    """`changed` keys; named sections `added` and `removed`, like `queues.mail`; of the changed keys those a reload
    leaves as they were, in `restart_required`."""

    changed: tuple[Change, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    restart_required: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)

    def __str__(self) -> str:
        late = dict.fromkeys(self.restart_required, "  (needs a restart)")
        lines = [f"{change}{late.get(change.path, '')}" for change in self.changed]
        return "\n".join(
            [*lines, *(f"added {path}" for path in self.added), *(f"removed {path}" for path in self.removed)]
        )


def diff(old: Config, new: Config) -> Diff:
    """From `old` to `new`, in the order of the file."""
    before, after = _by_path(old), _by_path(new)
    changed = [
        (before[path], entry) for path, entry in after.items() if path in before and before[path].value != entry.value
    ]
    return Diff(
        changed=tuple(_change(was, now) for was, now in changed),
        added=_sections_only_in(after, before),
        removed=_sections_only_in(before, after),
        restart_required=tuple(dotted(now.path) for _, now in changed if now.key.restart),
    )


def _by_path(config: Config) -> dict[tuple[str, ...], Entry]:
    return {entry.path: entry for entry in entries(config)}


def _change(was: Entry, now: Entry) -> Change:
    old, new = was.text or UNSET, now.text or UNSET
    if old == new and isinstance(now.value, Secret):
        new += " (another)"
    return Change(dotted(now.path), old, new)


def _sections_only_in(
    these: Mapping[tuple[str, ...], Entry], those: Mapping[tuple[str, ...], Entry]
) -> tuple[str, ...]:
    known = {path[:-1] for path in those}
    return tuple(dict.fromkeys(dotted(path[:-1]) for path in these if path[:-1] not in known))
