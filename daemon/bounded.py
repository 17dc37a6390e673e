"""Names that come out of rows, as labels of a bounded number."""

from __future__ import annotations

OTHER = "other"
NAME_MAX = 120

QUEUES_MAX = 500
"""Queues with a count of their own in job_tallies."""


class Bounded:
    """At most `limit` different values of a label; those that come later are "other", for good.

    Names of queues and kinds come out of rows, and anybody who may insert may invent them: a series each would fill the
    memory of the daemon and of Prometheus.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._limit or len(value) > NAME_MAX or not value.isprintable():
            return OTHER
        self._known.add(value)
        return value
