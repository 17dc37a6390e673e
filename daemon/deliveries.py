"""What the channels' logs are told, counted in one vocabulary for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from daemon.observe import Observer
from daemon.settle import Transition

_CHANNELS = {"webhook_deliveries": "webhook", "email_deliveries": "email", "notification_deliveries": ""}
"""Logs of deliveries; the last one's rows name theirs themselves."""

_CHECKS = "monitor_checks"

_CLASSES = {"ok": "delivered", "retry": "soft", "dead": "hard", "blocked": "hard"}
"""The webhooks' words, in the mails'."""


class Deliveries:
    """Counts what is in the database, once for a whole batch."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def written(self, batch: Sequence[Transition], ours: Collection[int]) -> None:
        """A batch is written; `ours`: the ids whose result was taken."""
        for (channel, result, code), n in Counter(_told(batch, ours)).items():
            self._observer.delivered(channel, result, code, n)
        for (name, outcome), n in Counter(_checked(batch, ours)).items():
            self._observer.checked(name, outcome, n)


def _told(batch: Sequence[Transition], ours: Collection[int]) -> Iterator[tuple[str, str, str]]:
    for t in batch:
        if t.records and t.job.id in ours:
            for ledger, row in t.records:
                channel = _CHANNELS.get(ledger)
                if channel is not None:
                    word = str(row.get("outcome"))  # handlers of others may write there too
                    yield channel or str(row.get("channel")), _CLASSES.get(word, word), str(row.get("code") or "")


def _checked(batch: Sequence[Transition], ours: Collection[int]) -> Iterator[tuple[str, str]]:
    for t in batch:
        if t.records and t.job.id in ours:
            yield from ((t.job.kind, str(row.get("outcome"))) for ledger, row in t.records if ledger == _CHECKS)
