"""The border guard: turns what was given into settings, or says everything that is wrong with it at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from daemon.config_schema import Array, Dictionary, Key, NamedSections, Section, keys_of
from daemon.config_tree import DEFAULT, PROFILE, Given, Origin, Table, dotted
from daemon.config_values import Scalar, found, quoted, shortened
from daemon.secret_file import read_secret

_NAME = (re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,63}"), "letters, digits and _ . : @ -, at most 64")
_FIELD = re.compile(r"(\w+):\s*")
_WORD = re.compile(r"\w+")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or doubtful: where it stands, which key it is, what is the matter and what to do."""

    origin: Origin
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.origin.text, self.path, self.message) if part)


class Checker:
    """Reads tables into settings; `problems`, and `origins` by dotted path, grow as it goes."""

    def __init__(self, root: type[Any], profile: str) -> None:
        self.problems: list[Problem] = []
        self.origins: dict[str, Origin] = {}
        self._root = root
        self._profile = profile

    def settings(self, kind: type[Any], table: Table, path: Path = ()) -> Any:
        """An instance of `kind`, or None when something in `table` is wrong."""
        seen = len(self.problems)
        given = self._known(kind, table, path)
        self._secrets(kind, given, path)
        values, wrong = self._values(kind, given, table, path)
        if not any(key.required for key in wrong):
            built = self._build(kind, values, {key.name for key in wrong}, given, table, path)
            return built if len(self.problems) == seen else None
        return None

    def _values(
        self, kind: type[Any], given: dict[str, Table | Given], table: Table, path: Path
    ) -> tuple[dict[str, Any], list[Key]]:
        """By attribute; and the keys whose values are wrong and have been replaced by their defaults."""
        values: dict[str, Any] = {}
        wrong: list[Key] = []
        for key in keys_of(kind).values():
            if key.attribute:
                seen = len(self.problems)
                values[key.attribute] = self._value(key, given.get(key.name), table, (*path, key.name))
                if len(self.problems) > seen:
                    wrong.append(key)
                    values[key.attribute] = key.default
        return values, wrong

    def _build(
        self,
        kind: type[Any],
        values: dict[str, Any],
        wrong: set[str],
        given: dict[str, Table | Given],
        table: Table,
        path: Path,
    ) -> Any:
        """Asks the section itself, which raises ValueError for the first thing it refuses: a rule about several keys,
        or the inside of one.  With that replaced by its default it is asked again, so that nothing stays unsaid."""
        keys = keys_of(kind)
        while True:
            try:
                return kind(**values)
            except ValueError as error:
                message = str(error)
            match = _FIELD.match(message)
            name = match[1].removesuffix("_") if match and match[1].removesuffix("_") in keys else ""
            if match and name:
                message = message[match.end() :]
            if name not in wrong and not wrong & set(_WORD.findall(message)):  # else it may be about the replacement
                origin = given[name].origin if name in given else table.origin
                self._problem(origin, (*path, name) if name else path, message)
            if not name or name in wrong or keys[name].required:
                return None
            wrong = wrong | {name}
            values[str(keys[name].attribute)] = keys[name].default

    def _known(self, kind: type[Any], table: Table, path: Path) -> dict[str, Table | Given]:
        """What `table` has under keys that `kind` knows; `"args.account"` is `args.account`."""
        keys = keys_of(kind)
        given = Table(table.origin)
        for name, item in table.items.items():
            stem, _, inner = name.partition(".")
            if name in keys:
                given = Table(table.origin, {name: item}).lay_over(given)
            elif inner and stem in keys and isinstance(keys[stem].shape, Dictionary):
                given = Table(table.origin, {stem: Table(item.origin, {inner: item})}).lay_over(given)
            else:
                self._problem(item.origin, (*path, name), self._unknown(name, item, keys, path))
        return given.items

    def _unknown(self, name: str, item: Table | Given, keys: Collection[str], path: Path) -> str:
        here = f"[{dotted(path)}]" if path else "the file"
        close = difflib.get_close_matches(name, keys, 1)
        if not path and isinstance(item, Table):
            known = [f"[{key}]" for key in keys if key != "profile"]
            return (
                f"unknown section; did you mean [{close[0]}]?"
                if close
                else f"unknown section; there are {' '.join(known)}"
            )
        homes = [f"[{key.name}]" for key in keys_of(self._root).values() if _has(key, name)]
        if close and not (homes and not path):  # no section has keys of its own name: a key lost its section
            return f"unknown key; did you mean {close[0]}?"
        if homes:
            return f"unknown key in {here}; it belongs in {' or '.join(homes)}"
        return f"unknown key; {here} has {', '.join(keys)}"

    def _secrets(self, kind: type[Any], given: dict[str, Table | Given], path: Path) -> None:
        """Of secret `X` and `X_file`, keeps the one of higher rank, and puts the file's content in the place of `X`."""
        for key in [key for key in keys_of(kind).values() if key.secret]:
            name = f"{key.name}_file"
            secret, file = given.get(key.name), given.get(name)
            if not isinstance(file, Given) or file.value is None:
                continue
            if secret is not None and secret.origin.rank == file.origin.rank:
                self._problem(file.origin, (*path, name), f"give {key.name} or {name}, not both")
            elif secret is not None and secret.origin.rank > file.origin.rank:
                del given[name]
            elif keys_of(kind)[name].attribute:  # the section reads the file itself, later
                given.pop(key.name, None)
            else:
                self._read_secret(given, key, file, path)

    def _read_secret(self, given: dict[str, Table | Given], key: Key, file: Given, path: Path) -> None:
        name = f"{key.name}_file"
        origin = replace(file.origin, text=f"{file.origin.text} ({name})") if file.origin.line else file.origin
        try:
            given[key.name] = Given(read_secret(file.value), origin)
        except ValueError as error:
            self._problem(file.origin, (*path, name), str(error))

    def _value(self, key: Key, item: Table | Given | None, table: Table, path: Path) -> Any:
        match key.shape:
            case Section(kind):
                return self._section(kind, item or Table(table.origin), path)
            case NamedSections() as named:
                return self._named(named, item or Table(table.origin), path)
        if item is None:
            return self._default(key, table, path)
        self.origins[dotted(path)] = item.origin
        return self._read(key, item, path)

    def _section(self, kind: type[Any], item: Table | Given, path: Path) -> Any:
        if isinstance(item, Table):
            return self.settings(kind, item, path)
        self._problem(item.origin, path, f"{found(item.value)} stands where a section [{dotted(path)}] belongs")
        return None

    def _named(self, sections: NamedSections, item: Table | Given, path: Path) -> dict[str, Any]:
        if not isinstance(item, Table):
            self._problem(item.origin, path, f"{found(item.value)} stands where sections [{dotted(path)}.NAME] belong")
            return {}
        pattern, allowed = getattr(sections.settings, "NAMES", _NAME)
        for name, inner in item.items.items():
            if not pattern.fullmatch(name):
                self._problem(inner.origin, path, f"{quoted(shortened(name))} cannot be a name here: {allowed}")
        return {name: self._one(sections, inner, (*path, name)) for name, inner in item.items.items()}

    def _one(self, sections: NamedSections, item: Table | Given, path: Path) -> Any:
        """A section of the variant that its first key names; without it nobody knows which keys there are."""
        if not sections.variants or not isinstance(item, Table):
            return self._section(sections.settings, item, path)
        key = keys_of(sections.settings)[sections.selector]
        given = item.items.get(key.name)
        word = given.value if isinstance(given, Given) else None
        if isinstance(word, str) and word in sections.variants:
            return self._section(sections.variants[word], item, path)
        allowed = ", ".join(map(quoted, sections.variants))
        if given is None:
            self._problem(item.origin, (*path, key.name), f"is missing. {key.doc} One of {allowed}")
            return None
        close = difflib.get_close_matches(str(word), sections.variants, 1)
        hint = f"; did you mean {quoted(close[0])}?" if close else ""
        said = (
            quoted(shortened(word))
            if isinstance(word, str)
            else found(given.plain() if isinstance(given, Table) else word)
        )
        self._problem(given.origin, (*path, key.name), f"{said} is none of {allowed}{hint}")
        return None

    def _default(self, key: Key, table: Table, path: Path) -> Any:
        if key.required:
            self._problem(table.origin, path, f"is missing. {key.doc}")
            return None
        self.origins[dotted(path)] = DEFAULT if key.default_in(self._profile) == key.default else PROFILE
        default = key.default_in(self._profile)
        return dict(default) if isinstance(default, dict) else default

    def _read(self, key: Key, item: Table | Given, path: Path) -> Any:
        value = item.plain() if isinstance(item, Table) else item.value
        if value is None and key.optional:
            return None
        try:
            match key.shape:
                case Array(scalar):
                    return tuple(
                        _element(key, scalar, i, v) for i, v in enumerate(_is((list, tuple), value, "an array"), 1)
                    )
                case Dictionary(scalar):
                    return {k: _within(key, scalar, v) for k, v in _is(dict, value, "a table").items()}
                case Scalar() as scalar:
                    return _within(key, scalar, value)
        except ValueError as error:
            self._problem(item.origin, path, str(error))

    def _problem(self, origin: Origin, path: Path, message: str) -> None:
        self.problems.append(Problem(origin, dotted(path), message))


