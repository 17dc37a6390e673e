"""Names of tables as people write them in the config, taken apart as Postgres would."""

from __future__ import annotations

import re
from typing import NamedTuple

_PLAIN = r"[A-Za-z_][A-Za-z0-9_$]*"
_QUOTED = r'"(?:[^"\x00]|"")+"'
_TABLE = re.compile(rf"(?:({_PLAIN}|{_QUOTED})\.)?({_PLAIN}|{_QUOTED})")
NAME_BYTES = 63


class TableName(NamedTuple):
    """`schema` None: looked for along the search_path."""

    schema: str | None
    name: str


def table_name(text: str) -> TableName:
    """`App.Users` is app.users, `app."Users"` is not; ValueError where it is no name of a table."""
    found = _TABLE.fullmatch(text)
    if found is None:
        raise ValueError(f"""{text!r} is no table; write it like "app.sessions", or 'app."Odd name"'""")
    schema, name = (None if part is None else _unquoted(part) for part in found.groups())
    return TableName(schema, name or "")


def column_name(text: str) -> str:
    """A column as the table has it, without quotes; ValueError where it can be none."""
    if not text or "\0" in text or len(text.encode()) > NAME_BYTES:
        raise ValueError(f"{text[:NAME_BYTES]!r} can be no column: 1 to {NAME_BYTES} bytes")
    return text


def _unquoted(part: str) -> str:
    name = part[1:-1].replace('""', '"') if part.startswith('"') else part.lower()
    if len(name.encode()) > NAME_BYTES:
        raise ValueError(f"{part[:NAME_BYTES]!r} is longer than {NAME_BYTES} bytes")
    return name
