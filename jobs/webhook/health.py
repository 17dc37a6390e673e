"""What attempts say of endpoints, gathered until it is written down: which fail, do well again, or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

from jobs.model import Snooze
from jobs.webhook.endpoints import Endpoint
from jobs.webhook.faults import OURS
from jobs.webhook.judge import Plea, Verdict

MESSAGES = 3
"""Messages that failed, by which an endpoint that fails is told from a message that it cannot take."""

SHARES = (0.2, 0.6, 1.0)
"""Of its patience: when an endpoint that only fails is warned of, twice, and disabled."""

ENDPOINTS_MAX = 10_000
"""Endpoints with something to write; while Postgres is away, of others nothing is noted."""


@dataclass(slots=True)
class _Said:
    went_well: bool = False
    failures: int = 0
    messages: set[str] = field(default_factory=set)
    plea: Plea | None = None
    message: str | None = None


class Health:
    """`note` is called for each attempt, and costs next to nothing where all goes well; `take` by whoever writes it."""

    def __init__(self, *, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._said: dict[int, _Said] = {}
        self.noted = asyncio.Event()

    def note(self, to: Endpoint, message_id: str, verdict: Verdict, patience_s: float) -> None:
        """Faults of our own, and attempts that we broke off, say nothing of an endpoint.  `patience_s`: how long it
        may only fail (0: for ever); once it is known to, its failures count again when there is something to decide."""
        said = self._well(to, verdict) if verdict.word == "ok" else self._badly(to, message_id, verdict, patience_s)
        if said is None:
            return
        if verdict.plea is not None and said.plea != "disable":
            said.plea, said.message = verdict.plea, message_id
        self.noted.set()

    def take(self) -> list[dict[str, Any]]:
        """All that was noted, as webhook_endpoints_said takes it; it is no longer here."""
        taken, self._said = self._said, {}
        self.noted.clear()
        return [
            {
                "id": endpoint,
                "ok": said.went_well,
                "failures": said.failures,
                "messages": sorted(said.messages),
                "plea": said.plea,
                "message": said.message,
            }
            for endpoint, said in taken.items()
        ]

    def _well(self, to: Endpoint, verdict: Verdict) -> _Said | None:
        """It takes back what failed before it, and that it is gone; not that it wants no more."""
        if verdict.plea is None and to.failing_since is None and to.id not in self._said and not to.is_doubted:
            return None
        before = self._of(to.id)
        if before is None:
            return None
        said = _Said(went_well=True)
        if before.plea == "disable":
            said.plea, said.message = before.plea, before.message
        self._said[to.id] = said
        return said

    def _badly(self, to: Endpoint, message_id: str, verdict: Verdict, patience_s: float) -> _Said | None:
        if isinstance(verdict.outcome, Snooze) or verdict.code == "interrupted" or verdict.code in OURS:
            return None
        if verdict.plea is None and to.is_well_known and not self._due(to, patience_s):
            return None
        said = self._of(to.id)
        if said is None:
            return None
        said.failures += 1
        if len(said.messages) < MESSAGES:
            said.messages.add(message_id)
        return said

    def _of(self, endpoint: int) -> _Said | None:
        if endpoint not in self._said and len(self._said) >= ENDPOINTS_MAX:
            return None
        return self._said.setdefault(endpoint, _Said())

    def _due(self, to: Endpoint, patience_s: float) -> bool:
        """Whether the time for the next warning, or for the end, has come since it was warned of last."""
        since = to.failing_since
        if since is None or not patience_s:
            return False
        steps = [since + share * patience_s for share in SHARES]
        warned_at = since if to.warned_at is None else to.warned_at
        return any(warned_at < step <= self._clock() for step in steps[:-1]) or steps[-1] <= self._clock()
