"""Every verb there is."""

from __future__ import annotations

from typing import Any

from jobs.accounts.erase import ERASE
from jobs.accounts.export import EXPORT
from jobs.catalogue.verb import Verb
from jobs.cleanup.expire import EXPIRE
from jobs.cleanup.purge import PURGE
from jobs.cleanup.tokens import TOKENS
from jobs.monitor.verb import MONITOR
from jobs.usage.rollup import ROLLUP
from jobs.usage.threshold import THRESHOLD

VERBS: dict[str, Verb[Any]] = {
    verb.name: verb
    for verb in (
        PURGE,
        EXPIRE,
        TOKENS,
        ROLLUP,
        THRESHOLD,
        EXPORT,
        ERASE,
        MONITOR,
    )
}  # fmt: skip
"""By its name in the config."""
