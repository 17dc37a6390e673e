"""What is remembered from one check to the next, for as long as its TTL says and no longer than a bound."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """`most` values; when there are more, the oldest goes.  `age_s`: longer than this nothing is believed."""

    def __init__(self, most: int, age_s: float) -> None:
        self._most = most
        self._age_s = age_s
        self._values: dict[str, tuple[float, T]] = {}

    def get(self, name: str) -> T | None:
        ends_at, value = self._values.get(name, (0.0, None))
        if value is not None and ends_at > time.monotonic():
            return value
        self.forget(name)
        return None

    def put(self, name: str, value: T, ttl_s: float) -> None:
        self.forget(name)
        if len(self._values) >= self._most:
            del self._values[next(iter(self._values))]
        self._values[name] = (time.monotonic() + min(ttl_s, self._age_s), value)

    def forget(self, name: str) -> None:
        self._values.pop(name, None)
