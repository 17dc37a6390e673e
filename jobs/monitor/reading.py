"""What one check found, and how long each part of it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic

from jobs.monitor.state import Outcome
from jobs.values import duration_text


@dataclass(slots=True)
class Look:
    """One check under way, of `patience_s`.  `doing` is what it waits for; `phases_s` what it has waited for."""

    patience_s: float
    began_at: float = field(default_factory=monotonic)
    phases_s: dict[str, float] = field(default_factory=dict)
    doing: str = "start"
    address: str | None = None
    expires_at: datetime | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.doing = name
        began_at = monotonic()
        try:
            yield
        finally:
            self.phases_s[name] = monotonic() - began_at

    @property
    def took_s(self) -> float:
        return monotonic() - self.began_at

    @property
    def left_s(self) -> float:
        return max(0.0, self.patience_s - self.took_s)


class Unwell(Exception):
    """What was looked at is not well: `code` of a bounded vocabulary, and a sentence for people.  `ours`: it is our own
    side that is not, so nothing is known."""

    def __init__(self, code: str, reason: str, *, ours: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.ours = ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one check came to."""

    outcome: Outcome
    code: str = ""
    reason: str = ""
    latency_ms: float
    phases_ms: Mapping[str, float] = field(default_factory=dict)
    address: str | None = None
    expires_at: datetime | None = None


def failed(look: Look, why: Unwell) -> Reading:
    return _reading(look, "unknown" if why.ours else "failed", why.code, why.reason)


def answered(look: Look, *, slow_s: float | None, expires_s: float, now: datetime) -> Reading:
    """It answers as it should; whether that was soon enough, and whether its certificate lasts."""
    if look.expires_at is not None and look.expires_at - now < timedelta(seconds=expires_s):
        left_s = max(0.0, (look.expires_at - now).total_seconds())
        ends = f"{look.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return _reading(look, "poor", "certificate_expires", f"its certificate ends at {ends}, in {_roughly(left_s)}")
    if slow_s is not None and look.took_s > slow_s:
        return _reading(look, "poor", "slow", f"it took {look.took_s:.2f} s, longer than {duration_text(slow_s)}")
    return _reading(look, "ok", "", "")


def _reading(look: Look, outcome: Outcome, code: str, reason: str) -> Reading:
    return Reading(
        outcome=outcome,
        code=code,
        reason=reason,
        latency_ms=round(look.took_s * 1000, 3),
        phases_ms={name: round(seconds * 1000, 3) for name, seconds in look.phases_s.items()},
        address=look.address,
        expires_at=look.expires_at,
    )


def _roughly(seconds: float) -> str:
    days, hours = divmod(int(seconds // 3600), 24)
    return f"{days} days" if days > 1 else f"{24 * days + hours} hours"
