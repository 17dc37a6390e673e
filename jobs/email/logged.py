"""What an attempt writes into `email_deliveries`, and what it finds there of those before it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jobs.context import Context, Ledger
from jobs.email.address import Mailbox
from jobs.email.decide import decide
from jobs.email.judge import Verdict, judge
from jobs.email.past import Past
from jobs.email.reply import Answer, DeliveryReport
from jobs.model import Outcome

LEDGER = Ledger("email_deliveries")


def _before(past: Past, recipients: Sequence[Mailbox]) -> dict[str, Verdict]:
    """Verdicts of earlier attempts, for those who are not tried again."""
    verdicts: dict[str, Verdict] = {}
    for address in (r.address for r in recipients):
        if address in past.delivered:
            verdicts[address] = Verdict("delivered", "delivered")
        elif address in past.refused:
            verdicts[address] = Verdict("hard", "refused_before")
        elif past.unknown[address]:
            verdicts[address] = Verdict("unknown", "unknown_before")
    return verdicts


def note(
    ctx: Context,
    message_id: str,
    recipients: Sequence[Mailbox],
    report: DeliveryReport,
    past: Past,
    left_out: Mapping[str, Verdict] = MappingProxyType({}),
) -> tuple[Outcome, Mapping[str, Verdict]]:
    """Write down what an attempt came to, and say it: of the row, and of each recipient that was answered for."""
    verdicts = {answer.recipient: judge(answer) for answer in report.answers}
    _alert(ctx, report)
    _record(ctx, message_id, report, verdicts, past)
    _record_left_out(ctx, message_id, left_out, past)
    outcome = decide(
        _before(past, recipients) | dict(left_out) | verdicts,
        attempt=ctx.job.attempt,
        after_s=report.after_s,
        asked_before=past.unknown,
        dice=random.random(),  # noqa: S311 - spreads waiting rows, guards nothing
        slowed=report.slowed,
    )
    return outcome, verdicts


def _alert(ctx: Context, report: DeliveryReport) -> None:
    for alert in report.alerts:
        if alert.off:
            ctx.log.error("email_relay_off", relay=alert.relay, cause=alert.code, why=alert.why)
        else:
            ctx.log.warning("email_relay_on", relay=alert.relay, cause=alert.code)


def _record(ctx: Context, message_id: str, report: DeliveryReport, verdicts: Mapping[str, Verdict], past: Past) -> None:
    for answer in report.passed:
        if answer.phase != "queue":
            ctx.record(LEDGER, _row(answer, judge(answer), message_id, again=False))
    for answer in report.answers:
        if answer.phase == "queue":
            continue  # nothing was tried, and rows that wait may wait a hundred times
        again = past.unknown[answer.recipient] > 0 or ctx.job.crashes > 0
        if again:
            ctx.log.warning("email_possible_duplicate", recipient=answer.recipient, message_id=message_id)
        ctx.record(LEDGER, _row(answer, verdicts[answer.recipient], message_id, again=again))


def _record_left_out(ctx: Context, message_id: str, left_out: Mapping[str, Verdict], past: Past) -> None:
    """Once for each: rows are tried again for the sake of others."""
    for address, verdict in left_out.items():
        if address not in past.left_out:
            answer = Answer(address, "queue", note=verdict.why)
            ctx.record(LEDGER, _row(answer, verdict, message_id, again=False))


def _row(answer: Answer, verdict: Verdict, message_id: str, *, again: bool) -> dict[str, Any]:
    reply = answer.reply
    return {
        "recipient": answer.recipient,
        "relay": answer.relay or None,
        "message_id": message_id,
        "outcome": verdict.result,
        "code": verdict.code,
        "smtp_code": reply.code if reply else None,
        "enhanced": reply.enhanced if reply else None,
        "reply": reply.words if reply else answer.note[:1024] or None,
        "phase": answer.phase,
        "duration_ms": answer.duration_ms,
        "possible_duplicate": again,
    }
