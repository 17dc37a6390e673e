"""Values people write in the config and what they mean: durations, sizes, rates, secrets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NewType

Duration = NewType("Duration", float)
"""Seconds.  Written as "250ms", "30s", "5m", "2h", "30d", "1h30m"; "0" is zero."""

Size = NewType("Size", int)
"""Bytes.  Written as "512", "64KiB", "1MiB", "2GiB"."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_BYTES = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(ms|s|m|h|d)")


def duration(text: str | float | timedelta) -> Duration:
    """Seconds of "1h30m", 5400 or a timedelta; ValueError names what is wrong with it."""
    if isinstance(text, timedelta):
        return Duration(text.total_seconds())
    if isinstance(text, (int, float)):
        return Duration(float(text))
    if text == "0":
        return Duration(0.0)
    if len(text) > 60:
        raise ValueError(f"{text[:60]!r}… is not a duration; it is far too long")
    parts = _DURATION.findall(text)
    if not parts or "".join(n + unit for n, unit in parts) != text:
        raise ValueError(f'{text!r} is not a duration; write one like "250ms", "30s", "5m", "2h", "30d" or "1h30m"')
    return Duration(sum(float(n) * _SECONDS[unit] for n, unit in parts))


def duration_text(seconds: float) -> str:
    """The shortest way to write it: 5400.0 → "1h30m"."""
    if seconds == 0:
        return "0"
    out, rest_ms = "", round(seconds * 1000)
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest_ms = divmod(rest_ms, round(_SECONDS[unit] * 1000))
        out += f"{count}{unit}" if count else ""
    return out


def size(text: str | int) -> Size:
    """Bytes of "64KiB" or 65536."""
    if isinstance(text, int):
        return Size(text)
    if not (match := _SIZE.fullmatch(text)):
        raise ValueError(f'{text!r} is not a size; write one like "512", "64KiB" or "1MiB"')
    return Size(int(match[1]) * _BYTES[match[2]])


def size_text(count: int) -> str:
    """65536 → "64KiB"."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return str(count)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in each period.  Written as "10/s", "600/m", "5000/h", "20000/d"."""

    count: float
    period_s: float
    text: str

    @property
    def per_second(self) -> float:
        return self.count / self.period_s

    def __str__(self) -> str:
        return self.text


def rate(text: str) -> Rate:
    """The rate of "10/s"."""
    match = _RATE.fullmatch(text)
    if not match or float(match[1]) == 0:
        raise ValueError(f'{text!r} is not a rate; write one like "10/s", "600/m" or "20000/d"')
    return Rate(float(match[1]), _SECONDS[match[2]], text)


class Secret(str):
    """A string that shows itself as `***` in repr, logs and `config show`; compare and use it as the string it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(***)"


def key(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    factory: Callable[[], Any] | None = None,
    name: str | None = None,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    restart: bool = False,
    production: Any = dataclasses.MISSING,
    example: str = "",
    variants: Mapping[str, type[Any]] | None = None,
) -> Any:
    """A field of a settings dataclass: its default, one line on what it changes, and its bounds.

    `default` is the parsed value (`duration("30s")`).  `name` is the key in the file where it is a Python keyword
    (`from`).  `restart` marks what a reload cannot change.  `production` is the default under that profile.
    `example`: TOML that shows how it is written, where the default shows nothing.  `variants`: of named sections, the
    settings classes by the value of their first key.
    The annotation says how the file's value is read: Duration, Size, Rate, Secret, bool, int, float, str,
    tuple[X, ...], dict[str, X], another settings dataclass, or any of these `| None`.
    """
    metadata: Mapping[str, Any] = {
        "doc": doc,
        "name": name,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "restart": restart,
        "production": production,
        "example": example,
        "variants": variants,
    }
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
