"""The `webhook` kind: one signed POST per attempt, judged and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2

from jobs.context import Context
from jobs.model import Dead, Done, Ladder, Outcome, Retry
from jobs.registry import job
from jobs.secrets import PREFIX as SECRET_REFERENCE
from jobs.secrets import SecretMissing
from jobs.values import Duration
from jobs.webhook import delivery
from jobs.webhook.addressee import JSON, Addressed, NoAddressee, addressed
from jobs.webhook.args import WebhookArgs, lane
from jobs.webhook.attempt import Message, Reply, post
from jobs.webhook.draft import Draft
from jobs.webhook.faults import fault_of
from jobs.webhook.guard import Blocked
from jobs.webhook.headers import BadHeader, check, outgoing
from jobs.webhook.judge import Verdict, judge_fault, judge_status
from jobs.webhook.settings import WebhookSettings
from jobs.webhook.signing import BadSecret, decode_secret, sign
from jobs.webhook.target import BadUrl
from jobs.webhook.transport import HttpClient, Transport
from jobs.webhook.trip import Trip


@job("webhook", args=WebhookArgs, retry=Ladder("1m", "5m", "30m", "2h"), timeout="5m", lane=lane)
async def webhook(args: WebhookArgs, ctx: Context) -> Outcome:
    """POST the payload once and say what came of it.  Cancelled in mid-flight, it records the doubt and lets go."""
    now = datetime.now(UTC)
    transport = _transport(ctx.http)
    reply = Reply()
    try:
        to = await addressed(args, ctx)
    except NoAddressee as nobody:
        return _unaddressed(args, ctx, nobody)
    try:
        message = _message(to.draft, ctx, transport, now)
    except _Refused as refused:
        return _finish(to, ctx, reply, refused.verdict)
    if ctx.dry_run:
        return await _rehearse(message, transport)
    settings = ctx.tools.webhook
    try:
        await post(transport, message, settings, args.timeout_s(_longest(settings, to)), reply)
    except asyncio.CancelledError:
        if reply.sent:
            _finish(to, ctx, reply, judge_fault(reply.fault, sent=True))
        raise
    if reply.status is None:
        return _finish(to, ctx, reply, judge_fault(reply.fault, sent=reply.sent))
    return _finish(to, ctx, reply, judge_status(reply.status, reply.headers, settings, datetime.now(UTC)))


class _Refused(Exception):
    """There is nothing to send."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.code)
        self.verdict = verdict


def _transport(client: httpx2.AsyncClient) -> Transport:
    if not isinstance(client, HttpClient):
        raise TypeError("ctx.http was not made by open_http, so nothing would guard this request")
    return client.guarded


def _longest(settings: WebhookSettings, to: Addressed) -> Duration:
    return settings.timeout if to.timeout_s is None else min(settings.timeout, Duration(to.timeout_s))


def _message(draft: Draft, ctx: Context, transport: Transport, now: datetime) -> Message:
    """The signed POST: `webhook-id` is constant over retries, the timestamp and so the signature are this attempt's."""
    try:
        target = transport.guard.target(draft.url)
    except (Blocked, BadUrl) as error:
        raise _Refused(judge_fault(fault_of(error, Trip()), sent=False)) from None
    body, message_id, timestamp = draft.body, draft.message_id, int(now.timestamp())
    keys = [_key(text, ctx) for text in draft.secrets]
    given = _resolved(draft.headers, ctx)
    if draft.content_type != JSON and not any(name.lower() == "content-type" for name in given):
        given = {**given, "content-type": draft.content_type}
    headers = outgoing(
        given,
        user_agent=ctx.tools.webhook.user_agent,
        message_id=message_id,
        timestamp=timestamp,
        signature=sign(keys, message_id, timestamp, body) if keys else None,
        traceparent=ctx.job.traceparent,
        correlation_id=ctx.job.correlation_id,
    )
    return Message(target, headers, body)


def _key(text: str, ctx: Context) -> bytes:
    try:
        return decode_secret(_secret(text, ctx))
    except BadSecret as error:
        raise _Refused(_unusable_secret(text, "secret_invalid", str(error))) from None


def _resolved(headers: Mapping[str, str], ctx: Context) -> Mapping[str, str]:
    """`headers` with references replaced; what they stand for is checked like what a row says itself."""
    if not any(value.startswith(SECRET_REFERENCE) for value in headers.values()):
        return headers
    resolved = {name: str(_secret(value, ctx)) for name, value in headers.items()}
    try:
        check(resolved)
    except BadHeader as error:
        raise _Refused(_unusable_secret(SECRET_REFERENCE, "secret_invalid", str(error))) from None
    return resolved


def _secret(text: str, ctx: Context) -> str:
    try:
        return ctx.tools.secrets.resolve(text)
    except SecretMissing as error:
        ctx.log.warning("webhook_secret_missing", error=str(error))  # says where it was looked for: for operators
        raise _Refused(_unusable_secret(text, "secret_missing", f"there is no secret {text!r} here")) from None


def _unusable_secret(text: str, code: str, reason: str) -> Verdict:
    """A secret behind a reference is the operator's to put right, within the ladder's time, and then the dead letter
    can be retried.  One that stands in the row will never be another."""
    if text.startswith(SECRET_REFERENCE):
        return Verdict("retry", code, Retry(reason, code=code))
    return Verdict("dead", code, Dead(reason, code=code))


async def _rehearse(message: Message, transport: Transport) -> Outcome:
    """Everything but the connection."""
    try:
        found = await transport.guard.addresses(message.target)
    except OSError as error:
        return judge_fault(fault_of(error, Trip()), sent=False).outcome
    return Done(
        {
            "would": f"POST {len(message.body)} bytes to {delivery.shown_url(str(message.target.url))}",
            "headers": sorted(message.headers),
            "addresses": len(found),
        }
    )


def _unaddressed(args: WebhookArgs, ctx: Context, nobody: NoAddressee) -> Outcome:
    if nobody.told and not ctx.dry_run:
        word = "retry" if isinstance(nobody.outcome, Retry) else "dead"
        row = delivery.row(
            word=word, code=nobody.code, url="", event=args.event, event_id=args.event_id, endpoint_id=args.endpoint
        )
        ctx.record(delivery.LEDGER, row)
    return nobody.outcome


def _finish(to: Addressed, ctx: Context, reply: Reply, verdict: Verdict) -> Outcome:
    if not ctx.dry_run:
        ctx.record(delivery.LEDGER, _row(to, reply, verdict))
    return verdict.outcome


def _row(to: Addressed, reply: Reply, verdict: Verdict) -> dict[str, Any]:
    return delivery.row(
        word=verdict.word,
        code=verdict.code,
        url=to.draft.url,
        event=to.draft.event,
        event_id=to.event_id,
        endpoint=None if to.endpoint is None else to.endpoint.name,
        endpoint_id=None if to.endpoint is None else to.endpoint.id,
        status=reply.status,
        address=reply.trip.address,
        phases_s=reply.trip.phases_s,
        duration_s=reply.duration_s,
        request_bytes=reply.request_bytes,
        headers=reply.headers,
        body=reply.body,
        truncated=reply.truncated,
    )
