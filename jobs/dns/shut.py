"""Which zones at the top nobody could reach a moment ago, so that not every check waits to find that out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from jobs.dns.answer import Answer

SILENCE = frozenset({"timeout", "unreachable", "no_route"})
"""What firewalls and broken networks look like.  Servers that answer, whatever they say, cost no time."""

FIRST_S, LONGEST_S = 5.0, 60.0
"""How long it is believed; twice as long each time that it has been tried again in vain."""


@dataclass(slots=True)
class _Shut:
    """`failure` is told until `ends_at`; `is_tried`: somebody is finding out whether it is so still."""

    failure: Answer
    ends_at: float
    believed_s: float
    is_tried: bool = False


class Shut:
    """Of one process.  When a time is over one check tries again, and the others hear the old failure meanwhile, so an
    outage of the network that ends is noticed by one and not by a herd."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._zones: dict[str, _Shut] = {}

    def failure(self, zone: str) -> Answer | None:
        """Why nobody need be asked; None: to be tried, by whoever is told so."""
        shut = self._zones.get(zone)
        if shut is None:
            return None
        if self._clock() < shut.ends_at:
            return shut.failure
        shut.ends_at = self._clock() + shut.believed_s
        shut.is_tried = True
        return None

    def found(self, zone: str, failure: Answer) -> None:
        """Nobody there can be asked; an error of another kind says that somebody was there."""
        if failure.reason not in SILENCE:
            self.open(zone)
            return
        known = self._zones.get(zone)
        if known is None:
            self._zones[zone] = _Shut(failure, self._clock() + FIRST_S, FIRST_S)
        elif known.is_tried:  # and not one of those who were under way when it was shut
            believed_s = min(2 * known.believed_s, LONGEST_S)
            self._zones[zone] = _Shut(failure, self._clock() + believed_s, believed_s)

    def open(self, zone: str) -> None:
        """Somebody answers there."""
        self._zones.pop(zone, None)
