"""Every verb there is."""

from __future__ import annotations

from typing import Any

from jobs.catalogue.verb import Verb
from jobs.cleanup.purge import PURGE
from jobs.monitor.verb import MONITOR

VERBS: dict[str, Verb[Any]] = {
    verb.name: verb
    for verb in (
        PURGE,
        MONITOR,
    )
}  # fmt: skip
"""By its name in the config."""
