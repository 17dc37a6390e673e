"""Handlers that take many rows of one kind in one call, and say of each what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jobs.context import Context
from jobs.model import Retry

A = TypeVar("A")

MOST = 10_000
LINGER_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Row(Generic[A]):
    """One of the rows of a call: its args, as the kind's type, and its own context."""

    args: A
    ctx: Context

    @property
    def id(self) -> int:
        return self.ctx.job.id


ManyHandler = Callable[[list[Row[Any]]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Many:
    """A handler that is called with up to `most` rows at once, which wait up to `linger_s` for each other."""

    handler: ManyHandler
    most: int
    linger_s: float

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MOST:
            raise ValueError(f"batch: {self.most} is not between 1 and {MOST}")
        if not 0 <= self.linger_s <= LINGER_MAX_S:
            raise ValueError(f"linger: {self.linger_s:g} s is not between 0 and {LINGER_MAX_S:g} s")


def replies(rows: Sequence[Row[Any]], reply: Any) -> list[Any]:
    """What a call said of each of its rows, in their order; an error that names the row of which it says nothing."""
    if not isinstance(reply, Mapping):
        said = "nothing" if reply is None else type(reply).__name__
        return [Retry(f"a batch handler returns {{id: outcome}}, this one {said}", code="no_outcome") for _ in rows]
    return [
        reply[row.id] if row.id in reply else Retry(f"the handler said nothing of job {row.id}", code="no_outcome")
        for row in rows
    ]


def one_of(many: Many) -> Callable[[Any, Context], Awaitable[Any]]:
    """The same handler for a single row: for `jobsd run`, a dry run, a test."""

    async def handler(args: Any, ctx: Context) -> Any:
        row = Row(args, ctx)
        return replies([row], await many.handler([row]))[0]

    return handler
