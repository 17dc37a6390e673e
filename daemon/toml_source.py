"""TOML text → its values, and the line on which each key stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Where = tuple[str | int, ...]
"""The way to a value: keys, and indexes into arrays."""

MAX_BYTES = 1024 * 1024

_TOML_LINE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]*")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'{3,5}", re.DOTALL)


class TomlError(ValueError):
    """The text is not TOML; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class TomlSource:
    """`lines` has an entry for every table, array and value in `values`, except the root."""

    values: Mapping[str, Any]
    lines: Mapping[Where, int]


def read_toml(text: str) -> TomlSource:
    """TomlError if it is not TOML 1.0."""
    text = text.replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
        return TomlSource(values, _Index(text).build())
    except RecursionError as error:
        raise TomlError(1, "arrays or tables are nested too deeply") from error
    except (
        ValueError
    ) as error:  # also a number of more digits than Python converts, which tomllib lets through as it is
        raise _located(error, text) from error


def _located(error: ValueError, text: str) -> TomlError:
    message = str(error)
    if not (match := _TOML_LINE.search(message)):
        return TomlError(1, message)
    line = int(match[1]) if match[1] else text.rstrip("\n").count("\n") + 1
    column = f" (column {match[2]})" if match[2] else ", at the end of the file"
    return TomlError(line, message[: match.start()] + column)


class _Index:
    """Walks text that tomllib has accepted, so it need not check anything: only find keys and step over values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted_to = 0
        self._lines: dict[Where, int] = {}
        self._tables_in: dict[Where, int] = {}

    def build(self) -> dict[Where, int]:
        table: Where = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._array_header()
            elif self._text[self._at] == "[":
                table = self._table_header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._lines

    def _table_header(self) -> Where:
        self._at += 1
        table = self._enter(self._keys())
        self._at += 1
        return table

    def _array_header(self) -> Where:
        self._at += 2
        keys, line = self._keys()
        self._at += 2
        array = (*self._enter((keys[:-1], line)), keys[-1])
        index = self._tables_in.get(array, -1) + 1
        self._tables_in[array] = index
        self._lines.setdefault(array, line)
        self._lines[(*array, index)] = line
        return (*array, index)

    def _enter(self, header: tuple[list[str], int]) -> Where:
        """The table a header's keys lead to: through the newest element wherever they pass an array of tables."""
        keys, line = header
        table: Where = ()
        for key in keys:
            table = (*table, key)
            self._lines.setdefault(table, line)
            if table in self._tables_in:
                table = (*table, self._tables_in[table])
        return table

    def _pair(self, table: Where) -> None:
        keys, line = self._keys()
        where = table
        for key in keys:
            where = (*where, key)
            self._lines.setdefault(where, line)
        self._at += 1
        self._skip(_BLANK)
        self._value(where)

    def _keys(self) -> tuple[list[str], int]:
        """A dotted key and its line; leaves the position on what follows it (`=` or `]`)."""
        self._skip(_BLANK)
        line = self._line_here()
        keys = [self._key()]
        self._skip(_BLANK)
        while self._text[self._at] == ".":
            self._at += 1
            self._skip(_BLANK)
            keys.append(self._key())
            self._skip(_BLANK)
        return keys, line

    def _key(self) -> str:
        if self._text[self._at] == '"':
            return str(tomllib.loads(f"k = {self._skip(_BASIC)}")["k"])
        if self._text[self._at] == "'":
            return self._skip(_LITERAL)[1:-1]
        return self._skip(_BARE_KEY)

    def _value(self, where: Where) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._array(where)
        elif opening == "{":
            self._inline_table(where)
        elif self._text.startswith('"""', self._at):
            self._skip(_LONG_BASIC)
        elif self._text.startswith("'''", self._at):
            self._skip(_LONG_LITERAL)
        elif opening == '"':
            self._skip(_BASIC)
        elif opening == "'":
            self._skip(_LITERAL)
        else:
            self._skip(_BARE_VALUE)

    def _array(self, where: Where) -> None:
        index = 0
        while self._more("]"):
            self._lines[(*where, index)] = self._line_here()
            self._value((*where, index))
            index += 1

    def _inline_table(self, where: Where) -> None:
        while self._more("}"):
            self._pair(where)

    def _more(self, closing: str) -> bool:
        """Steps over an opening bracket or a comma; False, and past it, when the closing one comes next."""
        self._skip(_BLANK)
        if self._text[self._at] != closing:
            self._at += 1
            self._skip(_BLANK)
        if self._text[self._at] != closing:
            return True
        self._at += 1
        return False

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None  # noqa: S101 - tomllib has accepted this text; see build()
        self._at = match.end()
        return match[0]

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line
