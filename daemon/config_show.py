"""Prints settings: as TOML that can be read back, or as JSON; secrets are never in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.config_schema import Array, Dictionary, Key, NamedSections, Section, keys_of
from daemon.config_tree import dotted
from daemon.config_values import Scalar, bare

if TYPE_CHECKING:
    from daemon.config import Config


@dataclass(frozen=True, slots=True)
class Entry:
    """One key's value."""

    path: tuple[str, ...]
    key: Key
    value: Any

    @property
    def text(self) -> str:
        """As TOML has it, secrets masked; empty when unset."""
        return "" if self.value is None else value_text(self.key, self.value)


def entries(settings: Any, path: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Every key that has a value of its own, in the order of the file."""
    for key in keys_of(type(settings)).values():
        if key.attribute is None:
            continue
        value = getattr(settings, key.attribute)
        here = (*path, key.name)
        match key.shape:
            case Section():
                yield from entries(value, here)
            case NamedSections():
                for name, inner in value.items():
                    yield from entries(inner, (*here, name))
            case _:
                yield Entry(here, key, value)


def value_text(key: Key, value: Any) -> str:
    """`value` as TOML has it, secrets masked."""
    match key.shape:
        case Array(item):
            return "[" + ", ".join(item.text(element) for element in value) + "]"
        case Dictionary(item):
            return "{" + ", ".join(f"{bare(k)} = {item.text(v)}" for k, v in value.items()) + "}"
        case Scalar() as scalar:
            return scalar.text(value)
    raise TypeError(f"{key.name} is a section")


def show(config: Config, *, origin: bool = False, as_json: bool = False) -> str:
    """What holds, whoever set it; `origin` says beside each key who did."""
    return _json(config, origin=origin) if as_json else _toml(config, origin=origin)


def digest(config: Config) -> str:
    """Twelve characters that are equal for configs that show the same."""
    text = "\n".join(f"{dotted(entry.path)} = {entry.text}" for entry in entries(config))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _toml(config: Config, *, origin: bool) -> str:
    lines: list[str] = []
    section: tuple[str, ...] = ()
    for entry in entries(config):
        if entry.path[:-1] != section:
            section = entry.path[:-1]
            lines += ["", f"[{dotted(section)}]"]
        if entry.value is not None:
            came_from = config.origins.get(dotted(entry.path))
            beside = f"  # {came_from.text}" if origin and came_from else ""
            lines.append(f"{bare(entry.path[-1])} = {entry.text}{beside}")
    return "\n".join(lines) + "\n"


def _json(config: Config, *, origin: bool) -> str:
    tree: dict[str, Any] = {}
    for entry in entries(config):
        came_from = config.origins.get(dotted(entry.path))
        value = _json_value(entry)
        inner = tree
        for name in entry.path[:-1]:
            inner = inner.setdefault(name, {})
        inner[entry.path[-1]] = {"value": value, "origin": came_from.text if came_from else ""} if origin else value
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _json_value(entry: Entry) -> Any:
    """As JSON has it: durations, sizes and rates in the words of the file."""
    match entry.key.shape:
        case Scalar() as scalar if entry.value is not None:
            return scalar.plain(entry.value)
        case Array(item) if entry.value is not None:
            return [item.plain(element) for element in entry.value]
    return entry.value
