"""From a draft to the signed request of one attempt: secrets looked up, template rendered, target judged."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from time import time

import msgspec

from jobs.context import Context
from jobs.model import Dead, Retry, Snooze
from jobs.secrets import PREFIX as SECRET_REFERENCE
from jobs.secrets import SecretMissing
from jobs.templates import BadTemplate, TemplatesAway
from jobs.webhook.attempt import Message
from jobs.webhook.draft import Draft
from jobs.webhook.faults import fault_of
from jobs.webhook.guard import Blocked
from jobs.webhook.headers import BadHeader, check, outgoing
from jobs.webhook.judge import OURS_AGAIN_S, Verdict, judge_fault
from jobs.webhook.signing import BadSecret, Signer, signer
from jobs.webhook.target import BadUrl, Target
from jobs.webhook.tls import BadCertificate
from jobs.webhook.transport import Transport
from jobs.webhook.trip import Trip

OF_ORGANISATION = "--"
"""Between an organisation and the rest of the name of a secret of its own, as the triggers of endpoints have it too."""


class Refused(Exception):
    """There is nothing to send."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.code)
        self.verdict = verdict


async def compose(draft: Draft, ctx: Context, transport: Transport) -> Message:
    """The POST of this attempt: its timestamp, and so its signature, are of now.  Refused says what is in the way."""
    target = _target(draft.url, transport)
    tls = None if draft.client_certificate is None else await _tls(draft.client_certificate, target, ctx, transport)
    body = draft.body if draft.template is None else await _rendered(draft.template, draft, ctx)
    _weigh(len(body), target, ctx, transport)
    keys = _signer(draft, ctx) if draft.secrets else None
    timestamp = int(time())
    headers = outgoing(
        _resolved(draft.headers, ctx),
        user_agent=ctx.tools.webhook.user_agent,
        content_type=draft.content_type,
        message_id=draft.message_id,
        timestamp=timestamp,
        signatures={} if keys is None else keys.headers(draft.message_id, timestamp, body),
        traceparent=ctx.job.traceparent,
        correlation_id=ctx.job.correlation_id,
    )
    return Message(target, headers, body, tls)


def _weigh(size: int, target: Target, ctx: Context, transport: Transport) -> None:
    """Receivers refuse, or time out on, what is larger than they thought of, and the operator learns of it too late."""
    if size > (most := ctx.tools.webhook.payload_max):
        raise Refused(_dead("payload_too_large", f"the body has {size} bytes; {most} are allowed"))
    if size > (usual := ctx.tools.webhook.payload_warn) and transport.large.is_news(to := ctx.job.lane or target.host):
        ctx.log.warning("webhook_payload_large", destination=to, size_bytes=size, usual_bytes=usual)


def _target(url: str, transport: Transport) -> Target:
    try:
        return transport.guard.target(url)
    except (Blocked, BadUrl) as error:
        raise Refused(judge_fault(fault_of(error, Trip()), sent=False)) from None


async def _tls(reference: str, target: Target, ctx: Context, transport: Transport) -> ssl.SSLContext:
    if target.scheme != "https":
        raise Refused(_dead("bad_url", "a client certificate is shown to https:// only"))
    try:
        return await transport.tls.of(_secret(reference, ctx))
    except BadCertificate as error:
        raise Refused(_unusable_secret(reference, "secret_invalid", f"{reference!r}: {error}")) from None


async def _rendered(template: str, draft: Draft, ctx: Context) -> bytes:
    data = b'{"payload":%s,"event":%s}' % (draft.body, msgspec.json.encode(draft.event))
    try:
        text = await ctx.tools.templates.render(template, data, size_max=ctx.tools.webhook.payload_max)
    except BadTemplate as error:
        raise Refused(_dead(error.code, str(error))) from None
    except TemplatesAway:
        away = "this daemon cannot start a process for templates"
        again = Snooze(away, after=OURS_AGAIN_S, code="templates_away")
        raise Refused(Verdict("retry", "templates_away", again)) from None
    return text.encode("utf-8", "replace")


def _signer(draft: Draft, ctx: Context) -> Signer:
    texts = draft.secrets
    if any(text.startswith(SECRET_REFERENCE) for text in texts):
        texts = tuple(str(_secret(text, ctx)) for text in texts)
    try:
        return signer(texts, draft.signing)
    except BadSecret as error:
        references = next((text for text in draft.secrets if text.startswith(SECRET_REFERENCE)), "")
        raise Refused(_unusable_secret(references, "secret_invalid", str(error))) from None


def _resolved(headers: Mapping[str, str], ctx: Context) -> Mapping[str, str]:
    """`headers` with references replaced; what they stand for is checked like what a row says itself."""
    if not headers or not any(value.startswith(SECRET_REFERENCE) for value in headers.values()):
        return headers
    resolved = {name: str(_secret(value, ctx)) for name, value in headers.items()}
    try:
        check(resolved)
    except BadHeader as error:
        raise Refused(_unusable_secret(SECRET_REFERENCE, "secret_invalid", str(error))) from None
    return resolved


def _secret(text: str, ctx: Context) -> str:
    org_id = ctx.job.org_id
    if (
        ctx.tools.webhook.own_secrets
        and org_id is not None
        and text.startswith(SECRET_REFERENCE)
        and not text.startswith(f"{SECRET_REFERENCE}{org_id}{OF_ORGANISATION}")
    ):
        raise Refused(_dead("secret_refused", f"{text!r} is no secret of this job's organisation"))
    try:
        return ctx.tools.secrets.resolve(text)
    except SecretMissing as error:
        ctx.log.warning("webhook_secret_missing", error=str(error))  # says where it was looked for: for operators
        raise Refused(_unusable_secret(text, "secret_missing", f"there is no secret {text!r} here")) from None


def _unusable_secret(text: str, code: str, reason: str) -> Verdict:
    """A secret behind a reference is the operator's to put right, within the ladder's time, and then the dead letter
    can be retried.  One that stands in the row will never be another."""
    if text.startswith(SECRET_REFERENCE):
        return Verdict("retry", code, Retry(reason, code=code))
    return _dead(code, reason)


def _dead(code: str, reason: str) -> Verdict:
    return Verdict("dead", code, Dead(reason, code=code))
