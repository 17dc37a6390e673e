"""What a drain did: one record for each attempt, in the order in which they ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.model import Job


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt.  `outcome` is done, retry, snooze, dead, cancelled or crashed; `error` is what the handler raised,
    outcomes of its own choice aside; `retry_in_s` is how long it waits for the next attempt."""

    job: Job
    outcome: str
    code: str | None = None
    reason: str | None = None
    result: Any = None
    error: BaseException | None = None
    retry_in_s: float | None = None
    duration_s: float = 0.0

    @property
    def id(self) -> int:
        return self.job.id

    @property
    def kind(self) -> str:
        return self.job.kind

    def __str__(self) -> str:
        why = f" ({self.code}: {self.reason})" if self.code or self.reason else ""
        return f"#{self.id} {self.kind} attempt {self.job.attempt} {self.outcome}{why}"


class Drained(tuple[Ran, ...]):
    """The attempts of one drain."""

    __slots__ = ()

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """(kind, outcome) of each, for one assertion about all."""
        return [(ran.kind, ran.outcome) for ran in self]

    def of(self, kind: str) -> Drained:
        """Those of one kind."""
        return Drained(ran for ran in self if ran.kind == kind)

    def one(self) -> Ran:
        """The only one; AssertionError when there are more or none."""
        if len(self) != 1:
            raise AssertionError(f"{len(self)} attempts were made, not one:\n{self}")
        return self[0]

    def __str__(self) -> str:
        return "\n".join(f"  {ran}" for ran in self) or "  nothing ran"
