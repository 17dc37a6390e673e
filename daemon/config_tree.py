"""What was given, and by whom: the file, the environment and the command line laid over each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.config_values import bare
from daemon.toml_source import TomlSource, Where


@dataclass(frozen=True, slots=True)
class Origin:
    """Who gave a value.  A higher `rank` wins; `text` is what `config show --origin` prints: `config.toml:12`."""

    text: str
    rank: int
    line: int = 0


SHIPPED_RANK, CREDENTIAL_RANK, FILE_RANK, DATABASE_URL_RANK, ENV_RANK, OVERRIDE_RANK = range(6)

DEFAULT = Origin("default", SHIPPED_RANK)
PROFILE = Origin("profile", SHIPPED_RANK)
OVERRIDE = Origin("command line", OVERRIDE_RANK)


@dataclass(frozen=True, slots=True)
class Given:
    """A value as TOML would have it."""

    value: Any
    origin: Origin


@dataclass(slots=True)
class Table:
    """A table of the file, or one that stands in for it."""

    origin: Origin
    items: dict[str, Table | Given] = field(default_factory=dict)

    def put(self, path: tuple[str, ...], given: Table | Given) -> None:
        """Set one value, making the tables on the way; a value in the way gives place to the table."""
        table = self
        for name in path[:-1]:
            inner = table.items.get(name)
            if not isinstance(inner, Table):
                inner = table.items[name] = Table(given.origin)
            table = inner
        table.items[path[-1]] = given

    def lay_over(self, under: Table) -> Table:
        """This table's keys, and those of `under` that it does not have."""
        items = dict(under.items)
        for name, above in self.items.items():
            below = items.get(name)
            both = isinstance(above, Table) and isinstance(below, Table)
            items[name] = above.lay_over(below) if both else above  # type: ignore[union-attr,arg-type]  # narrowed by `both`
        return Table(self.origin, items)

    def plain(self) -> dict[str, Any]:
        """As tomllib would have it."""
        return {k: v.plain() if isinstance(v, Table) else v.value for k, v in self.items.items()}


def file_table(source: TomlSource, name: str) -> Table:
    """The tree of a TOML file called `name`."""
    return _table(source.values, (), name, source.lines)


def _table(values: Mapping[str, Any], where: Where, name: str, lines: Mapping[Where, int]) -> Table:
    items: dict[str, Table | Given] = {}
    for key, value in values.items():
        here = (*where, key)
        if isinstance(value, dict):
            items[key] = _table(value, here, name, lines)
        else:
            items[key] = Given(value, Origin(f"{name}:{lines[here]}", FILE_RANK, lines[here]))
    line = lines.get(where, 1)
    return Table(Origin(f"{name}:{line}", FILE_RANK, line), items)


def value_table(values: Mapping[str, Any], origin: Origin) -> Table:
    """The tree of nested dictionaries that all came from one place."""
    items = {k: value_table(v, origin) if isinstance(v, Mapping) else Given(v, origin) for k, v in values.items()}
    return Table(origin, items)


def dotted(path: tuple[str, ...]) -> str:
    """`queues."org:*".concurrency`."""
    return ".".join(bare(name) for name in path)


def nearest(path: tuple[str, ...], origins: Mapping[str, Origin]) -> Origin:
    """Where the key was given, by dotted path; else the first one given in its section, or in the one around it."""
    if (exact := origins.get(dotted(path), DEFAULT)).rank:
        return exact
    for section in (path, path[:-1]):
        inside = [at for key, at in origins.items() if key.startswith(dotted(section) + ".") and at.rank]
        if inside:
            return min(inside, key=lambda at: at.line)
    return exact
