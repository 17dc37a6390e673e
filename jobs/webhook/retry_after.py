"""How long a receiver asks to be left alone: the Retry-After header (RFC 9110, 10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MIN_S = 1.0
_MAX_LENGTH = 64


def retry_after_s(value: str | None, now: datetime, max_s: float) -> float | None:
    """Seconds from `now`, held within [1 s, `max_s`]; None for a header that is missing or no seconds and no date."""
    text = (value or "").strip()
    if not text or len(text) > _MAX_LENGTH:
        return None
    asked_s = float(text) if text.isascii() and text.isdigit() else _until(text, now)
    return None if asked_s is None else min(max(asked_s, MIN_S), max_s)


def _until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000", and the two obsolete forms, mean UTC
        date = date.replace(tzinfo=UTC)
    return (date - now).total_seconds()
