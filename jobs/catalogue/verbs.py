"""Every verb there is, each imported when it is first asked for: a command that has nothing to do with them would spend
a fifth of the time in which it begins on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

from jobs.catalogue.settings import JobSettings
from jobs.catalogue.verb import Verb

T = TypeVar("T")

PLACES = {
    "purge": "jobs.cleanup.purge:PURGE",
    "expire": "jobs.cleanup.expire:EXPIRE",
    "tokens": "jobs.cleanup.tokens:TOKENS",
    "rollup": "jobs.usage.rollup:ROLLUP",
    "threshold": "jobs.usage.threshold:THRESHOLD",
    "export_account": "jobs.accounts.export:EXPORT",
    "erase_account": "jobs.accounts.erase:ERASE",
    "verify_domains": "jobs.upkeep.verify_domains:VERIFY_DOMAINS",
    "forward_retry": "jobs.upkeep.forward_retry:FORWARD_RETRY",
    "monitor": "jobs.monitor.verb:MONITOR",
}


class _ByName(Mapping[str, T]):
    """Of each verb what `find` makes of its name, when it is asked for."""

    def __init__(self, find: Callable[[str], T]) -> None:
        self._find = find

    def __getitem__(self, name: str) -> T:
        return self._find(name)

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)

    def __contains__(self, name: object) -> bool:
        return name in PLACES


def _verb(name: str) -> Verb[Any]:
    module, _, attribute = PLACES[name].partition(":")
    verb: Verb[Any] = getattr(import_module(module), attribute)
    return verb


def _settings(name: str) -> type[JobSettings]:
    settings: type[JobSettings] = _verb(name).settings
    return settings


VERBS = _ByName(_verb)
"""By its name in the config."""

SETTINGS = _ByName(_settings)
"""What a job of each says."""
