"""Which receivers of the demo fail the first time, so that a retry is seen."""

from __future__ import annotations

MOST = 10_000


class FirstTime:
    """Says whether a key comes for the first time; the second time it is forgotten, so that the third is a first."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def __call__(self, key: str) -> bool:
        if key in self._seen:
            del self._seen[key]
            return False
        if len(self._seen) >= MOST:  # whoever never came back; the oldest goes
            del self._seen[next(iter(self._seen))]
        self._seen[key] = None
        return True
