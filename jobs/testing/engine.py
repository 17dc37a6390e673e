"""What the kit needs of the daemon, which it may not import: found by its name among the installed entry points."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

import asyncpg

from jobs.clients import Wanted
from jobs.context import Tools
from jobs.registry import AnyHandler, Kind
from jobs.testing.calls import Calls
from jobs.testing.ran import Ran

GROUP = "jobsd.testing"


class Postgres(Protocol):
    """A server of our own, gone when its process or its thread goes."""

    async def start(self) -> str: ...
    async def stop(self) -> None: ...
    def dsn(self, database: str = ...) -> str: ...


class Worker(Protocol):
    """The real engine on one database."""

    @property
    def waits_s(self) -> float | None:
        """The shortest time that a limit told a row to wait, in the last drain."""
        ...

    async def drain(self, stop: Callable[[Ran], bool]) -> list[Ran]:
        """Run everything that is due now, or until `stop` says so of a job that has just ended."""
        ...

    def lose_answer(self) -> None:
        """The next commit of results is made, and the answer to it lost."""
        ...


class Plan(Protocol):
    """A configuration that was read, with the kinds that are served."""

    @property
    def wanted(self) -> Wanted: ...
    @property
    def kinds(self) -> Mapping[str, Kind]: ...

    def worker(self, pool: asyncpg.Pool, tools: Callable[[], Awaitable[Tools]], calls: Calls) -> Worker: ...


class Engine(Protocol):
    """The daemon's half of the kit."""

    def postgres(self, folder: Path) -> Postgres: ...

    async def migrate(self, dsn: str) -> None: ...

    def plan(
        self, config: Mapping[str, Any] | str, handlers: Sequence[str | AnyHandler] | None, concurrency: int
    ) -> Plan:
        """`handlers`: the functions, and modules to import, whose kinds alone are served; None: all that there are."""
        ...


class NoEngine(Exception):
    """jobsd is not installed here, only its packages are on the path."""


def find_engine() -> Engine:
    found = list(entry_points(group=GROUP, name="engine"))
    if not found:
        raise NoEngine("jobsd is not installed in this environment, or not since it has a test kit: pip install jobsd")
    return cast(Engine, found[0].load()())
