"""When deliveries to an endpoint are tried again: ladders by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jobs.model import Ladder
from jobs.values import Duration, key

DEFAULT = "default"
"""As kind webhook is tried again: by its own ladder, or by [kinds.webhook]."""

STANDARD = "standard"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_SHIPPED = {STANDARD: Ladder("5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h")}  # Standard Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSettings:
    """One `[webhook.profiles.NAME]` section."""

    NAMES: ClassVar = (_NAME, "letters, digits and _ -")

    retry: tuple[Duration, ...] = key(
        (), "The waits before attempt 2, 3, …; after the last there is no more. Unset: one attempt."
    )
    jitter: float = key(0.2, "Spread each wait by this share up and down.", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        if any(wait < 0 for wait in self.retry):
            raise ValueError("retry: a wait cannot be negative")


def ladder(profiles: Mapping[str, ProfileSettings], name: str) -> Ladder | None:
    """The one of that name; None: there is no other than the kind's."""
    if (found := profiles.get(name)) is not None:
        return Ladder(*found.retry, jitter=found.jitter)
    return _SHIPPED.get(name)


def names(profiles: Mapping[str, ProfileSettings]) -> list[str]:
    """All that an endpoint may choose from."""
    return sorted({DEFAULT, *_SHIPPED, *profiles})
