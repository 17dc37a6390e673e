"""Names with `*` in them, which stands for any characters or none: `org:*:notifications`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def is_pattern(name: str) -> bool:
    return "*" in name


def matches(pattern: str, name: str) -> bool:
    return _compiled(pattern).fullmatch(name) is not None


def most_specific(patterns: Iterable[str], name: str) -> str | None:
    """The matching pattern with the most letters of its own, then the fewest stars; a plain name beats any pattern."""
    found = [pattern for pattern in patterns if matches(pattern, name)]
    return max(found, key=_specificity, default=None)


def _specificity(pattern: str) -> tuple[bool, int, int, str]:
    stars = pattern.count("*")
    return stars == 0, len(pattern) - stars, -stars, pattern


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    # one star where several stand side by side means the same, and keeps the search from growing with their number
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", pattern)), re.DOTALL)
