"""What a check makes of a registered domain: its state, when to look next, and whether its owner is told.  Pure.

A verified domain is not let go of for a hiccup.  Only name servers of its own that say the record is another, or not
there, count against it, and only the time between two checks in a row that both saw so: a check that could not tell
changes nothing, and the time on either side of it does not count.  Nor does a time in which nobody looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from math import floor
from typing import Literal

from jobs.dns.policy import DomainPolicy

State = Literal["pending", "verified", "degraded", "failed", "expired"]
Notice = Literal["verified", "degraded", "failed", "expired"]
Word = Literal["good", "bad", "spreading", "disagree", "unsure"]
"""Good: enough for verification.  Bad: its own name servers say otherwise.  Spreading: published, and not yet to be
seen everywhere.  Disagree: some of its name servers have it, others not.  Unsure: nothing is known."""

IN_USE: frozenset[State] = frozenset({"verified", "degraded"})
"""A domain may be used while it is one of these."""

_TROUBLE: frozenset[Notice | None] = frozenset({"degraded", "failed", "expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a check saw, all records together.  `visible_by`: then caches have forgotten what was there before."""

    word: Word
    visible_by: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of a domain from its checks so far; columns of table domains, whose comments say what they are."""

    state: State
    since: datetime
    slot: float
    verified_at: datetime | None = None
    unsure: int = 0
    mismatch_since: datetime | None = None
    mismatch_at: datetime | None = None
    mismatch_s: float = 0.0
    noticed: Notice | None = None
    noticed_at: datetime | None = None
    warned_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be written, when to look next (None: not until somebody asks), and what its owner is told."""

    memory: Memory
    next_check_at: datetime | None
    notice: Notice | None = None


def next_state(before: Memory, seen: Seen, now: datetime, policy: DomainPolicy) -> Step:
    """One step.  The same memory and the same sight make the same step, so a check may be made again."""
    if seen.word == "good":
        return _well(before, now, policy)
    memory = _remembered(before, seen, now, policy)
    match before.state:
        case "pending" | "failed":
            if now >= _end(memory, policy):
                return _told(replace(memory, state="expired", since=now), "expired", None, now)
            return Step(memory=memory, next_check_at=min(_next(memory, seen, now, policy), _end(memory, policy)))
        case "verified":
            if seen.word == "bad":
                memory = replace(memory, state="degraded", since=now)
            return Step(memory=memory, next_check_at=_next(memory, seen, now, policy))
        case "degraded":
            return _in_trouble(memory, seen, now, policy)
        case "expired":
            return Step(memory=memory, next_check_at=None)


def _well(before: Memory, now: datetime, policy: DomainPolicy) -> Step:
    """Told once when it is verified at first, and when it was said to be otherwise."""
    at = daily(now, before.slot, policy.every)
    was_well = before.state in IN_USE
    memory = replace(
        before,
        state="verified",
        since=before.since if before.state == "verified" else now,
        verified_at=before.verified_at or now,
        unsure=0,
        mismatch_since=None,
        mismatch_at=None,
        mismatch_s=0.0,
    )
    if was_well and before.noticed not in _TROUBLE:
        return Step(memory=memory, next_check_at=at)
    return _told(memory, "verified", at, now)


def _remembered(before: Memory, seen: Seen, now: datetime, policy: DomainPolicy) -> Memory:
    """The clock of a mismatch goes from one check that sees it to the next, and no further than two steps."""
    if seen.word != "bad":
        return replace(before, unsure=before.unsure + 1, mismatch_at=None)
    passed_s = (now - before.mismatch_at).total_seconds() if before.mismatch_at else 0.0
    return replace(
        before,
        unsure=0,
        mismatch_since=before.mismatch_since or now,
        mismatch_at=now,
        mismatch_s=before.mismatch_s + min(max(passed_s, 0.0), 2 * policy.step),
    )


