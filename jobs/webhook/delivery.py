"""The delivery log's row: one per attempt, safe for Postgres and free of secrets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jobs.context import Ledger

LEDGER = Ledger("webhook_deliveries")

# Enough to see who answered and why; others may carry the receiver's cookies and tokens.
_SHOWN = frozenset(
    [
        *("cf-ray", "content-length", "content-type", "date", "location", "request-id", "retry-after", "server", "via"),
        *("x-amzn-requestid", "x-request-id"),
    ]
)
_MAX_VALUE = 1024


def row(
    *,
    word: str,
    code: str,
    url: str,
    event: str | None = None,
    event_id: int | None = None,
    endpoint: str | None = None,
    endpoint_id: int | None = None,
    replay_id: int | None = None,
    began_at: float | None = None,
    status: int | None = None,
    address: str | None = None,
    phases_s: Mapping[str, float] | None = None,
    duration_s: float = 0.0,
    request_bytes: int = 0,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    truncated: bool = False,
) -> dict[str, Any]:
    """`endpoint` is its name, `began_at` seconds since 1970.  `address` is for operators only.  Phases and duration in
    milliseconds; `response_body` is text whatever the bytes were."""
    return {
        "endpoint": endpoint,
        "endpoint_id": endpoint_id,
        "event": event,
        "event_id": event_id,
        "replay_id": replay_id,
        "began_at": began_at,
        "url": shown_url(url),
        "outcome": word,
        "code": code,
        "status": status,
        "address": address,
        "phases": {name: round(seconds * 1000, 2) for name, seconds in (phases_s or {}).items()},
        "duration_ms": round(duration_s * 1000, 2),
        "request_bytes": request_bytes,
        "response_headers": shown_headers(headers) if headers else {},
        "response_body": clean(body.decode("utf-8", "replace")) if body else "",
        "response_truncated": truncated,
    }


def clean(text: str) -> str:
    """`text` without what Postgres refuses: NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


@lru_cache(maxsize=4096)
def shown_url(url: str) -> str:
    """`url` without user name and password, its query's values masked: that is where receivers put their tokens."""
    base, _, _ = url.partition("#")
    base, mark, query = base.partition("?")
    scheme, slashes, rest = base.partition("//")
    authority, slash, path = rest.partition("/")
    keys = "&".join(f"{pair.partition('=')[0]}=***" if "=" in pair else "***" for pair in query.split("&"))
    shown = f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}{mark}{keys if query else ''}"
    return clean(shown)[:_MAX_VALUE]


def shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of the allow list, values shortened; Location is masked as a URL."""
    shown: dict[str, str] = {}
    for name, value in headers.items():
        if (lower := name.lower()) in _SHOWN and lower not in shown:  # of one that came twice the first
            shown[lower] = shown_url(value) if lower == "location" else clean(value)[:_MAX_VALUE]
    return shown
