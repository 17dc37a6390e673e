"""Settings from the environment: which setting a JOBSD_<SECTION>__<KEY> variable means, and how its text is read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from daemon.config_schema import Array, Dictionary, Key, NamedSections, Section, keys_of
from daemon.config_tree import ENV_RANK, Given, Origin, Table
from daemon.config_values import parse_json

PREFIX = "JOBSD_"
CONFIG_VARIABLE = "JOBSD_CONFIG"
NOT_SETTINGS = ("JOBSD_SECRET_", "JOBSD_TEST_", CONFIG_VARIABLE)
"""Secrets by name (jobs.secrets), what the tests are told, and where the file is."""

_NAME = re.compile(r"[A-Z0-9_]+")


class UnknownVariable(LookupError):
    """No setting has this name; says which one may be meant."""


def variable_given(name: str, text: str, root: type[Any], given: Table) -> tuple[tuple[str, ...], Given]:
    """The path a variable sets, and its value; text that cannot be read as the key's type is left for the checker.

    `given` is the file: a variable's QUEUES__BULK_MAIL is its `[queues.bulk-mail]` where it has one.
    UnknownVariable if no setting has this name.
    """
    found = _walk(name.removeprefix(PREFIX).split("__"), root, given, ()) if _NAME.fullmatch(name) else None
    if found is None:
        raise UnknownVariable("no setting has this name" + _suggestion(name, root, given))
    path, key = found
    return path, Given(text_value(key, text, inside=path[-1] != key.name), Origin(f"env {name}", ENV_RANK))


def text_value(key: Key, text: str, *, inside: bool = False) -> Any:
    """TOML's value for text: lists are comma separated, tables are JSON, empty is unset where that is possible.

    `inside`: the text is that of one value in the table that is the key.
    """
    try:
        match key.shape:
            case Array(item):
                return [item.parse(part.strip()) for part in text.split(",") if part.strip()]
            case Dictionary(item):
                return item.parse(text) if inside else parse_json(text)
            case Section() | NamedSections():
                return text
            case scalar:
                return None if key.optional and not text else scalar.parse(text)
    except ValueError:
        return text


def variables(root: type[Any], given: Table, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Key, tuple[str, ...]]]:
    """Every variable there is, with its key and path; of named sections those that `given` has."""
    for key in keys_of(root).values():
        here = (*path, key.name)
        match key.shape:
            case Section(settings):
                yield from variables(settings, _inner(given, key.name), here)
            case NamedSections() as sections:
                table = _inner(given, key.name)
                for name in table.items:
                    if _NAME.fullmatch(_env(name)) and "__" not in name:
                        yield from _of_section(sections, _inner(table, name), (*here, name))
            case _:
                yield PREFIX + "__".join(_env(name) for name in here), key, here


def _walk(
    parts: list[str], settings: type[Any], given: Table, path: tuple[str, ...]
) -> tuple[tuple[str, ...], Key] | None:
    key = next((key for key in keys_of(settings).values() if parts and _env(key.name) == parts[0]), None)
    if key is None:
        return None
    here, table, rest = (*path, key.name), _inner(given, key.name), parts[1:]
    match key.shape:
        case Section(inner):
            return _walk(rest, inner, table, here)
        case NamedSections() as sections if rest and rest[0]:
            name = next((name for name in table.items if _env(name) == rest[0]), rest[0].lower())
            section = _inner(table, name)
            ways = (_walk(rest[1:], inner, section, (*here, name)) for inner in _chosen(sections, section))
            return next((way for way in ways if way is not None), None)
        case Dictionary() if len(rest) == 1 and rest[0]:
            return (*here, rest[0].lower()), key
    return None if rest or isinstance(key.shape, NamedSections) else (here, key)


def _suggestion(name: str, root: type[Any], given: Table) -> str:
    parts = name.removeprefix(PREFIX).lower().split("__")
    with_its_name = Table(given.origin, dict(given.items))
    if len(parts) > 2:  # so that a wrong key of a queue that only the environment names is found too
        with_its_name.items[parts[0]] = Table(given.origin, {parts[1]: Table(given.origin)})
    names = [name for name, _, _ in variables(root, with_its_name)]
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]}?" if close else "; `jobsd config env` lists them"


def _of_section(
    sections: NamedSections, given: Table, path: tuple[str, ...]
) -> Iterator[tuple[str, Key, tuple[str, ...]]]:
    """Of all that a section may be, each variable once."""
    known = {}
    for settings in _chosen(sections, given):
        known.update({name: (name, key, here) for name, key, here in variables(settings, given, path)})
    yield from known.values()


def _chosen(sections: NamedSections, given: Table) -> tuple[type[Any], ...]:
    word = given.items.get(sections.selector) if sections.variants else None
    return sections.chosen(word.value if isinstance(word, Given) else None)


def _inner(table: Table, name: str) -> Table:
    inner = table.items.get(name)
    return inner if isinstance(inner, Table) else Table(table.origin)


def _env(name: str) -> str:
    return name.upper().replace("-", "_")
