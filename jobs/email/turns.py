"""Whose turn it is to hand a message to a relay: what relays take is shared by all daemons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

RELAY_KINDS = frozenset({"email", "email_forward"})
"""Kinds whose lane is a relay: their rows wait for its limits before they are claimed."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.  `job`: the (id, fence) of the attempt, for which a token may have been kept when it was claimed.
    `security`: a part of each day is kept for its like."""

    job: tuple[int, int] | None = None
    security: bool = False


class Giver(Protocol):
    """What a daemon gives turns by."""

    async def take(self, relay: str, asker: Asker, wait_s: float) -> float: ...
    def throttled(self, relay: str, age_s: float, said: str) -> bool: ...


class Turns:
    """Of one process.  Without a daemon nothing limits it: in tests of handlers, say."""

    def __init__(self) -> None:
        self._giver: Giver | None = None

    def serve(self, giver: Giver) -> None:
        """From now on turns come from here."""
        self._giver = giver

    async def take(self, relay: str, asker: Asker, wait_s: float) -> float:
        """Waits for the turn to hand one message over, `wait_s` at most; 0.0: it is now, and was counted; else in how
        many seconds it is worth asking again."""
        return 0.0 if self._giver is None else await self._giver.take(relay, asker, wait_s)

    def throttled(self, relay: str, age_s: float, said: str) -> bool:
        """The relay found it too much that was handed over `age_s` seconds ago.  True: it has a rate, which all daemons
        lower now; False: it has none to lower."""
        return self._giver is not None and self._giver.throttled(relay, age_s, said)
