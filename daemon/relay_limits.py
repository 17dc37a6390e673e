"""What a relay takes, as limits: so many in a period and so many a day, over all daemons.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from daemon.work_settings import LimitSettings
from jobs.email.settings import DAY_S, RelaySettings
from jobs.email.turns import RELAY_KINDS
from jobs.values import Rate

RATE, DAY, ORDINARY = "relay:", "relay_day:", "relay_ordinary:"
"""Before a relay's name: its rate, its day, and what mail without `security` may take of a day."""

LATE_S = 0.05
"""A burst that leaves tokens so much time to be late in is leased ahead of need; a smaller one token by token."""

TRIP_S = 0.01
"""What a token that is leased alone loses on its way, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimit(LimitSettings):
    """One limit of a relay.  `of_day`: so many a day, one that begins at `day`, in seconds after midnight UTC
    (ANY_DAY: any 24 hours).  `ordinary`: security mail is not counted."""

    of_day: int | None = None
    day: int | None = None
    ordinary: bool = False

    def counts(self, kind: str, args: Mapping[str, Any]) -> bool:
        """Whether it is about this row, whose lane it matches."""
        return kind in RELAY_KINDS and not (self.ordinary and args.get("security") is True)


def relay_limits(relays: Mapping[str, RelaySettings]) -> dict[str, LimitSettings]:
    """By name, as [limits.*] has them."""
    found: dict[str, LimitSettings] = {}
    for name, relay in relays.items():
        if relay.rate is not None:
            pace, burst = spaced(relay.rate, relay.burst)
            found[RATE + name] = RelayLimit(lane=name, rate=pace, burst=burst)
        if (most := relay.messages_per_day) is not None:
            found[DAY + name] = _of_day(name, relay, most)
            found[ORDINARY + name] = _of_day(name, relay, max(1, round(most * (1 - relay.reserve))), ordinary=True)
    return found


def names_of(relay: str, *, security: bool) -> tuple[str, ...]:
    """The limits that a hand-over to this relay takes from, those that there are."""
    return (RATE + relay, DAY + relay) if security else (RATE + relay, DAY + relay, ORDINARY + relay)


def spaced(rate: Rate, burst: int | None = None) -> tuple[Rate, int]:
    """The rate and burst of a bucket that lets no more than `rate.count` through in any window of its period.

    Tokens `t` apart that may be (burst - 1) * t late let `period / t + burst - 1` through.  A burst of one uses the
    rate up, but each of its tokens is leased alone; so of the faster rates a few are given for time to be late in.
    """
    count, period_s = (
        max(floor(rate.count), 1),
        rate.period_s * max(1.0, 1.0 / rate.count),
    )  # "0.5/s": one in two seconds
    if burst is None:
        roomy = 1 + ceil(LATE_S * count / (period_s + LATE_S))
        alone_s = period_s / count
        burst = roomy if count > roomy and (count - roomy + 1) / count > alone_s / (alone_s + TRIP_S) else 1
    return Rate(count - burst + 1, period_s, str(rate)), burst


def _of_day(lane: str, relay: RelaySettings, most: int, *, ordinary: bool = False) -> RelayLimit:
    pace = Rate(float(most), DAY_S, f"{most}/d")
    return RelayLimit(lane=lane, rate=pace, of_day=most, day=relay.day_starts_s, ordinary=ordinary)
