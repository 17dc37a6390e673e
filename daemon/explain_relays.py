"""Why a mail waits for its relay: the relay's rate or day, in words, and when it is its turn.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from daemon.relay_limits import DAY, ORDINARY, RATE, RelayLimit
from jobs.email.settings import ANY_DAY, DAY_S

SLOT_S = 900.0
"""What is used of a day is counted by quarters of an hour; migration 0025 knows it as slot_s."""


@dataclass(frozen=True, slots=True)
class RelayState:
    """A relay's bucket: its debt in seconds, the part of its rate that it lends, and (quarter, used) of its day."""

    name: str
    debt_s: float
    share: float
    slots: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RelayGate:
    """A sentence, in how many seconds it opens, and what opens it."""

    says: str
    opens_s: float
    opens: str


def relay_gate(state: RelayState, limit: RelayLimit, ahead: int, now_s: float) -> RelayGate:
    """For a row behind `ahead` others, at `now_s` since 1970."""
    if limit.of_day is None:
        return _rate_gate(state, limit, ahead)
    day, most = limit.day if limit.day is not None else ANY_DAY, limit.of_day
    used = [(at, n) for at, n in state.slots if n and at > _since(day, now_s)]
    name = state.name.removeprefix(ORDINARY if limit.ordinary else DAY)
    when = "the last 24 hours" if day == ANY_DAY else "this day"
    whose = f" for mail without `security` (email.relays.{name}.reserve)" if limit.ordinary else ""
    says = f"relay {name}: {_total(used)} of {most} messages of {when} are sent{whose}, and {ahead} rows come first"
    return RelayGate(says, _free_s(used, most, ahead, day, now_s), f"with the relay's day; more: {_key(name)}_per_day")


def _rate_gate(state: RelayState, limit: RelayLimit, ahead: int) -> RelayGate:
    name, token_s = state.name.removeprefix(RATE), 0.0 if limit.rate is None else 1.0 / limit.rate.per_second
    slowed = f", slowed to {state.share:.0%} since the relay throttled," if state.share < 1 else ""
    wait_s = max(0.0, state.debt_s - (limit.bucket - 1) * token_s) + ahead * token_s / state.share
    says = f"relay {name}: {limit.rate}{slowed} is used up, and {ahead} rows come first"
    return RelayGate(says, wait_s, f"when its token has grown; more: email.relays.{name}.rate")


def _key(name: str) -> str:
    return f"email.relays.{name}.messages"


def _since(day: int, now_s: float) -> float:
    """Quarters that began later count."""
    return now_s - DAY_S - SLOT_S if day == ANY_DAY else now_s - (now_s - day) % DAY_S - 1


def _total(used: Iterable[tuple[float, int]]) -> int:
    return sum(n for _at, n in used)


def _free_s(used: list[tuple[float, int]], most: int, ahead: int, day: int, now_s: float) -> float:
    """In how many seconds so much of the day is free that the rows ahead and this one go."""
    left = most - _total(used)
    if left > ahead:
        return 0.0
    if day != ANY_DAY:
        return DAY_S - (now_s - day) % DAY_S + (ahead - max(left, 0)) // most * DAY_S
    for at, n in sorted(used):
        left += n
        if left > ahead:
            return at + SLOT_S + DAY_S - now_s
    return ahead // most * DAY_S
