"""What a delivery attempt came to: a pure function of the status, the headers and the fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from jobs.model import Dead, Done, Outcome, Retry, Snooze
from jobs.webhook.delivery import clean
from jobs.webhook.faults import OURS, Fault
from jobs.webhook.retry_after import retry_after_s
from jobs.webhook.settings import WebhookSettings

Word = Literal["ok", "retry", "dead", "unknown", "blocked"]

_REDIRECT = "redirect_not_followed"
_OURS_AGAIN_S = 30.0  # our own lack of sockets is over or an operator is on it; a receiver has no part in it


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outcome` goes to the engine; `word` and `code` go to the delivery log.

    `unknown`: bytes of the request left and no readable answer came, so the receiver may have acted on it.  The engine
    is told to retry; the log keeps the doubt.
    """

    word: Word
    code: str
    outcome: Outcome


def judge_status(status: int, headers: Mapping[str, str], settings: WebhookSettings, now: datetime) -> Verdict:
    """Only 2xx is success (Standard Webhooks).  410, and what the operator lists, end the job; all else may pass.

    A receiver that answers 5xx or 429 is not well; where it says for how long with 429 or 503, none of its rows is sent
    until then.  Any other status is about this row alone: whoever answers it is up.
    """
    code = f"http_{status}"
    if 200 <= status <= 299:
        return Verdict("ok", code, Done({"status": status}))
    detail = {"status": status}
    if status == 410:
        gone = Dead("the receiver says it is gone for good", code=code, detail=detail, lane_fault=False)
        return Verdict("dead", code, gone)
    if status in settings.permanent_statuses:
        refused = Dead(f"the receiver answered {status}", code=code, detail=detail, lane_fault=False)
        return Verdict("dead", code, refused)
    after_s = retry_after_s(headers.get("retry-after"), now, settings.retry_after_max)
    if 300 <= status <= 399:
        reason = f"{_REDIRECT}: {_host(headers.get('location', ''))}"
        moved = Retry(reason, after=after_s, code=_REDIRECT, detail=detail, lane_fault=False)
        return Verdict("retry", _REDIRECT, moved)
    later = Retry(
        f"the receiver answered {status}",
        after=after_s,
        code=code,
        detail=detail,
        lane_fault=status >= 500 or status == 429,
        lane_after=after_s if status in (429, 503) else None,
    )
    return Verdict("retry", code, later)


def judge_fault(fault: Fault, *, sent: bool) -> Verdict:
    """No answer.  `sent`: bytes of the request may have left.  Being stopped says nothing of the receiver."""
    code, reason = fault.code, str(fault)
    if code == "blocked":
        return Verdict("blocked", code, Dead(reason, code=code))
    if code in ("bad_url", "bad_request"):
        return Verdict("dead", code, Dead(reason, code=code))
    if code in OURS:
        return Verdict("retry", code, Snooze(reason, after=_OURS_AGAIN_S, code=code))
    silent = Retry(reason, code=code, lane_fault=None if code == "interrupted" else True)
    return Verdict("unknown" if sent else "retry", code, silent)


def _host(location: str) -> str:
    """The host a redirect points to, and no more: its path and query are the receiver's business."""
    try:
        return clean((urlsplit(location).hostname or "the same host")[:253])
    except ValueError:
        return "an unreadable location"
