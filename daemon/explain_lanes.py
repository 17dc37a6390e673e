"""Why rows of a destination wait: the holds of its lane, in words.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from jobs.webhook.endpoints import LANE


@dataclass(frozen=True, slots=True)
class LaneHold:
    """A row of job_holds about a lane; `probe` is the daemon that was given its probe last, `rung` how often in a row
    it was closed before."""

    lane: str
    cause: str
    since: datetime
    until: datetime | None
    actor: str | None
    reason: str | None
    rung: int
    probe: str | None


@dataclass(frozen=True, slots=True)
class LaneGate:
    """What one hold means for a row: a sentence, when it opens if that is known, and what opens it."""

    name: str
    says: str
    opens_at: datetime | None
    opens: str


_WORDS = {
    "breaker": "is closed: it failed too often",
    "retry_after": "is closed: it asked to be left alone",
    "quota": "is closed: its quota is used up",
    "disabled": "is closed: its endpoint is disabled",
}


def lane_gates(holds: Sequence[LaneHold], now: datetime) -> Iterator[LaneGate]:
    """One for each hold, the one that lasts longest first.  A pause is told of elsewhere, as that of a queue."""
    last = max((hold.until for hold in holds if hold.until is not None), default=None)
    for hold in sorted(holds, key=_ends, reverse=True):
        why = f": {hold.reason}" if hold.reason else ""
        since = f"since {_time(hold.since)}"
        again = f", for the {_ordinal(hold.rung + 1)} time in a row" if hold.rung else ""
        says = f"lane {hold.lane} {_WORDS.get(hold.cause, 'is closed')} {since}{again}{why}"
        says += f" (by {hold.actor})" if hold.cause == "disabled" and hold.actor else ""
        ends = None if hold.until is None else last
        yield LaneGate(f"lane_{hold.cause}", says, ends, _opens(hold, now))


def _ends(hold: LaneHold) -> float:
    return inf if hold.until is None else hold.until.timestamp()


def busy_lane(lane: str) -> LaneGate:
    """At the gate of a lane that nothing holds."""
    says = f"as many rows as may be under way to {lane} are: few at first, more with each that goes well"
    return LaneGate("lane_busy", says, None, f"when one of them has ended; more: lanes.{lane}.start and .concurrency")


def _opens(hold: LaneHold, now: datetime) -> str:
    if hold.cause == "disabled":
        return f"jobsd endpoints enable {hold.lane.removeprefix(LANE)}"
    reset = f"at once: jobsd lanes reset {hold.lane}"
    if hold.until is not None and hold.until > now and hold.probe is not None:
        return f"{hold.probe} tries one row now; if that goes well it opens, else it stays closed for longer; {reset}"
    return f"then one row is tried; if that goes well the others follow; {reset}"


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
