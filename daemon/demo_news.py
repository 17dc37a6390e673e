"""What the demo shows of an attempt once its outcome is written: one line for people.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from daemon.cli_output import cell
from daemon.settle import Transition

Tone = Literal["plain", "wait", "bad", "quiet", "told"]

NAMES = {"dns_check": "dns", "webhook_replay": "replay"}
WIDTH = max(map(len, ("webhook", "email", "heartbeat", "thumbnail")))
NOTHING: Mapping[str, Any] = {}


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
    end = _end(t)
    if end is None:
        return None
    text = ", ".join(filter(None, (_did(t), end[0])))
    if t.job.attempt > 1:
        text += f" (attempt {t.job.attempt})"
    return replace(about(t.job.kind, t.job.id, text, end[1]), note=shows)


def _end(t: Transition) -> tuple[str, Tone] | None:
    """What it means for the row; nothing where the attempt says it all."""
    match t.outcome:
        case "done":
            return "" if t.records else "done", "plain"
        case "retry":
            return f"again in {t.delay_s or 0:.1f} s", "wait"
        case "snooze":
            return f"not now: {t.reason}; again in {t.delay_s or 0:.1f} s", "wait"
        case "dead":
            why = t.reason if not t.records or t.code == "blocked" else ""
            return f"dead: {why}" if why else "dead", "bad"
        case "cancelled":
            return f"cancelled: {t.reason}", "quiet"
        case "handed_back":
            return None


def _did(t: Transition) -> str:
    """What happened outside, by the channel's own log."""
    if not t.records:
        return ""
    ledger, row = t.records[-1]
    match ledger:
        case "webhook_deliveries":
            return _webhook(row)
        case "email_deliveries":
            return _email([row for _, row in t.records])
        case "domain_checks":
            return _domain(row)
    return ""


def _webhook(row: Mapping[str, Any]) -> str:
    url = urlsplit(str(row["url"]))
    where = url.path if row["status"] is not None else f"{url.netloc}{url.path}"
    return f"{where} → {row['status'] or row['code']}{_took(row['duration_ms'] if row['status'] else None)}"


def _email(rows: list[Mapping[str, Any]]) -> str:
    last = rows[-1]
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    code = f"{last['smtp_code']} {last['enhanced'] or ''}".strip() if last["smtp_code"] else last["code"]
    return f"{rows[0]['recipient']}{more} → {code}{_took(last['duration_ms'])}"


def _domain(row: Mapping[str, Any]) -> str:
    types = " ".join(dict.fromkeys(str(record["type"]) for record in row["records"]))
    return f"{types} {row['domain']} → {row['verdict']}{_took(row['duration_ms'])}"


def _took(duration_ms: float | None) -> str:
    return "" if duration_ms is None else f" in {max(duration_ms, 1):.0f} ms"
