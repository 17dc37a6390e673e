"""How an event is said: one line in the log, and not too many of a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon.events import Event
from daemon.log import Logger
from daemon.metrics import Metrics
from daemon.seldom import Seldom

Error = BaseException | str


class Voice:
    """The log, the metrics, and what was said a moment ago, which the parts of the observer have in common."""

    def __init__(self, log: Logger, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.log = log
        self.metrics = metrics
        self.seldom = Seldom(clock)

    def say(self, event: Event, **fields: Any) -> None:
        self.log.emit(event.level, event.name, {name: value for name, value in fields.items() if value is not None})

    def say_seldom(self, event: Event, about: str, **fields: Any) -> None:
        """At most one line a second of `event` about one thing: an outage must not fill the disk."""
        suppressed = self.seldom.suppressed(event.name, self.metrics.name(about))
        if suppressed is not None:
            self.say(event, **fields, suppressed=suppressed or None)


def ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
