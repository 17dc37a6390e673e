"""What the demo shows of an attempt once its outcome is written: one line for people.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from daemon.cli_output import cell
from daemon.settle import Transition

Tone = Literal["plain", "wait", "bad", "quiet", "told"]

NAMES = {"dns_check": "dns", "domain_check": "domain", "webhook_replay": "replay", "email_forward": "forward"}
WIDTH = max(map(len, ("webhook", "email", "heartbeat", "thumbnail")))

Rows = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen, without control characters; `note` is said in a lower voice, `is_event` asks for the time
    in front."""

    text: str
    tone: Tone
    note: str = ""
    is_event: bool = False


def about(kind: str, job_id: int | None, text: str, tone: Tone) -> Line:
    """`webhook    #12  text`."""
    number = "" if job_id is None else f"#{job_id}"
    return Line(f"{cell(NAMES.get(kind, kind)):{WIDTH}}  {number:>5}  {cell(text)}", tone, is_event=True)


def news(transition: Transition, shows: str = "") -> Line | None:
    """`shows` is what the row is there to show.  None for a row that went back untouched: nothing was tried."""
    t = transition
    did = _did(t)
    end = _end(t, has_said=bool(did))
    if end is None:
        return None
    text = ", ".join(filter(None, (did, end[0])))
    if t.job.attempt > 1:
        text += f" (attempt {t.job.attempt})"
    return replace(about(t.job.kind, t.job.id, text, end[1]), note=shows)


def _end(t: Transition, *, has_said: bool) -> tuple[str, Tone] | None:
    """What it means for the row; nothing where the attempt says it all."""
    match t.outcome:
        case "done":
            return "" if has_said else "done", "plain"
        case "retry":
            return f"again in {t.delay_s or 0:.1f} s", "wait"
        case "snooze":
            return f"not now: {t.reason}; again in {t.delay_s or 0:.1f} s", "wait"
        case "dead":
            why = t.reason if not has_said or t.code == "blocked" else ""
            return f"dead: {why}" if why else "dead", "bad"
        case "cancelled":
            return f"cancelled: {t.reason}", "quiet"
        case "handed_back":
            return None


def _did(t: Transition) -> str:
    """What happened outside, by the channel's own log; other tables may have been written to besides."""
    for log, said in _LOGS.items():
        if rows := [row for ledger, row in t.records or () if ledger == log]:
            return said(rows)
    return ""


def _webhook(rows: Rows) -> str:
    row = rows[-1]
    url = urlsplit(str(row["url"]))
    where = url.path if row["status"] is not None else f"{url.netloc}{url.path}"
    return f"{where} → {row['status'] or row['code']}{_took(row['duration_ms'] if row['status'] else None)}"


def _email(rows: Rows) -> str:
    """`ada@… and 2 more → 250 in 3 ms`, `ada@… → 250, bob@… → suppressed`."""
    alike: dict[str, Rows] = {}
    for row in rows:
        alike.setdefault(_smtp(row), []).append(row)
    took = _took(rows[-1]["duration_ms"] if len(alike) == 1 and rows[-1]["smtp_code"] else None)
    return ", ".join(f"{_whom(some)} → {said}" for said, some in alike.items()) + took


def _smtp(row: Mapping[str, Any]) -> str:
    if row["smtp_code"] is None:
        return str(row["code"])
    return (
        str(row["smtp_code"])
        if row["outcome"] == "delivered"
        else f"{row['smtp_code']} {row['enhanced'] or ''}".strip()
    )


def _whom(rows: Rows) -> str:
    return f"{rows[0]['recipient']} and {len(rows) - 1} more" if len(rows) > 1 else str(rows[0]["recipient"])


def _domain(rows: Rows) -> str:
    row = rows[-1]
    types = " ".join(dict.fromkeys(str(record["type"]) for record in row["records"]))
    return f"{types} {row['domain']} → {row['verdict']}{_took(row['duration_ms'])}"


def _registered(rows: Rows) -> str:
    row = rows[-1]
    return f"{row['domain']} → {row['verdict']}, {row['step']['state']}{_took(row['duration_ms'])}"


_LOGS = {
    "webhook_deliveries": _webhook,
    "email_deliveries": _email,
    "domain_checks": _domain,
    "domains": _registered,
}


def _took(duration_ms: float | None) -> str:
    return "" if duration_ms is None else f" in {max(duration_ms, 1):.0f} ms"
