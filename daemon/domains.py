"""What checks of registered domains came to, counted and said."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from daemon.observe import Observer
from daemon.settle import Transition
from jobs.context import Ledger

DOMAINS = Ledger("domains")


class Domains:
    """Speaks of what is in the database."""

    def __init__(self, observer: Observer) -> None:
        self._upkeep = observer.upkeep

    def written(self, batch: Sequence[Transition], ours: Collection[int]) -> None:
        """A batch is written; `ours`: the ids whose result was taken."""
        for t in batch:
            if t.records and t.job.id in ours:
                for ledger, row in t.records:
                    if ledger == DOMAINS:
                        self._checked(t.job.org_id, row)

    def _checked(self, org_id: str | None, row: Mapping[str, Any]) -> None:
        match row:
            case {
                "verdict": str(verdict),
                "domain": str(domain),
                "state_before": str(before),
                "step": {"state": str(state)},
            }:
                self._upkeep.domain_checked(verdict)
                if notice := row.get("notice"):
                    self._upkeep.domain_noticed(str(notice))
                if state != before:
                    self._upkeep.domain_changed(domain, org_id, before, state, str(row.get("conclusion")))
