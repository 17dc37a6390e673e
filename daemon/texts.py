"""Make anything fit into a Postgres text or jsonb: what somebody says must never block his row."""

from __future__ import annotations

from typing import Any

import orjson

REASON_MAX = 2000
"""Characters kept of a reason; the full trace is in the error."""


def plain(text: str, limit: int = REASON_MAX) -> str:
    """`text` without NUL and lone surrogates, which Postgres refuses, cut to `limit` characters."""
    return text[:limit].replace("\0", "�").encode("utf-8", "replace").decode()


def json_text(value: Any) -> str:
    """`value` as JSON that jsonb takes; what has no JSON form is written as its text."""
    try:
        encoded = orjson.dumps(value, default=_as_text, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, or nesting beyond orjson's limit
        encoded = orjson.dumps(_washed(value, 100), default=_as_text)
    if b"\\u0000" in encoded:
        encoded = orjson.dumps(_washed(orjson.loads(encoded), 1000), default=_as_text)
    return encoded.decode()


def _as_text(value: Any) -> Any:
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


def _washed(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return plain(value, 1 << 20)
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {plain(str(name), 1000): _washed(item, depth - 1) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_washed(item, depth - 1) for item in value]
    if isinstance(value, (int, float, bool)) or value is None:
        return value if not isinstance(value, int) or -(2**63) <= value < 2**64 else str(value)
    return plain(str(value), 1 << 20)
