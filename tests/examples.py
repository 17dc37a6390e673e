"""How many examples a property is tried on: a fixed number, so that a run costs the same each time."""

from __future__ import annotations

import os

LONG = os.environ.get("JOBSD_LONG") == "1"


def examples(count: int) -> int:
    """`count` of them with JOBSD_LONG=1; a third else, other ones each time."""
    return count if LONG else max(count // 3, 5)
