"""Which keys the config has, read off the fields of the settings classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from daemon.config_values import SCALARS, Scalar
from jobs.values import Secret


@dataclass(frozen=True, slots=True)
class Array:
    """`tuple[X, ...]`."""

    item: Scalar


@dataclass(frozen=True, slots=True)
class Dictionary:
    """`dict[str, X]`: a table whose keys are free."""

    item: Scalar


@dataclass(frozen=True, slots=True)
class Section:
    """A settings class: a table whose keys are its fields."""

    settings: type[Any]


@dataclass(frozen=True, slots=True)
class NamedSections:
    """`dict[str, a settings class]`: `[queues.NAME]`.  `variants`: subclasses by the value of the first key."""

    settings: type[Any]
    variants: Mapping[str, type[Any]] = field(default_factory=dict)

    @property
    def selector(self) -> str:
        """The key that says which variant a section is."""
        return next(iter(keys_of(self.settings)))

    @property
    def all(self) -> tuple[type[Any], ...]:
        return tuple(self.variants.values()) or (self.settings,)

    def chosen(self, word: Any) -> tuple[type[Any], ...]:
        """The class of sections whose first key has this value; where none has, all that it may be."""
        found = self.variants.get(word) if isinstance(word, str) else None
        return self.all if found is None else (found,)


Shape = Scalar | Array | Dictionary | Section | NamedSections


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section.  `attribute` is None for `X_file`, which stands for the file that holds secret `X`."""

    name: str
    attribute: str | None
    shape: Shape
    optional: bool
    default: Any
    production: Any
    doc: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    restart: bool = False
    secret: bool = False
    example: str = ""

    @property
    def required(self) -> bool:
        return self.default is MISSING

    def default_in(self, profile: str) -> Any:
        return self.production if profile == "production" else self.default


_KNOWN: dict[type[Any], dict[str, Key]] = {}
"""Read off once: type hints are slow to resolve."""


def keys_of(settings: type[Any]) -> dict[str, Key]:
    """By their name in the file, in the order of the class; TypeError for an annotation the config cannot express."""
    if settings not in _KNOWN:
        _KNOWN[settings] = _keys(settings)
    return _KNOWN[settings]


def _keys(settings: type[Any]) -> dict[str, Key]:
    hints = get_type_hints(settings)
    keys: dict[str, Key] = {}
    for each in dataclasses.fields(settings):
        if "doc" not in each.metadata:
            continue  # not a key: something the class keeps for itself
        read = _key(each, hints[each.name], settings)
        keys[read.name] = read
        if read.secret and f"{read.name}_file" not in hints:
            keys[f"{read.name}_file"] = _key_file(read)
    return keys


def _key(given: dataclasses.Field[Any], hint: Any, settings: type[Any]) -> Key:
    hint, optional = _without_none(hint)
    if get_origin(hint) is Literal:
        choices, hint = get_args(hint), str
    else:
        choices = given.metadata["choices"]
    default = given.default if given.default_factory is MISSING else given.default_factory()
    production = given.metadata["production"]
    return Key(
        name=given.metadata["name"] or given.name,
        attribute=given.name,
        shape=_shape(hint, f"{settings.__name__}.{given.name}", given.metadata["variants"]),
        optional=optional,
        default=default,
        production=default if production is MISSING else production,
        doc=given.metadata["doc"],
        choices=choices,
        minimum=given.metadata["minimum"],
        maximum=given.metadata["maximum"],
        restart=given.metadata["restart"],
        secret=isinstance(hint, type) and issubclass(hint, Secret),
        example=given.metadata["example"],
    )


def _key_file(secret: Key) -> Key:
    doc = f"A file that holds {secret.name}, read at start and at each reload."
    return Key(f"{secret.name}_file", None, SCALARS[Path], True, None, None, doc, restart=secret.restart)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, UnionType) or NoneType not in get_args(hint):
        return hint, False
    rest = tuple(a for a in get_args(hint) if a is not NoneType)
    return (rest[0] if len(rest) == 1 else Union[rest]), True  # noqa: UP007 - of a number of types known only here


def _shape(hint: Any, where: str, variants: Mapping[str, type[Any]] | None) -> Shape:
    if dataclasses.is_dataclass(hint) and hint not in SCALARS and isinstance(hint, type):
        return Section(hint)
    arguments = get_args(hint)
    if get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return Array(_scalar(arguments[0], where))
    if get_origin(hint) is dict:
        named = dataclasses.is_dataclass(arguments[1]) and arguments[1] not in SCALARS
        return NamedSections(arguments[1], variants or {}) if named else Dictionary(_scalar(arguments[1], where))
    return _scalar(hint, where)


def _scalar(hint: Any, where: str) -> Scalar:
    if hint not in SCALARS:
        raise TypeError(f"{where}: the config has no way to write {hint}")
    return SCALARS[hint]


def find(settings: type[Any], path: tuple[str, ...]) -> Key | None:
    """The key a path leads to, if it is one that has a value; of a free table also the key that the table is."""
    key = keys_of(settings).get(path[0]) if path else None
    match key.shape if key else None:
        case Section(inner):
            return find(inner, path[1:])
        case NamedSections() as named:
            found = (find(inner, path[2:]) for inner in named.all)
            return next((inner for inner in found if inner is not None), None)
        case Dictionary():
            return key if len(path) <= 2 else None
    return key if len(path) == 1 else None
