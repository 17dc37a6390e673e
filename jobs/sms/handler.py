"""The `sms` kind: one request per attempt to a provider, judged and recorded."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from jobs.context import Context
from jobs.model import Ladder, Outcome
from jobs.notification import LEDGER, Refused, Verdict, row, translated
from jobs.registry import job
from jobs.sms.args import SmsArgs, lane, masked
from jobs.sms.compose import Composed, compose
from jobs.sms.judge import Said, judge, read, unanswered
from jobs.sms.settings import MAIN
from jobs.values import Size, duration
from jobs.webhook.attempt import Reply, post
from jobs.webhook.sending import guarded, rehearse, sent, silence
from jobs.webhook.settings import WebhookSettings

ANSWER_MAX = Size(64 * 1024)
"""Of an answer that the verdict stands in."""


@job("sms", args=SmsArgs, retry=Ladder("1m", "5m", "15m", "1h", "4h"), timeout="5m", lane=lane)
async def sms(args: SmsArgs, ctx: Context) -> Outcome:
    """Send the message once and say what came of it."""
    transport, reply = guarded(ctx.http), Reply()
    try:
        composed = await compose(args, ctx, transport)
    except Refused as refused:
        return _finish(args, ctx, reply, refused.verdict)
    if ctx.dry_run:
        return await rehearse(composed.message, transport, parts=composed.parts)
    longest_s = composed.provider.timeout
    timeout_s = longest_s if args.timeout is None else min(longest_s, duration(args.timeout))
    await sent(post(transport, composed.message, _whole(ctx.tools.webhook), timeout_s, reply), reply)
    said = read(composed.provider, reply.body)
    return _finish(args, ctx, reply, _judged(ctx, composed, reply, said), composed, said)


def _whole(settings: WebhookSettings) -> WebhookSettings:
    """An answer is read as far as it is judged, whatever is kept of webhooks' answers."""
    if settings.response_keep >= ANSWER_MAX:
        return settings
    return replace(settings, response_keep=ANSWER_MAX, response_max=max(ANSWER_MAX, settings.response_max))


def _judged(ctx: Context, composed: Composed, reply: Reply, said: Said) -> Verdict:
    if reply.status is None:
        return unanswered(composed.provider, translated(silence(reply)))
    longest_s = ctx.tools.webhook.retry_after_max
    verdict = judge(composed.provider, reply.status, reply.headers, said, longest_s, datetime.now(UTC))
    if verdict.result == "deferred":
        ctx.log.warning("sms_provider_refuses", provider=ctx.job.lane, status=reply.status, code=verdict.code)
    return verdict


def _finish(
    args: SmsArgs,
    ctx: Context,
    reply: Reply,
    verdict: Verdict,
    composed: Composed | None = None,
    said: Said | None = None,
) -> Outcome:
    if ctx.dry_run:
        return verdict.outcome
    words = ""
    if composed is not None and verdict.result != "delivered":
        words = _discreet(reply.body.decode("utf-8", "replace"), args.to, composed.text)
    log = row(
        "sms",
        masked(args.to),
        args.provider or MAIN,
        verdict,
        reply,
        message_id=None if said is None else said.message_id,
        words=words,
        parts=None if composed is None else composed.parts,
        again=ctx.job.crashes > 0,
    )
    ctx.record(LEDGER, log)
    return verdict.outcome


def _discreet(words: str, number: str, text: str) -> str:
    """Providers repeat the number and the text, which are not for everybody who reads the log."""
    for secret, shown in ((number, masked(number)), (number[1:], masked(number)[1:]), (text, "…")):
        words = words.replace(secret, shown)
    return words
