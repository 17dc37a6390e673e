"""kind → handler.  The only global table in the project, filled at import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from jobs.context import Context
from jobs.model import Policy
from jobs.values import Duration, duration

Handler = Callable[[Any, Context], Awaitable[Any]]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the daemon must know to run rows of one kind.

    `args` is a msgspec type: rows that do not fit it are dead letters before the handler is called.  `lane` names the
    destination an args object goes to (host, relay, domain), for limits and breakers.  `retry` None: the queue's.
    """

    name: str
    handler: Handler
    args: type[Any]
    retry: Policy | None
    timeout_s: Duration
    lane: Callable[[Any], str | None] | None
    decode: Callable[[str], Any]


KINDS: dict[str, Kind] = {}


def job(
    name: str,
    *,
    args: type[Any] = dict[str, Any],
    retry: Policy | None = None,
    timeout: str | float = "5m",
    lane: Callable[[Any], str | None] | None = None,
) -> Callable[[H], H]:
    """Register the decorated coroutine as the handler of rows whose kind is `name`."""

    def register(handler: H) -> H:
        if name in KINDS and KINDS[name].handler is not handler:
            raise ValueError(f"job kind {name!r} is registered twice: {KINDS[name].handler} and {handler}")
        decode = msgspec.json.Decoder(args).decode
        KINDS[name] = Kind(name, handler, args, retry, duration(timeout), lane, decode)
        return handler

    return register
