"""Every verb there is."""

from __future__ import annotations

from typing import Any

from jobs.catalogue.verb import Verb
from jobs.cleanup.expire import EXPIRE
from jobs.cleanup.purge import PURGE
from jobs.cleanup.tokens import TOKENS

VERBS: dict[str, Verb[Any]] = {
    verb.name: verb
    for verb in (
        PURGE,
        EXPIRE,
        TOKENS,
    )
}  # fmt: skip
"""By its name in the config."""
