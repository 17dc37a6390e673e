"""Every verb there is."""

from __future__ import annotations

from typing import Any

from jobs.catalogue.verb import Verb
from jobs.cleanup.purge import PURGE

VERBS: dict[str, Verb[Any]] = {
    verb.name: verb
    for verb in (
        PURGE,
    )
}  # fmt: skip
"""By its name in the config."""
