"""The job kind `email`: one message to each of its recipients, once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.context import Context
from jobs.email.address import wire_domain
from jobs.email.decide import decide
from jobs.email.dkim import NoKey
from jobs.email.dkim_keys import SigningKey
from jobs.email.draft import NoDraft, drafted
from jobs.email.judge import judge
from jobs.email.logged import alert, before, record
from jobs.email.message import EmailArgs, Message, Unsendable, compose
from jobs.email.past import Past, delivered
from jobs.email.relay import UnknownRelay
from jobs.email.settings import MAIN
from jobs.model import Dead, Done, Job, Ladder, Outcome, Retry, Snooze
from jobs.registry import job
from jobs.webhook.endpoints import LANE as ENDPOINT_LANE

RETRY = Ladder("1m", "5m", "15m", "1h", "4h", "12h", "24h")
"""Eight attempts over some 41 hours; RFC 5321 4.5.4.1 asks for patience of days, readers of a notification do not."""

KEY_S = 60.0
"""Until mail that cannot be signed is looked at again: the fault is ours."""


def lane(args: EmailArgs) -> str | None:
    """The relay's name.  None for one that would stand in the lane of somebody's endpoint: there is no such relay."""
    relay = args.relay or MAIN
    return None if relay.startswith(ENDPOINT_LANE) else relay


@job("email", args=EmailArgs, retry=RETRY, timeout="30m", lane=lane)
async def email(args: EmailArgs, ctx: Context) -> Outcome:
    """Compose, hand over to the relay, note one row for each recipient, and say what the row comes to."""
    try:
        draft = await drafted(args, ctx, {})
        message = _signed(compose(draft, ctx.mail.settings, identity=_identity(ctx.job), now=datetime.now(UTC)), ctx)
    except NoDraft as nothing:
        return nothing.outcome
    except Unsendable as error:
        return Dead(str(error), code="unsendable")
    except NoKey as error:
        return Snooze(f"it cannot be signed: {error.args[0]}", after=KEY_S, code="dkim_key_missing")
    if ctx.dry_run:
        return Done(_would_send(message, args, ctx.mail.signer.keys(wire_domain(message.sender.domain))))
    past = await _past(ctx, message)
    pending = past.pending(message.recipients)
    if not pending:
        return Done({"recipients": {r.address: "delivered" for r in message.recipients}})
    try:
        report = await ctx.mail.send(message, pending, message.sender, args.relay)
    except UnknownRelay as error:
        return Retry(str(error.args[0]), code="relay_unknown")
    verdicts = {answer.recipient: judge(answer) for answer in report.answers}
    alert(ctx, report)
    record(ctx, message.message_id, report, verdicts, past)
    return decide(
        before(past, message.recipients) | verdicts,
        attempt=ctx.job.attempt,
        after_s=report.after_s,
        asked_before=past.unknown,
        dice=random.random(),  # noqa: S311 - spreads waiting rows, guards nothing
    )


def _signed(message: Message, ctx: Context) -> Message:
    """With its DKIM signatures, if there is a key for the domain of From."""
    return replace(
        message, wire=ctx.mail.signer.signed(message.wire, wire_domain(message.sender.domain), datetime.now(UTC))
    )


def _identity(job: Job) -> str:
    """The same for every attempt of a row.  The args are part of it, since a database made anew counts from 1 again."""
    return f"{job.id}\n{job.args_json}"


async def _past(ctx: Context, message: Message) -> Past:
    """Asked for only where there can be one: a first attempt for one recipient has none that matters."""
    if ctx.job.attempt == 1 and len(message.recipients) == 1:
        return Past()
    return await delivered(ctx.db, ctx.job.id)


def _would_send(message: Message, args: EmailArgs, keys: Sequence[SigningKey]) -> dict[str, Any]:
    return {
        "message_id": message.message_id,
        "from": message.sender.address,
        "recipients": [r.address for r in message.recipients],
        "relay": args.relay or MAIN,
        "bytes": len(message.wire),
        "dkim": [key.host for key in keys],
    }
