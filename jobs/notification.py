"""What push and sms share: the mails' words for what came of an attempt, and one delivery log."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from jobs.context import Context, Ledger
from jobs.email.judge import Result
from jobs.model import Dead, Outcome, Retry, Snooze
from jobs.templates import BadTemplate, TemplatesAway
from jobs.webhook import judge as webhook
from jobs.webhook.attempt import Reply
from jobs.webhook.delivery import clean
from jobs.webhook.faults import Fault, fault_of
from jobs.webhook.trip import Trip

LEDGER = Ledger("notification_deliveries")

REPLY_MAX = 500

Channel = Literal["push", "sms"]

_GUARDED = frozenset(["blocked", "bad_url"])

_RESULTS: dict[webhook.Word, Result] = {
    "ok": "delivered",
    "retry": "soft",
    "dead": "hard",
    "blocked": "hard",
    "unknown": "unknown",
}


class Verdict(msgspec.Struct, frozen=True):
    """`outcome` goes to the engine; `result` and `code` go to the delivery log."""

    result: Result
    code: str
    outcome: Outcome


class Refused(Exception):
    """There is nothing to send."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.code)
        self.verdict = verdict


def hopeless(code: str, reason: str) -> Refused:
    """What the row says will not do."""
    return Refused(Verdict("hard", code, Dead(reason, code=code)))


def not_set_up(code: str, reason: str) -> Refused:
    """The operator's to put right, within the ladder's time; then the dead letter can be retried."""
    return Refused(Verdict("soft", code, Retry(reason, code=code)))


def unreachable(error: OSError | ValueError) -> Refused:
    """Whom the guard refuses, or a trouble of this daemon's."""
    fault = fault_of(error, Trip())
    return Refused(
        translated(webhook.judge_fault(fault if fault.code in _GUARDED else Fault("local_error"), sent=False))
    )


async def rendered(template: str, payload: bytes, ctx: Context, size_max: int) -> str:
    """`template` with the JSON `payload` as its variable; Refused."""
    try:
        return await ctx.tools.templates.render(template, b'{"payload":%s}' % payload, size_max=size_max)
    except BadTemplate as error:
        raise hopeless(error.code, str(error)) from None
    except TemplatesAway:
        reason = "this daemon cannot start a process for templates"
        away = Snooze(reason, after=webhook.OURS_AGAIN_S, code="templates_away")
        raise Refused(Verdict("deferred", "templates_away", away)) from None


def translated(verdict: webhook.Verdict) -> Verdict:
    """What was judged as a webhook, in the mails' words: what is put off through no fault of the row is deferred."""
    deferred = isinstance(verdict.outcome, Snooze)
    return Verdict("deferred" if deferred else _RESULTS[verdict.word], verdict.code, verdict.outcome)


def row(
    channel: Channel,
    recipient: str,
    service: str,
    verdict: Verdict,
    reply: Reply,
    *,
    message_id: str | None = None,
    words: str = "",
    parts: int | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """The delivery log's.  `recipient` is nothing that could be sent to; `words` are the service's own, `again`: the
    message may have been sent before.  Phases and duration in milliseconds."""
    phases_s = {} if reply.trip is None else reply.trip.phases_s
    return {
        "channel": channel,
        "recipient": recipient,
        "service": clean(service)[:255],
        "message_id": None if message_id is None else clean(message_id)[:255],
        "outcome": verdict.result,
        "code": verdict.code,
        "status": reply.status,
        "reply": clean(" ".join(words.split()))[:REPLY_MAX] or None,
        "parts": parts,
        "phases": {name: round(seconds * 1000, 2) for name, seconds in phases_s.items()},
        "duration_ms": round(reply.duration_s * 1000, 2),
        "request_bytes": reply.request_bytes,
        "possible_duplicate": again,
        "began_at": reply.began_at,
    }
