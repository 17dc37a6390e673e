"""Decide what an outcome means for the row.  Pure: no clock, no database, no dice of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.context import Ledger
from jobs.model import Cancelled, Dead, Done, Failure, Job, Outcome, Policy, Retry, Snooze, spread

Ended = Literal["done", "retry", "snooze", "dead", "cancelled", "handed_back"]

LONGEST_S = 100 * 365.25 * 86_400.0
"""No wait is longer: the table refuses a run_at past 9999, and a row that cannot be put back would stay running."""


@dataclass(slots=True)
class Transition:
    """What is to be written about one attempt.

    `state` done, dead or cancelled: the row moves to history.  `ready`: it goes back to its queue, `delay_s` from now
    (None: its run_at stays as it is), through `gate`, with its attempt charged or not.  `order_wait_s`: so long
    from its first failure may it hold up the later rows of its ordering key (None: until it ends).  `progress` is
    written before, where it is not on the row yet; `result_json` is `result` in the form in which it is stored.
    """

    job: Job
    state: Literal["done", "dead", "cancelled", "ready"]
    outcome: Ended
    reason: str | None = None
    code: str | None = None
    detail: Mapping[str, Any] | None = None
    trace: str | None = None
    result: Any = None
    delay_s: float | None = None
    charged: bool = True
    gate: str = ""
    failed: bool = False
    keep: bool = True
    order_wait_s: float | None = None
    records: list[tuple[Ledger, Mapping[str, Any]]] | None = None
    progress: str | None = None
    result_json: str | None = None


def refuse(job: Job, max_attempts: int) -> Outcome | None:
    """Why this row must not run at all, if so: too late, or no attempt is left (its last one died with its worker)."""
    if job.expires_at is not None and job.expires_at <= job.claimed_at:
        return Dead("not started before its expires_at", code="expired")
    if job.attempt > max_attempts:
        return Dead("the worker of its last allowed attempt died", code="crashed")
    return None


def settle(job: Job, outcome: Outcome, policy: Policy, max_attempts: int, dice: float) -> Transition:
    """What is written for `outcome`.  `dice` in [0, 1) places a retry inside its jitter window."""
    match outcome:
        case Done(result):
            return Transition(job, "done", "done", result=result)
        case Retry(reason, after_s):
            delay_s = policy.delay_s(job.attempt, dice)
            if after_s is not None:  # asked for by the other side: never earlier, and jittered upwards only
                delay_s = max(delay_s, spread(after_s, 0.05, 0.5 + dice / 2))
            delay_s = _bounded(delay_s)
            if job.attempt >= max_attempts:
                return _dead(job, outcome, outcome.code)
            if job.expires_at is not None and job.claimed_at + delay_s >= job.expires_at:
                return _dead(job, outcome, "expired")
            return Transition(job, "ready", "retry", reason, outcome.code, outcome.detail, delay_s=delay_s, failed=True)
        case Snooze(reason, after_s):
            return Transition(
                job, "ready", "snooze", reason, outcome.code, outcome.detail, delay_s=_bounded(after_s), charged=False
            )
        case Dead():
            transition = _dead(job, outcome, outcome.code)
            transition.result = outcome.result
            return transition
        case Cancelled(reason):
            return Transition(job, "cancelled", "cancelled", reason or "cancelled", outcome.code)
        case _:  # a base class, or somebody's own: a mistake in the handler, which costs an attempt like any other
            reason = f"{type(outcome).__name__} is no outcome: use Done, Retry, Snooze, Dead or Cancelled"
            return settle(job, Retry(reason, code="no_outcome"), policy, max_attempts, dice)


def hand_back(job: Job, *, gate: str = "", delay_s: float | None = None) -> Transition:
    """Return a row as it was: nothing was tried, so nothing is charged."""
    return Transition(job, "ready", "handed_back", delay_s=delay_s, charged=False, gate=gate)


def unwanted(back: Transition, reason: str | None, actor: str | None) -> Transition:
    """What is written in place of `back`, by which a row that somebody wants stopped would go back to its queue."""
    return Transition(
        back.job,
        "cancelled",
        "cancelled",
        reason or "cancelled",
        "cancelled",
        {"actor": actor, "instead_of": back.outcome},
        records=back.records,
    )


def _bounded(delay_s: float) -> float:
    """`delay_s` between now and LONGEST_S; not a number is now."""
    return min(max(0.0, delay_s), LONGEST_S)


def _dead(job: Job, failure: Failure, code: str) -> Transition:
    return Transition(job, "dead", "dead", failure.reason or code, code, failure.detail, failed=True)
