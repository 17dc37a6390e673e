"""The `webhook` kind: one signed POST per attempt, judged and recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jobs.context import Context
from jobs.model import Ladder, Outcome, Retry
from jobs.registry import job
from jobs.values import Duration
from jobs.webhook import delivery
from jobs.webhook.addressee import Addressed, NoAddressee, addressed
from jobs.webhook.args import WebhookArgs, lane
from jobs.webhook.attempt import Reply, post
from jobs.webhook.compose import Refused, compose
from jobs.webhook.faults import Fault
from jobs.webhook.judge import Gone, Verdict, judge_fault, judge_status
from jobs.webhook.sending import guarded, rehearse, sent, silence
from jobs.webhook.settings import WebhookSettings


@job("webhook", args=WebhookArgs, retry=Ladder("1m", "5m", "30m", "2h"), timeout="5m", lane=lane)
async def webhook(args: WebhookArgs, ctx: Context) -> Outcome:
    """POST the payload once and say what came of it."""
    transport, settings, reply = guarded(ctx.http), ctx.tools.webhook, Reply()
    try:
        to = await addressed(args, ctx)
    except NoAddressee as nobody:
        return _unaddressed(args, ctx, nobody)
    try:
        message = await compose(to.draft, ctx, transport)
    except Refused as refused:
        return _finish(to, ctx, reply, refused.verdict)
    except OSError as error:  # a secret or a certificate that is there, and that this daemon cannot open
        ctx.log.warning("webhook_local_error", error=repr(error))
        return _finish(to, ctx, reply, judge_fault(Fault("local_error"), sent=False))
    if ctx.dry_run:
        return await rehearse(message, transport)
    await sent(post(transport, message, settings, args.timeout_s(_longest(settings, to)), reply), reply)
    verdict = _judged(reply, settings, to.gone)
    if to.endpoint is not None:
        ctx.tools.health.note(to.endpoint, to.draft.message_id, verdict, settings.disable_after)
    return _finish(to, ctx, reply, verdict)


def _longest(settings: WebhookSettings, to: Addressed) -> Duration:
    return settings.timeout if to.timeout_s is None else min(settings.timeout, Duration(to.timeout_s))


def _judged(reply: Reply, settings: WebhookSettings, gone: Gone) -> Verdict:
    if reply.status is None:
        return silence(reply)
    return judge_status(reply.status, reply.headers, settings, datetime.now(UTC), gone)


def _unaddressed(args: WebhookArgs, ctx: Context, nobody: NoAddressee) -> Outcome:
    if nobody.told and not ctx.dry_run:
        word = "retry" if isinstance(nobody.outcome, Retry) else "dead"
        row = delivery.row(
            word=word,
            code=nobody.code,
            url="",
            event=args.event,
            event_id=args.event_id,
            endpoint_id=args.endpoint,
            replay_id=args.replay,
        )
        ctx.record(delivery.LEDGER, row)
    return nobody.outcome


def _finish(to: Addressed, ctx: Context, reply: Reply, verdict: Verdict) -> Outcome:
    if not ctx.dry_run:
        ctx.record(delivery.LEDGER, _row(to, reply, verdict))
    return verdict.outcome


def _row(to: Addressed, reply: Reply, verdict: Verdict) -> dict[str, Any]:
    trip = reply.trip
    return delivery.row(
        word=verdict.word,
        code=verdict.code,
        url=to.draft.url,
        event=to.draft.event,
        event_id=to.event_id,
        endpoint=None if to.endpoint is None else to.endpoint.name,
        endpoint_id=None if to.endpoint is None else to.endpoint.id,
        replay_id=to.replay,
        began_at=reply.began_at,
        status=reply.status,
        address=None if trip is None else trip.address,
        phases_s=None if trip is None else trip.phases_s,
        duration_s=reply.duration_s,
        request_bytes=reply.request_bytes,
        headers=reply.headers,
        body=reply.body,
        truncated=reply.truncated,
    )
