"""How long a failed job may hold up the later ones of its ordering key: as the config says."""

from __future__ import annotations

from daemon.work_settings import RetrySettings


def order_wait_s(kind: RetrySettings | None, queue: RetrySettings) -> float | None:
    """[kinds.X] over [queues.X], as a whole: seconds from the first failure; 0.0: not at all; None: until it ends."""
    speaks = kind is not None and (kind.ordering is not None or kind.ordering_wait is not None)
    settings = kind if kind is not None and speaks else queue
    return 0.0 if settings.ordering == "skip" else settings.ordering_wait


def own_order_wait_s(ordering: str, configured: float | None) -> float | None:
    """Of a destination that has its own mind about it (`block`, `skip`); `configured` says for how long."""
    if ordering == "skip":
        return 0.0
    return None if ordering == "block" and configured == 0.0 else configured
