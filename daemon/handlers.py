"""Import the modules that register kinds, and choose those this daemon serves."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from daemon.pattern import matches
from jobs.registry import KINDS, Kind

BUILT_IN = (
    "jobs.webhook.handler",
    "jobs.webhook.replay",
    "jobs.email.handler",
    "jobs.email.forward",
    "jobs.email.bounce",
    "jobs.email.unsubscribe",
    "jobs.push.handler",
    "jobs.sms.handler",
    "jobs.dns.handler",
    "jobs.dns.domain_check",
    "jobs.heartbeat",
)


class HandlerError(Exception):
    """A module of daemon.handlers cannot be used; the message names it and says why."""


def load_kinds(modules: Iterable[str], served: Iterable[str]) -> dict[str, Kind]:
    """Every registered kind that one of the patterns `served` matches.  Modules may lie in the working folder."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    for module in BUILT_IN:
        importlib.import_module(module)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a user's module may raise anything while it is imported
            raise HandlerError(f"daemon.handlers: {module!r} cannot be imported: {error!r}") from error
    patterns = tuple(served)
    return {name: kind for name, kind in KINDS.items() if any(matches(pattern, name) for pattern in patterns)}
