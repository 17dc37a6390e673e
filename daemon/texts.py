"""Make anything fit into a Postgres text or jsonb: what somebody says must never block his row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time
from itertools import count
from typing import Any

import orjson

REASON_MAX = 2000
"""Characters kept of a reason; the full trace is in the error."""

# orjson 3.13 ends the process when a datetime's tzinfo raises, so times are written by ourselves
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME

_DEPTH_MAX = 100
_NODES_MAX = 10_000
"""Bounds of what is copied of a value that has no plain JSON form: it may hold itself, many times."""


def plain(text: object, limit: int = REASON_MAX) -> str:
    """`text` without NUL and lone surrogates, which Postgres refuses, cut to `limit` characters."""
    return _said(text)[:limit].replace("\0", "�").encode("utf-8", "replace").decode()


def json_text(value: Any) -> str:
    """`value` as JSON that jsonb takes; what has no JSON form is written as its text."""
    try:
        encoded = orjson.dumps(value, default=_as_json, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, or nesting beyond orjson's limit
        encoded = orjson.dumps(_washed(value, _DEPTH_MAX, count()))
    if b"\\u0000" in encoded:
        encoded = orjson.dumps(_washed(orjson.loads(encoded), _DEPTH_MAX, count()))
    return encoded.decode()


def _as_json(value: Any) -> Any:
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, (date, time)):
        return _iso(value)
    return _said(value)


def _iso(value: date | time) -> str:
    """RFC 3339 as orjson writes it; a datetime is a date."""
    try:
        return value.isoformat()
    except Exception as error:  # a stranger's tzinfo may do anything
        return f"<{type(value).__name__}, whose zone raises {type(error).__name__}>"


def _washed(value: Any, depth: int, nodes: Iterator[int]) -> Any:
    if isinstance(value, str):
        return plain(value, 1 << 20)
    if isinstance(value, (int, float)) or value is None:
        return value if not isinstance(value, int) or -(2**63) <= value < 2**64 else hex(value)
    if depth == 0 or next(nodes) >= _NODES_MAX:
        return "…"
    if isinstance(value, dict):
        return {plain(name, 1000): _washed(item, depth - 1, nodes) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_washed(item, depth - 1, nodes) for item in value]
    return plain(_as_json(value), 1 << 20)


def _said(value: object) -> str:
    """Its text.  A stranger's __str__ may do anything; the daemon goes on."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose text raises {type(error).__name__}>"