def _has(section: Key, name: str) -> bool:
    match section.shape:
        case Section(settings):
            return name in keys_of(settings)
        case NamedSections() as sections:
            return any(name in keys_of(settings) for settings in sections.all)
    return False


def _is(kind: type[Any] | tuple[type[Any], ...], value: Any, word: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{found(value)} stands where {word} belongs")
    return value


def _element(key: Key, scalar: Scalar, index: int, value: Any) -> Any:
    try:
        return _within(key, scalar, value)
    except ValueError as error:
        raise ValueError(f"item {index}: {error}") from None


def _within(key: Key, scalar: Scalar, value: Any) -> Any:
    """`value` as the key's type; ValueError if it is none, out of bounds, or not among the choices."""
    read = scalar.read(value)
    if key.choices and read not in key.choices:
        close = difflib.get_close_matches(str(read), key.choices, 1)
        hint = f"; did you mean {quoted(close[0])}?" if close else ""
        raise ValueError(f"{quoted(shortened(read))} is none of {', '.join(map(quoted, key.choices))}{hint}")
    if key.minimum is not None and read < key.minimum:
        raise ValueError(f"{scalar.text(read)} is too small; at least {scalar.text(key.minimum)}")
    if key.maximum is not None and read > key.maximum:
        raise ValueError(f"{scalar.text(read)} is too large; at most {scalar.text(key.maximum)}")
    return read
