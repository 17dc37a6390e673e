"""The nouns every job shares: the job itself, what a handler may say about it, and when it is tried again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from jobs.values import Duration, duration


@dataclass(frozen=True, slots=True)
class Terms:
    """What a job's destination asks for itself: a ladder by its name (`default`: the kind's), and whether a job that
    failed holds up the later ones of its ordering key (`block`, `skip`; `none`: as the config says)."""

    profile: str = "default"
    ordering: str = "none"


@dataclass(slots=True)
class Job:
    """One claimed attempt of a row.  A retry of the same row is another Job with another fence.

    `args_json` is the row's JSON text as Postgres prints it; `run_at`, `expires_at` and `claimed_at` are seconds since
    1970 by the database's clock: floats, so that no time Postgres accepts can fail to decode.  `fence` grows with every
    claim, rescue and return and is never handed out twice: writes about this attempt carry it, and lose when the row
    has moved on.
    """

    id: int
    fence: int
    kind: str
    queue: str
    priority: int
    attempt: int
    args_json: str
    run_at: float
    claimed_at: float = 0.0
    org_id: str | None = None
    max_attempts: int | None = None
    expires_at: float | None = None
    ordering_key: str | None = None
    lane: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    actor_id: str | None = None
    project_id: str | None = None
    gate: str = ""
    crashes: int = 0
    worker_id: int | None = None
    claim_id: int | None = None
    batch_id: int | None = None
    terms: Terms | None = None

    @property
    def is_retry(self) -> bool:
        """Whether an attempt before this one failed; one that was lost with its worker says nothing."""
        return self.attempt - self.crashes > 1


class Outcome(Exception):
    """What an attempt came to.  A handler may return one or raise one; returning anything else is `Done(that)`."""


class Done(Outcome):
    """It worked, or there was nothing left to do.  `result` (JSON-able) goes to job_history.result."""

    __match_args__ = ("result",)

    def __init__(self, result: Any = None) -> None:
        super().__init__()
        self.result = result


Closing = Literal["retry_after", "quota"]
"""Why a destination wants to be left alone until a time that it names."""


class Failure(Outcome):
    """What Retry and Dead share: `reason` for people, `code` a word of a bounded vocabulary for metrics and filters
    (`timeout`, `http_503`, `relay_refused`), `detail` (JSON-able) for the record.

    What it says about the row's lane: `lane_fault` true, the destination is to blame (it does not answer, or says that
    it cannot); false, it is well, and it is this row that failed; None, nothing.  `lane_after_s`: it asks that none of
    its rows be sent for so long.
    """

    lane_after_s: Duration | None = None
    lane_cause: Closing = "retry_after"

    def __init__(
        self,
        reason: str = "",
        *,
        code: str = "",
        detail: Mapping[str, Any] | None = None,
        lane_fault: bool | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.detail = detail
        self.lane_fault = lane_fault


class Retry(Failure):
    """It may work later: tried again after the kind's next delay, and not before `after` (a Retry-After header).

    `lane_after` keeps every row of its lane from being claimed for so long; see Failure for `lane_fault`.
    """

    __match_args__ = ("reason", "after_s")

    def __init__(
        self,
        reason: str = "",
        *,
        after: str | float | timedelta | None = None,
        code: str = "retry",
        detail: Mapping[str, Any] | None = None,
        lane_fault: bool | None = None,
        lane_after: str | float | timedelta | None = None,
        lane_cause: Closing = "retry_after",
    ) -> None:
        super().__init__(reason, code=code, detail=detail, lane_fault=lane_fault)
        self.after_s: Duration | None = None if after is None else duration(after)
        self.lane_after_s = None if lane_after is None else duration(lane_after)
        self.lane_cause = lane_cause


class Snooze(Failure):
    """Not now, through no fault of the job: tried again later and no attempt is charged.  `lane_…` as in Retry."""

    __match_args__ = ("reason", "after_s")

    def __init__(
        self,
        reason: str = "",
        *,
        after: str | float | timedelta | None = None,
        until: datetime | None = None,
        code: str = "snoozed",
        detail: Mapping[str, Any] | None = None,
        lane_fault: bool | None = None,
        lane_after: str | float | timedelta | None = None,
        lane_cause: Closing = "retry_after",
    ) -> None:
        super().__init__(reason, code=code, detail=detail, lane_fault=lane_fault)
        self.lane_after_s = None if lane_after is None else duration(lane_after)
        self.lane_cause = lane_cause
        if (after is None) == (until is None):
            raise ValueError("Snooze takes either after= or until=")
        if until is not None:
            after = max(0.0, (until - datetime.now(UTC)).total_seconds())
        self.after_s: Duration = duration(after or 0.0)


class Dead(Failure):
    """It can never work: no further attempt is made and the row becomes a dead letter."""

    __match_args__ = ("reason",)

    def __init__(
        self,
        reason: str,
        *,
        code: str = "failed",
        detail: Mapping[str, Any] | None = None,
        result: Any = None,
        lane_fault: bool | None = None,
    ) -> None:
        super().__init__(reason, code=code, detail=detail, lane_fault=lane_fault)
        self.result = result


class Cancelled(Failure):
    """Somebody no longer wants it."""

    __match_args__ = ("reason",)

    def __init__(self, reason: str = "", *, code: str = "cancelled") -> None:
        super().__init__(reason, code=code)


@dataclass(frozen=True, slots=True, init=False)
class Ladder:
    """Delays before attempt 2, 3, …; after the last there is no more.  `Ladder("1m", "5m")` allows three attempts."""

    delays_s: tuple[float, ...]
    jitter: float

    def __init__(self, *delays: str | float | timedelta, jitter: float = 0.2) -> None:
        object.__setattr__(self, "delays_s", tuple(float(duration(d)) for d in delays))
        object.__setattr__(self, "jitter", jitter)

    @property
    def max_attempts(self) -> int:
        return len(self.delays_s) + 1

    def delay_s(self, attempt: int, dice: float) -> float:
        """The wait after attempt number `attempt`; a row that allows more attempts than the ladder repeats the last."""
        if not self.delays_s:
            return 0.0
        return spread(self.delays_s[min(attempt, len(self.delays_s)) - 1], self.jitter, dice)


@dataclass(frozen=True, slots=True)
class Exponential:
    """`base_s`, doubled after each attempt, at most `max_s`."""

    base_s: float = 15.0
    max_s: float = 3600.0
    max_attempts: int = 10
    jitter: float = 0.2

    def delay_s(self, attempt: int, dice: float) -> float:
        return spread(min(self.base_s * 2.0 ** min(attempt - 1, 60), self.max_s), self.jitter, dice)


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same wait after each attempt."""

    every_s: float
    max_attempts: int = 10
    jitter: float = 0.2

    def delay_s(self, attempt: int, dice: float) -> float:
        return spread(self.every_s, self.jitter, dice)


Policy = Ladder | Exponential | Fixed

DEFAULT_POLICY = Exponential()


def spread(delay_s: float, jitter: float, dice: float) -> float:
    """`delay_s` moved inside ±jitter by `dice` in [0, 1): a herd that failed together does not return together."""
    return delay_s * (1.0 + jitter * (2.0 * dice - 1.0))
