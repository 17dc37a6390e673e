"""What a handler's reply, or what it raised, means as an outcome."""

from __future__ import annotations

from typing import Any

from daemon.texts import plain
from jobs.model import Done, Outcome, Retry

DONE = Done()
"""Of all handlers that return nothing."""

CANCELLED_INSIDE = Retry("cancelled from inside", code="cancelled_inside")
"""Something the handler waited for was cancelled under it."""


def meant(reply: Any) -> Outcome:
    """What a handler returned."""
    if reply is None:
        return DONE
    return reply if isinstance(reply, Outcome) else Done(reply)


def failed(error: BaseException) -> Outcome:
    """What a handler raised that is no outcome."""
    name = type(error).__qualname__
    return Retry(plain(error) or name, code="exception", detail={"class": name})
