"""Time zones that the config names."""

from __future__ import annotations

from zoneinfo import ZoneInfo


def check_zone(field: str, name: str) -> None:
    """ValueError that names the key."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # none of that name, none that can be one
        raise ValueError(f'{field}: {name!r} is none; write it like "Europe/Warsaw"') from None