def _in_trouble(memory: Memory, seen: Seen, now: datetime, policy: DomainPolicy) -> Step:
    if seen.word != "bad":
        return Step(memory=memory, next_check_at=_next(memory, seen, now, policy))
    if memory.mismatch_s >= policy.fail_after:
        gone = replace(memory, state="failed", since=now)
        return _told(gone, "failed", _next(gone, seen, now, policy), now)
    at = _next(memory, seen, now, policy)
    warned_lately = memory.warned_at is not None and now - memory.warned_at < timedelta(seconds=policy.notice_every)
    if memory.mismatch_s < policy.warn_after or memory.noticed == "degraded" or warned_lately:
        return Step(memory=memory, next_check_at=at)
    return _told(replace(memory, warned_at=now), "degraded", at, now)


def _told(memory: Memory, notice: Notice, next_check_at: datetime | None, now: datetime) -> Step:
    memory = replace(memory, noticed=notice, noticed_at=now)
    return Step(memory=memory, next_check_at=next_check_at, notice=notice)


# --- when to look next ------------------------------------------------------------------------------------------------


def _next(memory: Memory, seen: Seen, now: datetime, policy: DomainPolicy) -> datetime:
    match seen.word:
        case "unsure" if memory.state != "failed":
            return _after(now, _doubled(policy.unsure_step, memory.unsure, policy))
        case "disagree" if memory.state != "failed":
            return _after(now, _doubled(policy.disagree_step, memory.unsure, policy))
        case "spreading" if seen.visible_by is not None:
            soonest = _regular(memory, now, policy) if memory.state == "pending" else _after(now, policy.unsure_step)
            return min(max(seen.visible_by, soonest), max(_after(now, policy.every), soonest))
        case _:
            return _regular(memory, now, policy)


def _regular(memory: Memory, now: datetime, policy: DomainPolicy) -> datetime:
    """When nothing is in doubt."""
    match memory.state:
        case "pending":
            return _after(now, _pending_s(memory, now, policy))
        case "degraded":
            return _after(now, _apart(policy.step, memory))
        case _:
            return _after(now, _apart(policy.every, memory))


def _pending_s(memory: Memory, now: datetime, policy: DomainPolicy) -> float:
    """By its age, so that checks in between, and outages, shift nothing."""
    age_s = (now - memory.since).total_seconds()
    for ends_s, step_s in zip(accumulate(policy.first_steps), policy.first_steps, strict=True):
        if age_s < ends_s - step_s / 10:  # a check is a little early or late
            return max(ends_s - age_s, step_s / 10)
    if age_s < policy.fast_for:
        return _apart(policy.step, memory)
    return _apart(policy.every, memory)


def _doubled(step_s: float, times: int, policy: DomainPolicy) -> float:
    return min(step_s * 2.0 ** min(max(times - 1, 0), 30), max(policy.step, step_s))


def _apart(step_s: float, memory: Memory) -> float:
    """±10 %, by the domain: what began together does not stay together."""
    return step_s * (0.9 + 0.2 * memory.slot)


def _after(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)


def _end(memory: Memory, policy: DomainPolicy) -> datetime:
    return memory.since + timedelta(seconds=policy.give_up_after)


def daily(now: datetime, slot: float, every_s: float) -> datetime:
    """The next regular check of a verified domain: once in each period, at its own time of it, so that a million that
    were verified in one minute are not looked at in one.  A check out of turn shifts nothing."""
    return datetime.fromtimestamp(daily_s(now.timestamp(), slot, every_s), UTC)


def daily_s(now_s: float, slot: float, every_s: float) -> float:
    """As `daily`, in seconds since 1970: between a tenth of a period from now and 1.1 of them."""
    earliest = now_s / every_s + 0.1
    return (floor(earliest - slot) + 1 + slot) * every_s


def memory_of(row: Mapping[str, object]) -> Memory:
    """Out of a row of table domains."""
    return Memory(**{name: row[name] for name in Memory.__dataclass_fields__})  # type: ignore[arg-type] # checked there
