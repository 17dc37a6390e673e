"""How one value is read from the config, written back, and named in an error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.settings import Dsn
from jobs.values import Duration, Rate, Secret, Size, duration, duration_text, rate, size, size_text

MASK = "***"
MAX_DURATION_S = 100 * 365 * 86400.0
MAX_SIZE = 2**50
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Scalar:
    """`read` takes what TOML has (or raises ValueError), `text` gives what TOML would have, secrets masked.

    `word` says what is wanted; `parse` makes TOML's value of an environment variable's text, or raises ValueError.
    """

    word: str
    example: str
    read: Callable[[Any], Any]
    text: Callable[[Any], str]
    parse: Callable[[str], Any] = str
    json_type: str | tuple[str, ...] = "string"

    def plain(self, value: Any) -> Any:
        """`value` as JSON has it: what TOML has, secrets masked."""
        text = self.text(value)
        return json.loads(text) if text.startswith('"') else value


def found(value: Any) -> str:
    """What stood there, in TOML's words: `the string "x"`, `a table`."""
    match value:
        case bool():
            return f"the boolean {str(value).lower()}"
        case int():
            return f"the integer {shortened(hex(value) if abs(value) > 10**20 else str(value))}"
        case float():
            return f"the number {value}"
        case str():
            return f"the string {quoted(shortened(value))}"
        case dict():
            return "a table"
        case list():
            return "an array"
    return f"the {type(value).__name__} {value}"


def shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quoted(text: str) -> str:
    """`text` as a basic TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{found(value)} stands where a string belongs")
    if "\0" in value:
        raise ValueError("has a NUL character, which Postgres refuses")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("is not UTF-8") from None
    return value


def _read_secret(value: Any) -> str:
    if not isinstance(value, str):  # and it is not repeated here: it may well be the secret
        raise ValueError("a string belongs here")
    return _read_str(value)


def _read_path(value: Any) -> Path:
    path = str(value) if isinstance(value, Path) else _read_str(value)
    if not path:
        raise ValueError("is an empty path")
    return Path(path)


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{found(value)} stands where an integer belongs")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{found(value)} is out of range")
    return value


def _read_float(value: Any) -> float:
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, float):
        raise ValueError(f"{value} is no amount")
    return float(_read_int(value))


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{found(value)} stands where true or false belongs")
    return value


def _short(text: str) -> str:
    """The expressions that take amounts apart need the square of a long text's length."""
    if len(text) > 60:
        raise ValueError(f"{quoted(shortened(text))} is too long")
    return text


def _read_duration(value: Any) -> Duration:
    if not isinstance(value, str):
        hint = f'; write it with its unit, like "{value}s"' if type(value) in (int, float) else ""
        raise ValueError(f"{found(value)} stands where a duration belongs{hint}")
    seconds = duration(_short(value))
    if seconds and not 0.001 <= seconds <= MAX_DURATION_S:
        raise ValueError(f"{quoted(shortened(value))} is out of range: 0, or 1ms to 36500d")
    return seconds


def _read_size(value: Any) -> Size:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{found(value)} stands where a size belongs")
    count = size(value if isinstance(value, int) else _short(value))
    if not 0 <= count <= MAX_SIZE:
        raise ValueError(f"{found(value)} is out of range: 0 to 1048576GiB")
    return count


def _read_rate(value: Any) -> Rate:
    read = rate(_short(_read_str(value)))
    if not 1e-6 <= read.per_second <= 1e6:
        raise ValueError(f"{quoted(shortened(value))} is out of range: up to a million a second, from one in ten days")
    return read


def _read_int_or_str(value: Any) -> int | str:
    return _read_str(value) if isinstance(value, str) else _read_int(value)


def _read_json(value: Any, depth: int = 0) -> Any:
    """What a jsonb column takes: no dates, no NaN, no integers beyond 64 bits, no NUL."""
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    match value:
        case dict():
            return {_read_str(name): _read_json(inner, depth + 1) for name, inner in value.items()}
        case list():
            return [_read_json(inner, depth + 1) for inner in value]
        case bool():
            return value
        case int():
            return _read_int(value)
        case float():
            return _read_float(value)
        case str():
            return _read_str(value)
    raise ValueError(f"{found(value)} is not JSON; write it as a string")


def _parse_bool(text: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if (word := text.strip().lower()) not in known:
        raise ValueError(f"{quoted(shortened(text))} is neither true nor false")
    return known[word]


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{quoted(shortened(text))} is no integer") from None


def _parse_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{quoted(shortened(text))} is no number") from None


def _parse_int_or_str(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None


def toml_json(value: Any) -> str:
    """A JSON-like value as TOML, tables inline."""
    match value:
        case dict():
            return "{" + ", ".join(f"{bare(name)} = {toml_json(inner)}" for name, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(toml_json(inner) for inner in value) + "]"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
    return str(value)


def bare(name: str) -> str:
    """A key of TOML, quoted where it must be."""
    plain = name.isascii() and name.replace("-", "_").replace("_", "a").isalnum()
    return name if plain else quoted(name)


SCALARS: dict[Any, Scalar] = {
    str: Scalar("string", "", _read_str, quoted),
    int: Scalar("integer", "10", _read_int, str, _parse_int, "integer"),
    float: Scalar("number", "0.5", _read_float, str, _parse_float, "number"),
    bool: Scalar("boolean", "true", _read_bool, lambda v: str(v).lower(), _parse_bool, "boolean"),
    int | str: Scalar("integer or string", "80", _read_int_or_str, toml_json, _parse_int_or_str, ("integer", "string")),
    Duration: Scalar("duration", "30s", _read_duration, lambda v: quoted(duration_text(v))),
    Size: Scalar("size", "64KiB", _read_size, lambda v: quoted(size_text(v)), json_type=("string", "integer")),
    Rate: Scalar("rate", "10/s", _read_rate, lambda v: quoted(v.text)),
    Secret: Scalar("secret", "", lambda v: Secret(_read_secret(v)), lambda _: quoted(MASK)),
    Dsn: Scalar("secret", "postgresql:///shop", lambda v: Dsn(_read_secret(v)), lambda v: quoted(v.shown)),
    Path: Scalar("path", "/etc/jobsd", _read_path, lambda v: quoted(str(v))),
    Any: Scalar("value", "", _read_json, toml_json, parse_json, ()),
}
"""By annotation."""
