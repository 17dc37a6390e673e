"""What people are told: one event, and one mail to each, when an incident begins, becomes worse, and is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs.monitor.reading import Reading
from jobs.monitor.state import Notice
from jobs.sentence import sentence
from jobs.values import duration_text

_WORDS = {"down": "is down", "degraded": "is not well", "up": "is well again"}


@dataclass(frozen=True, slots=True)
class Told:
    """`payload` of the event jobsd.monitor_down, jobsd.monitor_degraded or jobsd.monitor_up; `mail`: the args of a row
    of kind email, None where nobody is written to."""

    payload: dict[str, Any]
    mail: dict[str, Any] | None


def notice(
    what: Notice,
    *,
    name: str,
    target: str,
    reading: Reading,
    began_at: datetime | None,
    now: datetime,
    tell: Sequence[str],
) -> Told:
    """What is said of a monitor that has become `what`; `began_at`: when its trouble began."""
    lasted_s = None if began_at is None else max(0, round((now - began_at).total_seconds()))
    payload = {
        "monitor": name,
        "target": target,
        "state": what,
        "code": reading.code,
        "reason": reading.reason,
        "latency_ms": reading.latency_ms,
        "certificate_ends_at": reading.expires_at.isoformat() if reading.expires_at else None,
        "at": now.isoformat(),
        "lasted_s": lasted_s if what == "up" else None,
    }
    return Told(payload, _mail(what, name, target, reading, lasted_s, now, tell) if tell else None)


def _mail(
    what: Notice, name: str, target: str, reading: Reading, lasted_s: int | None, now: datetime, tell: Sequence[str]
) -> dict[str, Any]:
    lines = [f"{name} {_WORDS[what]}: {target}", "", f"Seen {now:%Y-%m-%d %H:%M:%S} UTC."]
    if what == "up":
        lines += [f"It was not for {duration_text(lasted_s)}."] if lasted_s else []
    else:
        lines += [f"{sentence(reading.reason)} ({reading.code}).", ""]
        lines += [f"What was found before: jobsd monitors show {name}", "You are told once more when it is well again."]
    return {"to": list(tell), "subject": f"{name} {_WORDS[what]}", "text": "\n".join(lines) + "\n"}
