"""What checks come to: up, degraded or down, and when somebody is to be told.  No clock, no input or output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Outcome = Literal["ok", "poor", "failed", "unknown"]
"""Of one check.  poor: it answers, but late, or with a certificate that soon ends; unknown: the trouble is on our side,
so that nothing is known."""

State = Literal["new", "up", "degraded", "down"]
Notice = Literal["degraded", "down", "up"]

_RANK = {"new": 0, "up": 0, "degraded": 1, "down": 2}
_MOST = 10_000
"""Nothing counts further than this: a limit is smaller, and a column holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`failures` checks in a row that fail make it down, and so many that are not ok degraded; `successes` in a row
    take that back.  `notice`: from which state on people are told."""

    failures: int = 3
    successes: int = 2
    notice: Literal["degraded", "down"] = "degraded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is remembered of a monitor between two checks.

    Checks in a row up to now: `failures` that failed, `troubles` that were not ok, `answers` that did not fail, `goods`
    that were ok.  `told`: the worst state that people were told of since it was up.
    """

    state: State = "new"
    failures: int = 0
    troubles: int = 0
    answers: int = 0
    goods: int = 0
    told: Literal["degraded", "down"] | None = None

    def after_a_gap(self) -> Health:
        """Nobody has looked for long: what was counted says nothing of now, and what people were told still does."""
        return replace(self, failures=0, troubles=0, answers=0, goods=0)


@dataclass(frozen=True, slots=True)
class Step:
    """`again`: this check alone decides nothing, so the next one should be soon."""

    health: Health
    notice: Notice | None
    again: bool


def step(before: Health, outcome: Outcome, limits: Limits) -> Step:
    """One check further.  A check of which nothing is known changes nothing."""
    if outcome == "unknown":
        return Step(before, None, False)
    after = _counted(before, outcome)
    after = replace(after, state=_state(after, limits))
    return _told(after, limits)


def _counted(health: Health, outcome: Outcome) -> Health:
    failed, ok = outcome == "failed", outcome == "ok"
    return replace(
        health,
        failures=_one_more(health.failures) if failed else 0,
        troubles=0 if ok else _one_more(health.troubles),
        answers=0 if failed else _one_more(health.answers),
        goods=_one_more(health.goods) if ok else 0,
    )


def _one_more(count: int) -> int:
    return min(count + 1, _MOST)


def _state(health: Health, limits: Limits) -> State:
    """`health` has counted the new check, its state is still the old one."""
    if health.failures >= limits.failures:
        return "down"
    well = health.goods >= limits.successes
    match health.state:
        case "down" if health.answers < limits.successes:
            return "down"
        case "down" | "degraded":
            return "up" if well else "degraded"
        case _ if health.troubles >= limits.failures:
            return "degraded"
        case "new" if not health.goods:
            return "new"
        case _:
            return "up"


def _told(health: Health, limits: Limits) -> Step:
    """People are told when an incident begins, when it becomes worse than they know, and when it is over: each once."""
    again = _undecided(health, limits)
    state = health.state
    if (state == "degraded" or state == "down") and _RANK[state] > _RANK[health.told or "up"]:
        if _RANK[state] >= _RANK[limits.notice]:
            return Step(replace(health, told=state), state, again)
    elif state == "up" and health.told is not None:
        return Step(replace(health, told=None), "up", again)
    return Step(health, None, again)


def _undecided(health: Health, limits: Limits) -> bool:
    """Some checks in a row point away from its state, and not yet enough of them."""
    match health.state:
        case "down":
            return health.answers > 0
        case "degraded":
            return health.goods > 0 or health.failures > 0
        case _:
            return health.troubles > 0
