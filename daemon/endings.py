"""How an attempt ended, as the columns and ledger rows that tell it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from daemon.settle import Transition
from daemon.texts import json_text, plain
from jobs.context import Ledger
from jobs.model import Job

STATES = {"done": b"d", "dead": b"x", "cancelled": b"c"}
"""As the finishing statement reads them."""

WEBHOOK_DELIVERIES = Ledger("webhook_deliveries")
"""The log of the busiest channel: of a row that ended it is written by the finishing statement."""

_LANE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")
"""What table jobs takes for a lane."""


def told(values: list[str | None]) -> list[str | None] | None:
    """An array that says nothing is null: the driver asks of each element what it is, for 0.8 µs, even of none."""
    return values if values.count(None) < len(values) else None


def result(t: Transition) -> str | None:
    return t.result_json if t.result_json is not None or t.result is None else json_text(t.result)


def lane(job: Job) -> str | None:
    """The lane a handler derived, unless the table would refuse it, and with it the whole batch."""
    return job.lane if isinstance(job.lane, str) and _LANE.fullmatch(job.lane) else None


def code(transition: Transition) -> str | None:
    return None if transition.code is None else plain(transition.code, 100)


def error_text(transition: Transition) -> str | None:
    """jobs.last_error: {"code", "message", "detail"?, "trace"?} of a failed or put-off attempt."""
    if transition.reason is None and transition.code is None:
        return None
    error: dict[str, Any] = {"code": code(transition), "message": plain(transition.reason or "")}
    if transition.detail is not None:
        error["detail"] = transition.detail
    if transition.trace is not None:
        error["trace"] = plain(transition.trace, 16_000)
    return json_text(error)


def whose(job: Job) -> dict[str, Any]:
    """What all rows about a job have in common."""
    return {"job_id": job.id, "attempt": job.attempt, "org_id": job.org_id, "correlation_id": job.correlation_id}


def needs_more(t: Transition) -> bool:
    """Whether the statement that writes its end does not write all of it."""
    if t.progress is not None or t.job.batch_id is not None:
        return True
    return t.records is not None and any(not _goes_along(t, ledger) for ledger, _row in t.records)


def deliveries(batch: Sequence[Transition]) -> str | None:
    """What rows that ended say in the webhooks' log, as JSON; None: nothing."""
    rows = [
        {**row, **whose(t.job)} for t in batch if t.records for ledger, row in t.records if ledger == WEBHOOK_DELIVERIES
    ]
    return json_text(rows) if rows else None


def ledger_rows(batch: Sequence[Transition]) -> dict[Ledger, list[dict[str, Any]]]:
    """What the attempts recorded and is not written with their end, with what every channel's log has in common."""
    found: defaultdict[Ledger, list[dict[str, Any]]] = defaultdict(list)
    for t in batch:
        for ledger, row in t.records or ():
            if not _goes_along(t, ledger):
                found[ledger].append({**row, **whose(t.job), "retry_in_s": t.delay_s if t.state == "ready" else None})
    return found


def _goes_along(t: Transition, ledger: Ledger) -> bool:
    """In the statement that writes its end."""
    return ledger == WEBHOOK_DELIVERIES and t.state != "ready"
