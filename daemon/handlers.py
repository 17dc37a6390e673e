"""Import the modules that register kinds, and choose those this daemon serves."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from daemon.pattern import matches
from jobs.catalogue.kinds import kinds
from jobs.catalogue.settings import JobSettings
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


NO_JOBS: Mapping[str, JobSettings] = {}


def load_kinds(
    modules: Iterable[str], served: Iterable[str], jobs: Mapping[str, JobSettings] = NO_JOBS
) -> dict[str, Kind]:
    """Every kind that one of the patterns `served` matches, of those that are registered and of the config's `jobs`.
    Modules may lie in the working folder."""
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
    if taken := sorted(KINDS.keys() & jobs.keys()):
        raise HandlerError(f"jobs.{taken[0]}: there is a kind of this name already; call the job otherwise")
    patterns = tuple(served)
    known = {**KINDS, **kinds(jobs)}
    return {name: kind for name, kind in known.items() if any(matches(pattern, name) for pattern in patterns)}
