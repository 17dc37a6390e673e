"""How objects are called: paths that mean the same in every store, and on every disk."""

from __future__ import annotations

import re

LONGEST = 512

_SEGMENT = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9._=-]{0,199}")
_ELSE = re.compile(r"[^A-Za-z0-9_]+")


def is_path(text: str) -> bool:
    """Whether it names an object, and can mean no other place."""
    return len(text) <= LONGEST and all(_SEGMENT.fullmatch(segment) for segment in text.split("/"))


def checked(path: str) -> str:
    """`path` itself; ValueError if it could mean another place: `..`, an empty part, a `/` at either end."""
    if not is_path(path):
        raise ValueError(f"{path[:80]!r} is no path of an object: parts of letters, digits and ._=- between slashes")
    return path


def segment(text: str) -> str:
    """A part of a path that reads like `text`.  Different texts may come to the same."""
    return _ELSE.sub("-", text).strip("-")[:100] or "x"
