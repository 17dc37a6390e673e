"""kind → handler.  The only global table in the project, filled at import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from jobs.context import Context
from jobs.many import Many, one_of
from jobs.model import Policy
from jobs.values import Duration, duration

Handler = Callable[[Any, Context], Awaitable[Any]]
AnyHandler = Callable[..., Awaitable[Any]]
"""One of these, or one that takes many rows."""

H = TypeVar("H", bound=AnyHandler)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the daemon must know to run rows of one kind.

    `args` is a msgspec type: rows that do not fit it are dead letters before the handler is called.  `lane` names the
    destination an args object goes to (host, relay, domain), for limits and breakers.  `retry` None: the queue's.
    `many`: one call may take many rows; `handler` then makes a call for the one row it is given.  `transactional`: what
    it writes on `ctx.conn` and the end of its row are one commit.
    """

    name: str
    handler: Handler
    args: type[Any]
    retry: Policy | None
    timeout_s: Duration
    lane: Callable[[Any], str | None] | None
    decode: Callable[[str], Any]
    many: Many | None = None
    transactional: bool = False

    @property
    def registered(self) -> AnyHandler:
        """The function that was decorated."""
        return self.handler if self.many is None else self.many.handler


KINDS: dict[str, Kind] = {}


def job(
    name: str,
    *,
    args: type[Any] = dict[str, Any],
    retry: Policy | None = None,
    timeout: str | float = "5m",
    lane: Callable[[Any], str | None] | None = None,
    batch: int | None = None,
    linger: str | float = "5ms",
    transactional: bool = False,
) -> Callable[[H], H]:
    """Register the decorated coroutine as the handler of rows whose kind is `name`.

    With `batch` it takes a list of `jobs.Row`, at most so many, and answers {id: outcome}; a call waits up to `linger`
    for rows to fill it.  If `transactional`, `ctx.conn` has an open transaction that is committed with the row's end.
    """
    if transactional and batch is not None:
        raise ValueError(f"job kind {name!r}: batch and transactional do not go together")

    def register(handler: H) -> H:
        many = None if batch is None else Many(handler, batch, duration(linger))
        if (known := KINDS.get(name)) is not None and known.registered is not handler:
            raise ValueError(f"job kind {name!r} is registered twice: {known.registered} and {handler}")
        decode = msgspec.json.Decoder(args).decode
        single = handler if many is None else one_of(many)
        KINDS[name] = Kind(name, single, args, retry, duration(timeout), lane, decode, many, transactional)
        return handler

    return register
