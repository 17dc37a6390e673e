"""Every verb there is."""

from __future__ import annotations

from typing import Any

from jobs.catalogue.verb import Verb
from jobs.cleanup.purge import PURGE
from jobs.usage.rollup import ROLLUP
from jobs.usage.threshold import THRESHOLD

VERBS: dict[str, Verb[Any]] = {
    verb.name: verb
    for verb in (
        PURGE,
        ROLLUP,
        THRESHOLD,
    )
}  # fmt: skip
"""By its name in the config."""
