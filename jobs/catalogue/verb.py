"""What a verb is: settings, what they need of the database, and what to do about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from jobs.catalogue.ground import Table
from jobs.catalogue.needs import Fault, Need
from jobs.catalogue.settings import JobSettings
from jobs.context import Context

S = TypeVar("S", bound=JobSettings)

Result = dict[str, Any]
"""What a run came to, as JSON: whole numbers are counted, by their name."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Args of a job of the config: nothing, or less than all.  `max_rows`: stop after so many."""

    max_rows: int | None = None

    def __post_init__(self) -> None:
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError("max_rows: at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[S]):
    """One run of a job, on a connection of its own that holds the job's lock; of a rehearsal, one that cannot write.

    `tables`: all that the settings name, by the name they give it, checked; `now`: the database's when the run began.
    """

    name: str
    settings: S
    args: Any
    ctx: Context
    conn: Any
    tables: Mapping[str, Table]
    now: datetime


def no_advice(_settings: Any, _tables: Mapping[str, Table]) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb(Generic[S]):
    """`doc`: what it does, for the docs.  `needs`: everything the settings name.  `rehearse`: what `run` would do, and
    to which rows; it gets a connection on which nothing can be written.  `advise`: what works, but not well (an index
    that is missing).  `inspect`: what only a look at other tables shows, when the needs are met."""

    name: str
    doc: str
    settings: type[S]
    needs: Callable[[S], Iterable[Need]]
    run: Callable[[Work[S]], Awaitable[Result]]
    rehearse: Callable[[Work[S]], Awaitable[Result]]
    advise: Callable[[S, Mapping[str, Table]], Iterable[str]] = no_advice
    inspect: Callable[[Any, S, Mapping[str, Table]], Awaitable[Iterable[Fault]]] | None = None
    args: type[Any] = Bounds
