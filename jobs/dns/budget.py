"""What one check may still spend: questions and time."""

from __future__ import annotations

import time


class Budget:
    """A zone may be built so that each answer asks for ten more questions; this is where that ends."""

    __slots__ = ("_ends_at", "_left", "sent")

    def __init__(self, questions: int, seconds: float) -> None:
        self._left = questions
        self._ends_at = time.monotonic() + seconds
        self.sent = 0

    def take(self) -> bool:
        """One more question; False if there is none left, or no time for it."""
        if self.sent >= self._left or self.left_s <= 0:
            return False
        self.sent += 1
        return True

    @property
    def left_s(self) -> float:
        return self._ends_at - time.monotonic()
