"""What a delivery attempt came to: a pure function of the status, the headers and the fault."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from jobs.model import Dead, Done, Outcome, Retry, Snooze
from jobs.webhook.delivery import clean
from jobs.webhook.faults import OURS, Fault
from jobs.webhook.retry_after import retry_after_s
from jobs.webhook.settings import WebhookSettings

Word = Literal["ok", "retry", "dead", "unknown", "blocked"]

Plea = Literal["gone", "disable"]
"""What a receiver says of itself: that it is gone for good (410), or that it wants no more."""

Gone = Literal["confirm", "immediate", "ignore"]
"""How an endpoint takes a 410: believed when a second message gets one, at once, or as any other failure."""

OURS_AGAIN_S = 30.0
"""Our own lack of sockets is over by then or an operator is on it; a receiver has no part in it."""

_REDIRECT = "redirect_not_followed"
_ABORT, _DISABLE = "abort-message", "disable"


class Verdict(msgspec.Struct, frozen=True):
    """`outcome` goes to the engine; `word` and `code` go to the delivery log; `plea` is about the endpoint.

    `unknown`: bytes of the request left and no readable answer came, so the receiver may have acted on it.  The engine
    is told to retry; the log keeps the doubt.
    """

    word: Word
    code: str
    outcome: Outcome
    plea: Plea | None = None


def judge_status(
    status: int, headers: Mapping[str, str], settings: WebhookSettings, now: datetime, gone: Gone = "confirm"
) -> Verdict:
    """Only 2xx is success (Standard Webhooks).  410, and what the operator lists, end the job; all else may pass.

    A receiver that answers 5xx or 429 is not well; where it says for how long with 429 or 503, none of its rows is sent
    until then.  Any other status is about this row alone: whoever answers it is up.
    """
    if 200 <= status <= 299 and not settings.obey_delivery_header:
        return well(status)
    code, detail = f"http_{status}", {"status": status}
    wish = headers.get("webhook-delivery", "").strip().lower() if settings.obey_delivery_header else ""
    plea: Plea | None = "disable" if wish == _DISABLE else None
    if 200 <= status <= 299:
        return well(status) if plea is None else Verdict("ok", code, Done(detail), plea)
    if wish in (_ABORT, _DISABLE):
        obeyed = Dead(
            f"the receiver answered {status} and webhook-delivery: {wish}", code=wish, detail=detail, lane_fault=False
        )
        return Verdict("dead", wish, obeyed, plea)
    if status == 410 and gone != "ignore":
        left = Dead("the receiver says it is gone for good", code=code, detail=detail, lane_fault=False)
        return Verdict("dead", code, left, "gone")
    if status in settings.permanent_statuses:
        refused = Dead(f"the receiver answered {status}", code=code, detail=detail, lane_fault=False)
        return Verdict("dead", code, refused)
    return judge_failure(status, headers, settings.retry_after_max, now)


def judge_failure(status: int, headers: Mapping[str, str], longest_s: float, now: datetime) -> Verdict:
    """Of an answer that is no success and may be another the next time.  `longest_s`: it may ask for no longer wait."""
    code, detail = f"http_{status}", {"status": status}
    after_s = retry_after_s(headers.get("retry-after"), now, longest_s)
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


@lru_cache(maxsize=100)
def well(status: int) -> Verdict:
    """Of a 2xx without a plea."""
    return Verdict("ok", f"http_{status}", Done({"status": status}))


def judge_fault(fault: Fault, *, sent: bool) -> Verdict:
    """No answer.  `sent`: bytes of the request may have left, so it is an attempt even where the fault is ours; neither
    that nor being stopped says anything of the receiver."""
    code, reason = fault.code, str(fault)
    if code == "blocked":
        return Verdict("blocked", code, Dead(reason, code=code))
    if code in ("bad_url", "bad_request"):
        return Verdict("dead", code, Dead(reason, code=code))
    if code in OURS and not sent:
        return Verdict("retry", code, Snooze(reason, after=OURS_AGAIN_S, code=code))
    silent = Retry(reason, code=code, lane_fault=None if code in OURS or code == "interrupted" else True)
    return Verdict("unknown" if sent else "retry", code, silent)


def _host(location: str) -> str:
    """The host a redirect points to, and no more: its path and query are the receiver's business."""
    try:
        return clean((urlsplit(location).hostname or "the same host")[:253])
    except ValueError:
        return "an unreadable location"
