"""The `push` kind: one sealed message per attempt to a browser's push service, judged and recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

from jobs.context import Context, Ledger
from jobs.model import Ladder, Outcome
from jobs.notification import LEDGER, Refused, Verdict, row, translated
from jobs.push.args import PushArgs, lane
from jobs.push.compose import Sealed, compose
from jobs.push.judge import REFUSALS, judge, spent
from jobs.registry import job
from jobs.values import duration
from jobs.webhook.attempt import Reply, post
from jobs.webhook.delivery import shown_url
from jobs.webhook.sending import guarded, rehearse, sent, silence
from sql import load

GONE = Ledger("push_gone")
"""An event, so that whoever keeps the subscription can forget it."""


@job("push", args=PushArgs, retry=Ladder("1m", "5m", "30m", "2h"), timeout="5m", lane=lane)
async def push(args: PushArgs, ctx: Context) -> Outcome:
    """Send the message once and say what came of it."""
    transport, reply = guarded(ctx.http), Reply()
    try:
        sealed = await compose(args, ctx, transport)
    except Refused as refused:
        return _finish(args, ctx, lane(args) or "", reply, refused.verdict)
    if ctx.dry_run:
        return await rehearse(sealed.message, transport)
    longest_s = ctx.tools.push.settings.timeout
    timeout_s = longest_s if args.timeout is None else min(longest_s, duration(args.timeout))
    await sent(post(transport, sealed.message, ctx.tools.webhook, timeout_s, reply), reply)
    return _finish(args, ctx, sealed.service, reply, await _judged(args, ctx, sealed, reply))


async def _judged(args: PushArgs, ctx: Context, sealed: Sealed, reply: Reply) -> Verdict:
    if reply.status is None:
        return translated(silence(reply))
    ours = False
    if 200 <= reply.status <= 299:
        sealed.standing.took()
    elif reply.status in REFUSALS:
        ours = sealed.standing.refused(args.subscription.endpoint)
    verdict = judge(reply.status, reply.headers, ctx.tools.webhook.retry_after_max, datetime.now(UTC), ours=ours)
    if verdict.code == "key_refused":
        ctx.log.error("push_key_refused", service=sealed.service, status=reply.status, reply=_words(reply)[:200])
        if await _is_spent(ctx):
            return spent(reply.status)
    return verdict


async def _is_spent(ctx: Context) -> bool:
    """Subscriptions come from strangers, and so may services that refuse whatever they are sent: not for ever."""
    tried_s = await ctx.db.fetchval(load("notifications.sql")["first_tried"], ctx.job.id)
    return tried_s is not None and tried_s > ctx.tools.push.settings.refused_for


def _finish(args: PushArgs, ctx: Context, service: str, reply: Reply, verdict: Verdict) -> Outcome:
    if ctx.dry_run:
        return verdict.outcome
    endpoint = args.subscription.endpoint
    words = "" if verdict.result == "delivered" else _words(reply)
    location = shown_url(reply.headers.get("location", "")) or None
    again = ctx.job.crashes > 0
    log = row("push", recipient(endpoint), service, verdict, reply, message_id=location, words=words, again=again)
    ctx.record(LEDGER, log)
    if verdict.code == "gone":
        ctx.record(GONE, {"endpoint": endpoint, "status": reply.status})
    return verdict.outcome


def recipient(endpoint: str) -> str:
    """How the log names a subscription: whoever has its URL could send to it, were it not for our key."""
    return sha256(endpoint.encode("utf-8", "replace")).hexdigest()[:32]


def _words(reply: Reply) -> str:
    return reply.body.decode("utf-8", "replace")
